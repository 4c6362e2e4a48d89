"""A benchmark's results for people, and for files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

VARIANTS = {
    "lookup": "this project",
    "tbe": "raw FBGEMM TBE",
    "embedding_bag": "nn.EmbeddingBag",
}
MODES = {"forward": "forward", "train": "forward + backward + update"}


def print_lookup_report(report: dict[str, Any], console: Console) -> None:
    """The report of `run_lookup_benchmark`, 80 columns wide."""
    settings, environment = report["settings"], report["environment"]
    ids = settings["batch_size"] * settings["pooling_factor"] * settings["num_tables"]
    distinct = report["num_distinct_rows"]
    console.print(
        f"{settings['num_tables']} tables x {settings['num_rows']:,} rows x {settings['dim']}, "
        f"batch {settings['batch_size']:,}, "
        f"{settings['pooling_factor']} {settings['ids']} ids a bag\n"
        f"{ids:,} ids a step, {distinct:,.0f} distinct rows",
        highlight=False,
    )
    console.print(
        f"{environment['device']}, {environment['cpu_model']}, threads: {environment['threads']}; "
        f"torch {environment['torch']}; medians of {settings['num_rounds']} rounds; "
        f"peak bandwidth {report['peak_bandwidth_gb_per_second']:.1f} GB/s",
        highlight=False,
    )
    for mode, title in MODES.items():
        console.print()
        console.print(_mode_table(report, mode=mode, title=title))
    console.print(
        "ours / its: this project's rate over the rival's, the median over rounds",
        style="dim",
        highlight=False,
    )


def write_report(report: dict[str, Any], path: Path) -> None:
    """Writes the report as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")


def _mode_table(report: dict[str, Any], *, mode: str, title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("variant", no_wrap=True)
    columns = ("median ms", "p10 - p90", "M ids/s", "GB/s", "of peak", "ours / its")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for row in report["results"]:
        if row["mode"] != mode:
            continue
        ratio = report["ratios"].get(f"lookup_over_{row['variant']}_{mode}")
        table.add_row(
            VARIANTS[row["variant"]],
            f"{row['median_ms']:.2f}",
            f"{row['p10_ms']:.1f} - {row['p90_ms']:.1f}",
            f"{row['lookups_per_second'] / 1e6:.2f}",
            f"{row['gb_per_second']:.1f}",
            f"{row['fraction_of_peak']:.1%}",
            f"{ratio:.2f} x" if ratio else "",
            style="bold" if row["variant"] == "lookup" else None,
        )
    return table
