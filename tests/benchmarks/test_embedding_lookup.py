"""The lookup benchmark: what it reports, and that it refuses to compare what is not equal."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from benchmarks.embedding_lookup import (
    LookupSettings,
    build_variants,
    draw_batches,
    run_lookup_benchmark,
)
from benchmarks.lookup_rates import bytes_moved
from benchmarks.lookup_variants import (
    EmbeddingBags,
    RawTbe,
    ShardedLookup,
    VariantsDisagreeError,
    check_agreement,
)
from benchmarks.report import print_lookup_report, write_report
from data_loaders.errors import InputError
from trainer.runtime import joined_ranks

TINY = LookupSettings(
    num_tables=3, num_rows=100, dim=8, pooling_factor=4, batch_size=16, num_rounds=2, device="cpu"
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return run_lookup_benchmark(TINY)


@pytest.fixture
def variants() -> Iterator[tuple[ShardedLookup, RawTbe, EmbeddingBags]]:
    with joined_ranks() as runtime:
        yield build_variants(TINY, runtime=runtime)


def test_a_tiny_run_reports_every_variant_in_every_mode(report: dict[str, Any]) -> None:
    """Three variants in two modes, each with positive finite numbers and its raw samples."""
    measured = {(row["variant"], row["mode"]) for row in report["results"]}
    assert measured == {
        (variant, mode)
        for variant in ("lookup", "tbe", "embedding_bag")
        for mode in ("forward", "train")
    }
    for row in report["results"]:
        samples = row.pop("samples_ms")
        assert len(samples) == TINY.num_rounds
        numbers = [value for value in row.values() if not isinstance(value, str)]
        assert len(numbers) == 7
        assert all(math.isfinite(value) and value > 0 for value in [*numbers, *samples])
        assert row["p10_ms"] <= row["median_ms"] <= row["p90_ms"]
        row["samples_ms"] = samples


def test_ratios_compare_this_project_with_both_rivals(report: dict[str, Any]) -> None:
    """With two rounds, a median of ratios is their mean; the ratio is of rates: rival over ours."""
    assert set(report["ratios"]) == {
        "lookup_over_tbe_forward",
        "lookup_over_tbe_train",
        "lookup_over_embedding_bag_forward",
        "lookup_over_embedding_bag_train",
    }
    samples = {(row["variant"], row["mode"]): row["samples_ms"] for row in report["results"]}
    for name, ratio in report["ratios"].items():
        rival, mode = name.removeprefix("lookup_over_").rsplit("_", 1)
        pairs = zip(samples[rival, mode], samples["lookup", mode], strict=True)
        expected = sum(theirs / ours for theirs, ours in pairs) / TINY.num_rounds
        assert ratio == pytest.approx(expected, rel=0.01)


def test_a_report_names_what_a_result_depends_on(report: dict[str, Any], tmp_path: Path) -> None:
    """Settings, environment and peak bandwidth survive JSON; nothing in it is a path."""
    write_report(report, tmp_path / "results" / "lookup.json")
    read = json.loads((tmp_path / "results" / "lookup.json").read_text())
    assert read["benchmark"] == "embedding_lookup"
    assert read["settings"]["num_rows"] == TINY.num_rows
    assert {"device", "threads", "cpu_model", "torch", "torchrec", "fbgemm", "git_commit"} <= set(
        read["environment"]
    )
    assert read["peak_bandwidth_gb_per_second"] > 0
    assert str(Path.cwd()) not in json.dumps(read)


def test_the_table_fits_a_terminal_of_100_columns(report: dict[str, Any]) -> None:
    """No name or number is cut off."""
    written = io.StringIO()
    print_lookup_report(report, Console(file=written, width=100))
    text = written.getvalue()
    assert "…" not in text
    assert text.count("this project") == 2 + 1  # two tables and the note below them
    assert text.count("raw FBGEMM TBE") == text.count("nn.EmbeddingBag") == 2


def test_variants_with_equal_weights_agree(
    variants: tuple[ShardedLookup, RawTbe, EmbeddingBags],
) -> None:
    """Pooled vectors of three, updated rows of two; for both distributions of ids."""
    lookup, tbe, embedding_bag = variants
    batch = draw_batches(TINY, device=CPU)[0]
    check_agreement(lookup=lookup, tbe=tbe, embedding_bag=embedding_bag, batch=batch)


@pytest.mark.parametrize("wrong", [0, 1, 2], ids=["lookup", "tbe", "embedding_bag"])
def test_a_variant_with_other_weights_is_caught(
    variants: tuple[ShardedLookup, RawTbe, EmbeddingBags], wrong: int
) -> None:
    """One weight of one wanted row is off by a thousandth."""
    lookup, tbe, embedding_bag = variants
    batch = draw_batches(TINY, device=CPU)[0]
    with torch.no_grad():
        variants[wrong].weights()[1][batch.ids_of(1)[0], 3] += 1e-3
    with pytest.raises(VariantsDisagreeError, match="pooled vectors"):
        check_agreement(lookup=lookup, tbe=tbe, embedding_bag=embedding_bag, batch=batch)


def test_a_variant_with_another_update_is_caught(
    variants: tuple[ShardedLookup, RawTbe, EmbeddingBags],
) -> None:
    """Equal pooled vectors do not excuse another learning rate."""
    lookup, tbe, embedding_bag = variants
    batch = draw_batches(TINY, device=CPU)[0]
    tbe.tables.set_learning_rate(0.02)
    with pytest.raises(VariantsDisagreeError, match="after one update"):
        check_agreement(lookup=lookup, tbe=tbe, embedding_bag=embedding_bag, batch=batch)


def test_bytes_moved_of_a_step_counted_by_hand() -> None:
    """Five ids on three rows of width 4: 5 x (8 + 16) read; 3 x (16 + 4) read and written."""
    counted = {"num_ids": 5, "num_distinct_rows": 3, "dim": 4}
    assert bytes_moved(**counted, momentum_width=1, update=False) == 120
    assert bytes_moved(**counted, momentum_width=1, update=True) == 120 + 2 * 60
    assert bytes_moved(**counted, momentum_width=4, update=True) == 120 + 2 * 3 * 32


def test_zipf_ids_want_few_rows_often_and_all_ids_lie_in_their_table() -> None:
    """The same settings draw the same batches; uniform ids touch more rows than zipf ids."""
    settings = LookupSettings(num_tables=2, num_rows=1000, batch_size=64, dim=4)
    zipf = draw_batches(settings, device=CPU)
    uniform = draw_batches(
        LookupSettings(num_tables=2, num_rows=1000, batch_size=64, dim=4, ids="uniform"), device=CPU
    )
    assert zipf[0].num_distinct_rows() < uniform[0].num_distinct_rows()
    for batch in zipf + uniform:
        assert len(batch.ids_N) == 2 * 64 * 10
        assert 0 <= batch.ids_N.min() <= batch.ids_N.max() < 1000
    again = draw_batches(settings, device=CPU)
    assert all(torch.equal(one.ids_N, two.ids_N) for one, two in zip(zipf, again, strict=True))


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (LookupSettings(dim=6), "dim"),
        (LookupSettings(num_rounds=0), "num_rounds"),
        (LookupSettings(num_rows=1), "num_rows"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(settings: LookupSettings, name: str) -> None:
    """The message names the setting."""
    with pytest.raises(InputError, match=name):
        run_lookup_benchmark(settings)
