"""A benchmark's results for people, and for files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from data_loaders.errors import counted

VARIANTS = {
    "lookup": "this project",
    "tbe": "raw FBGEMM TBE",
    "embedding_bag": "nn.EmbeddingBag",
}
CONTENDERS = {
    "scan": "pyarrow scan",
    "loader": "this project",
    "dataloader": "DataLoader, rows",
    "dataloader_batched": "DataLoader, batches",
    "ray_data": "Ray Data",
}
TEXTBOOK = {"textbook_static": "textbook, static", "textbook_pcgrad": "textbook, pcgrad"}
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


def print_input_report(report: dict[str, Any], console: Console) -> None:
    """The report of `run_input_benchmark`, 80 columns wide."""
    settings, environment, log = report["settings"], report["environment"], report["log"]
    mib = {key: f"{log[key] / 2**20:,.1f} MiB" for key in log if key.endswith("_bytes")}
    console.print(
        f"{settings['recipe']}: {log['examples']:,} examples, {counted(log['files'], 'file')}, "
        f"{counted(log['row_groups'], 'row group')}, batch {settings['batch_size']:,}\n"
        f"{counted(len(log['columns']), 'column')}: {mib['column_bytes']} stored, "
        f"{mib['arrow_bytes']} decoded, of files of {mib['file_bytes']}",
        highlight=False,
    )
    console.print(
        f"{environment['cpu_model']}, cores: {environment['cores']}, load "
        f"{environment['load_average']}; pyarrow {environment['pyarrow']}, "
        f"torch {environment['torch']}, ray {environment['ray']}; "
        f"medians of {settings['num_rounds']} rounds",
        highlight=False,
    )
    console.print()
    console.print(_contenders_table(report))
    console.print(
        "ours / its: this project's median rate over the other's; the scan is the limit,\n"
        "for it makes no tensors; only this project shuffles",
        style="dim",
        highlight=False,
    )
    console.print()
    console.print(_memory_table(report["memory"]))
    console.print(
        "the same files 1, 10 and 100 times: the list of files and row groups grows,\n"
        "the rows held to be shuffled and batched do not, once a log is long enough to\n"
        "fill the shuffle's windows: they are why 10 times takes more than once",
        style="dim",
        highlight=False,
    )


def print_step_report(report: dict[str, Any], console: Console) -> None:
    """The report of `run_step_benchmark`, 80 columns wide."""
    settings, environment = report["settings"], report["environment"]
    console.print(
        f"{settings['architecture']}, {counted(settings['num_tasks'], 'task')}, "
        f"batch {settings['batch_size']:,}; {settings['num_tables']} tables x "
        f"{settings['num_rows']:,} rows x {settings['dim']}\n"
        f"{environment['device']}, {environment['cpu_model']}, threads: {environment['threads']}, "
        f"load {environment['load_average']}; torch {environment['torch']}; "
        f"medians of {settings['num_rounds']} rounds",
        highlight=False,
    )
    console.print(_steps_table(report))
    console.print(
        "ratio: of times to that of static weights; CPU: of this process alone;\n"
        "textbook: unfused tables, and for PCGrad a backward for each task",
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


def _contenders_table(report: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("reader", no_wrap=True)
    for column in ("median ms", "p10 - p90", "examples/s", "ours / its"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in report["results"]:
        ratio = report["ratios"].get(f"loader_over_{row['contender']}")
        table.add_row(
            CONTENDERS[row["contender"]],
            f"{row['median_ms']:,.0f}",
            f"{row['p10_ms']:,.0f} - {row['p90_ms']:,.0f}",
            f"{row['examples_per_second']:,.0f}",
            f"{ratio:.2f} x" if ratio else "",
            style="bold" if row["contender"] == "loader" else None,
        )
    return table


def _steps_table(report: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("method", no_wrap=True)
    for column in ("median ms", "p10 - p90", "CPU ms", "ratio", "CPU ratio"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in report["results"]:
        name = row["variant"]
        ratio = report["ratios"].get(f"{name}_over_static")
        cpu_ratio = report["cpu_ratios"].get(f"{name}_over_static")
        table.add_row(
            TEXTBOOK.get(name, name),
            f"{row['median_ms']:.2f}",
            f"{row['p10_ms']:.1f} - {row['p90_ms']:.1f}",
            f"{row['cpu_ms']:.2f}",
            f"{ratio:.2f} x" if ratio else "",
            f"{cpu_ratio:.2f} x" if cpu_ratio else "",
            style="bold" if name == "static" else None,
        )
    return table


def _memory_table(memory: list[dict[str, Any]]) -> Table:
    """MiB, resident in a process of its own."""
    table = Table(
        title="this project's memory as the log grows",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
    )
    for column in ("examples", "files", "MiB stored", "MiB before", "MiB peak", "growth"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in memory:
        table.add_row(
            f"{row['examples']:,}",
            f"{row['files']:,}",
            f"{row['file_bytes'] / 2**20:,.1f}",
            f"{row['imported_bytes'] / 2**20:,.1f}",
            f"{row['peak_bytes'] / 2**20:,.1f}",
            f"{row['peak_bytes'] / memory[0]['peak_bytes']:.2f} x",
        )
    return table
