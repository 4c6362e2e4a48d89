"""Faults in the log of a whole run: what is left out is counted once, told, and kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from data_loaders.errors import SchemaError, StorageError
from data_loaders.skipping import Skipped
from data_loaders.storage import locate
from tests.helpers.logs import SPLITS, toy_recipe, toy_table, write_groups
from tests.helpers.ranks import run_ranks
from tests.helpers.runs import interrupt_after, notes_of, reports, summary, train_on
from trainer.checkpoint import CheckpointMismatchError
from trainer.config import Recipe
from trainer.evaluate import Evaluation, chosen_checkpoint, evaluate_checkpoint
from trainer.log_files import check_ranks_agree
from trainer.recipe_file import build_recipe
from trainer.skip_report import MOST_ENTRIES, SkipReport, summed

# of each split, rows of file 0 whose price is infinite
NUM_WRONG = {"train": 9, "valid": 4, "test": 2}
NUM_EXAMPLES = {split: sum(map(sum, files)) for split, files in SPLITS.items()}


def with_wrong_prices(table: pa.Table, *, num_wrong: int) -> pa.Table:
    prices = table["price"].to_numpy().copy()
    prices[np.linspace(0, len(prices) - 1, num_wrong, dtype=int)] = np.inf
    index = table.schema.get_field_index("price")
    return table.set_column(index, "price", pa.array(prices, pa.float32()))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The toy log with wrong values in the first file of each split."""
    seed = 0
    for split, sizes in SPLITS.items():
        files = []
        for groups in sizes:
            files.append([toy_table(size, seed=(seed := seed + 1)) for size in groups])
        files[0][0] = with_wrong_prices(files[0][0], num_wrong=NUM_WRONG[split])
        write_groups(tmp_path / "log", split=split, files=files)
    return tmp_path / "log"


def make_recipe(log: Path, run: Path, *overrides: str, on_error: str = "skip") -> Recipe:
    tree = toy_recipe(log, run={"num_epochs": 2, "uri": str(run)}, data={"on_error": on_error})
    return build_recipe(tree, overrides=list(overrides), source="toy")


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_run_uses_all_other_rows_and_tells_what_it_left_out(
    log: Path, tmp_path: Path, world_size: int
) -> None:
    """In two epochs, with a file that nobody can read; in evaluations too."""
    (log / "train" / "part-00007.parquet").write_bytes(b"no Parquet")
    train_on(make_recipe(log, tmp_path / "run"), world_size=world_size)
    found = summary(tmp_path / "run")
    assert found["examples"] == 2 * (NUM_EXAMPLES["train"] - NUM_WRONG["train"])
    assert found["skipped"] == 2 * NUM_WRONG["train"]
    assert found["skipped_uncounted_files"] == 1
    assert found["evaluation_skipped"] == NUM_WRONG["test"]
    assert found["tasks"]["click"]["examples"] == NUM_EXAMPLES["test"] - NUM_WRONG["test"]
    [entry] = found["evaluation_skipped_of"]
    assert entry["file"] == str(log / "test" / "part-00000.parquet")
    assert entry["examples"] == NUM_WRONG["test"]
    assert entry["reason"].startswith("column price: value inf")
    lines = reports(tmp_path / "run", split="train")
    assert lines[-1]["skipped"] == 2 * NUM_WRONG["train"]
    assert lines[-1]["examples"] == found["examples"]
    assert sum(line["tasks"]["click"]["examples"] for line in lines) == found["examples"]
    entries = [entry for line in lines for entry in line.get("skipped_of", [])]
    wrong = [entry for entry in entries if entry["reason"].startswith("column price")]
    assert sum(entry["examples"] for entry in wrong) == 2 * NUM_WRONG["train"]
    [unreadable] = [entry for entry in entries if entry not in wrong]
    assert unreadable["file"] == str(log / "train" / "part-00007.parquet")
    assert unreadable["examples"] is None
    for line in reports(tmp_path / "run", split="valid"):
        assert line["skipped"] == NUM_WRONG["valid"]
        assert line["tasks"]["click"]["examples"] == NUM_EXAMPLES["valid"] - NUM_WRONG["valid"]


def without_times(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    times = {"seconds", "examples_per_second"}
    return [{key: line[key] for key in line if key not in times} for line in lines]


def test_what_was_skipped_is_counted_once_when_a_run_is_taken_up(log: Path, tmp_path: Path) -> None:
    """On 2 ranks, from a step in the first epoch; every report is that of a run without a stop."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for run in (whole, broken):
        recipe = make_recipe(log, run, "checkpoint.interval_steps=3", "checkpoint.keep=9")
        train_on(recipe, world_size=2)
    interrupt_after(broken, step=3)
    train_on(recipe, world_size=2)
    for key in ("examples", "skipped", "skipped_uncounted_files", "tasks"):
        assert summary(broken)[key] == summary(whole)[key]
    for split in ("train", "valid"):
        found, expected = (reports(run, split=split) for run in (broken, whole))
        assert without_times(found) == without_times(expected)


def test_by_default_a_wrong_value_ends_the_run(log: Path, tmp_path: Path) -> None:
    """Naming file and column, on whatever rank it is read."""
    recipe = make_recipe(log, tmp_path / "run", on_error="fail")
    with pytest.raises(SchemaError, match=r"train/part-00000\.parquet: column price: value inf"):
        train_on(recipe, world_size=2)


def test_a_person_is_told_once(log: Path, tmp_path: Path) -> None:
    """When something is first left out, and not again when the run is taken up."""
    options = ["checkpoint.interval_steps=3", "checkpoint.keep=9"]
    recipe = make_recipe(log, tmp_path / "run", *options)
    [[note]] = run_ranks(notes_of, world_size=1, arguments={"recipe": recipe})
    assert f"{log / 'train' / 'part-00000.parquet'}: column price: value inf" in note
    assert "\n" not in note
    interrupt_after(tmp_path / "run", step=12)
    assert run_ranks(notes_of, world_size=1, arguments={"recipe": recipe}) == [[]]


def evaluation_of(run: Path) -> Evaluation:
    checkpoint = chosen_checkpoint(locate(str(run)))
    return evaluate_checkpoint(checkpoint, data_root=None, listener=None)


def test_an_evaluation_says_what_it_left_out(log: Path, tmp_path: Path) -> None:
    """All ranks know all of it."""
    train_on(make_recipe(log, tmp_path / "run", "run.num_epochs=1"), world_size=1)
    found = run_ranks(evaluation_of, world_size=2, arguments={"run": tmp_path / "run"})
    for evaluation in found:
        assert evaluation.skips.num_skipped == NUM_WRONG["test"]
        [line] = evaluation.skips.lines()
        assert line.startswith(f"skipped 2 examples of {log / 'test' / 'part-00000.parquet'}: ")


def add(log: Path) -> None:
    pq.write_table(toy_table(5, seed=99), log / "train" / "part-00005.parquet")


def change(log: Path) -> None:
    pq.write_table(toy_table(120, seed=99), log / "train" / "part-00001.parquet")


def remove(log: Path) -> None:
    (log / "train" / "part-00002.parquet").unlink()


@pytest.mark.parametrize(
    ("meddle", "said"),
    [
        ([add], r"train/part-00005\.parquet has come since"),
        ([change], r"train/part-00001\.parquet has changed \([\d,]+ bytes there, [\d,]+ here\)"),
        ([remove], r"train/part-00002\.parquet has gone since"),
        ([add, remove, change], r"train/part-00001\.parquet has changed .* and 2 files more since"),
    ],
)
def test_a_run_is_not_taken_up_on_other_files_and_names_them(
    log: Path, tmp_path: Path, meddle: list[Callable[[Path], None]], said: str
) -> None:
    """In one line with the remedy."""
    train_on(make_recipe(log, tmp_path / "run", "run.num_epochs=1"), world_size=1)
    for meddle_with in meddle:
        meddle_with(log)
    with pytest.raises(CheckpointMismatchError, match=said) as caught:
        train_on(make_recipe(log, tmp_path / "run"), world_size=1)
    assert "restore the files, or start another run.uri" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_can_no_longer_be_read_is_named_when_a_run_is_taken_up(
    log: Path, tmp_path: Path
) -> None:
    """Leaving it out would put the run out of step with its place in the log."""
    train_on(make_recipe(log, tmp_path / "run", "run.num_epochs=1"), world_size=1)
    (log / "train" / "part-00001.parquet").write_bytes(b"no Parquet")
    with pytest.raises(CheckpointMismatchError, match=r"train/part-00001\.parquet has gone"):
        train_on(make_recipe(log, tmp_path / "run"), world_size=1)


def refusal_of_rank(files_by_rank: list[dict[str, tuple[int, str]]]) -> str:
    rank = torch.distributed.get_rank()
    with pytest.raises(StorageError) as caught:
        check_ranks_agree(files_by_rank[rank], split="train")
    return str(caught.value)


def test_ranks_that_find_different_files_do_not_begin() -> None:
    """A file came while they looked; all of them say which."""
    files = {"a.parquet": (10, "x"), "b.parquet": (20, "y")}
    by_rank = [files, files | {"c.parquet": (30, "z")}]
    said = run_ranks(refusal_of_rank, world_size=2, arguments={"files_by_rank": by_rank})
    assert said[0] == said[1]
    assert said[0].startswith("train/c.parquet has come between")


def test_many_reasons_are_told_in_few_lines() -> None:
    """Alike ones are added up, the most examples come first, and the rest is counted."""
    rows = [Skipped(uri="a", num_rows=1, reason="x")] * 1000
    files = [Skipped(uri=f"file {index}", num_rows=None, reason="y") for index in range(30)]
    report = SkipReport(skipped=tuple(summed([*files, *rows])))
    assert report.skipped[0] == Skipped(uri="a", num_rows=1000, reason="x")
    assert (report.num_skipped, report.num_uncounted_files) == (1000, 30)
    entries = report.entries()
    assert len(entries["skipped_of"]) == MOST_ENTRIES
    assert entries["skipped_of_more"] == 31 - MOST_ENTRIES
    assert report.lines()[0] == "skipped 1,000 examples of a: x"
    assert report.lines()[-1] == "and 11 more"
    assert SkipReport().entries() == {}
