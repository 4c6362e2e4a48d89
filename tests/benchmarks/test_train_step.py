"""The step benchmark: its variants start alike, and it reports what it measured."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from benchmarks.lookup_variants import VariantsDisagreeError
from benchmarks.report import print_step_report, write_report
from benchmarks.step_variants import check_agreement
from benchmarks.train_step import (
    StepSettings,
    build_variants,
    draw_batches,
    run_step_benchmark,
)
from data_loaders.errors import InputError
from trainer.balancing import BALANCERS
from trainer.runtime import joined_ranks

TINY = StepSettings(
    architecture="shared_bottom",
    num_tables=2,
    num_rows=50,
    dim=4,
    num_dense=3,
    batch_size=32,
    steps_per_turn=1,
    num_rounds=2,
    device="cpu",
)
TEXTBOOK = ("textbook_static", "textbook_pcgrad")


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return run_step_benchmark(TINY)


def test_every_method_is_timed_beside_the_textbook(report: dict[str, Any]) -> None:
    """Positive finite numbers, and as many samples as rounds."""
    assert [row["variant"] for row in report["results"]] == [*BALANCERS, *TEXTBOOK]
    for row in report["results"]:
        assert len(row["samples_ms"]) == TINY.num_rounds
        numbers = [row[key] for key in row if key not in ("variant", "samples_ms")]
        assert all(math.isfinite(value) and value > 0 for value in [*numbers, *row["samples_ms"]])


def test_ratios_are_over_static_weights(report: dict[str, Any]) -> None:
    """With two rounds, a median of ratios is their mean."""
    expected = {f"{word}_over_static" for word in {*BALANCERS, *TEXTBOOK} - {"static"}}
    expected.add("textbook_pcgrad_over_textbook_static")
    assert set(report["ratios"]) == set(report["cpu_ratios"]) == expected
    samples = {row["variant"]: row["samples_ms"] for row in report["results"]}
    pairs = list(zip(samples["mgda"], samples["static"], strict=True))
    mean = sum(its / static for its, static in pairs) / len(pairs)
    assert report["ratios"]["mgda_over_static"] == pytest.approx(mean, rel=0.01)


def test_the_table_fits_a_terminal_of_80_columns(report: dict[str, Any], tmp_path: Path) -> None:
    """No name or number is cut off; the report survives JSON, and nothing in it is a path."""
    written = io.StringIO()
    print_step_report(report, Console(file=written, width=80))
    assert "…" not in written.getvalue()
    assert "textbook, pcgrad" in written.getvalue()
    write_report(report, tmp_path / "step.json")
    read = json.loads((tmp_path / "step.json").read_text())
    assert read["settings"]["num_rows"] == TINY.num_rows
    assert str(Path.cwd()) not in json.dumps(read)


def test_a_variant_with_other_weights_is_caught() -> None:
    """One row of a table is off, in the textbook's model."""
    with joined_ranks() as runtime:
        batches = draw_batches(TINY, device=torch.device("cpu"))
        variants = build_variants(TINY, runtime=runtime, batches=batches)
        with torch.no_grad():
            next(variants[-1]._tables.parameters())[batches[0].ids.values()[0]] += 10
        with pytest.raises(VariantsDisagreeError, match="textbook_pcgrad: the losses of the first"):
            check_agreement(variants, alike=("static", "textbook_static"))


def test_settings_that_cannot_be_are_refused_by_name() -> None:
    """The message names the setting."""
    with pytest.raises(InputError, match="num_rows"):
        run_step_benchmark(dataclasses.replace(TINY, num_rows=0))
