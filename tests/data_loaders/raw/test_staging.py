"""The steps of a preparation, one after another in one process, on files cut very small."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_loaders.dataset import SPLITS
from data_loaders.prepare_config import PrepareConfig
from data_loaders.raw import staged_files, staging
from data_loaders.raw.columns import RawColumn
from data_loaders.raw.file_plans import plan_files, split_starts
from data_loaders.raw.files import list_files, list_parts
from data_loaders.raw.staged_files import Job
from data_loaders.raw.staging import assign_splits, clean_part, find_duplicates, write_file
from data_loaders.storage import locate

NUM_RANGES = 3


def last(told: Iterator[Any]) -> Any:
    """A step's result, which follows its progress."""
    *_, result = told
    return result


def run(folder: Path, prepare: PrepareConfig) -> int:
    """All steps over the files of `folder/raw`; returns the number of duplicates."""
    columns = (
        RawColumn("user", "text", is_written=True),
        RawColumn("time", "time", is_written=True),
    )
    staged, rejected = str(folder / "_staging"), str(folder / "rejected")
    job = Job(columns, prepare, staged, rejected, num_ranges=NUM_RANGES, block_bytes=60)
    raw = list_parts(list_files([str(folder / "raw")]))
    parts = [last(clean_part(part, job=job)) for part in raw]
    ranges = [last(find_duplicates(index, job=job, parts=parts)) for index in range(NUM_RANGES)]
    scores = ranges[0].scores
    for other in ranges[1:]:
        scores.merge(other.scores)
    starts = split_starts(prepare.split, scores=scores)
    held = [item.index for item in ranges if item.num_duplicates]
    split = [last(assign_splits(part, job=job, starts=starts, ranges=held)) for part in parts]
    plans = plan_files(
        split,
        root=locate(str(folder)),
        prepare=prepare,
        num_streams=4,
        bytes_per_row=9.0,
        fitted={"user": "id"},
    )
    for plan in plans:
        last(write_file(plan, job=job))
    return sum(item.num_duplicates for item in ranges)


def rows_of(folder: Path, split: str) -> list[tuple[str, float]]:
    files = sorted((folder / split).glob("*.parquet"))
    return [tuple(row.values()) for file in files for row in pq.read_table(file).to_pylist()]


@pytest.mark.parametrize("unique", [None, ["user"], []])
def test_the_first_of_equal_rows_is_where_its_time_belongs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unique: list[str] | None
) -> None:
    """Over files, row groups, key files and hash ranges, as a loop over the rows says."""
    monkeypatch.setattr(staged_files, "KEYS_AT_ONCE", 7)
    monkeypatch.setattr(staging, "BLOCK_ROWS", 5)
    monkeypatch.setattr(staging, "DUPLICATES_PER_ROW_GROUP", 2)
    random = np.random.default_rng(3)
    users, times = random.integers(0, 40, 90), random.integers(0, 30, 90)
    rows = [(str(user), float(time)) for user, time in zip(users, times, strict=True)]
    (tmp_path / "raw").mkdir()
    lines = [f"{user},{time:.0f}\n" for user, time in rows]
    (tmp_path / "raw/a.csv").write_text("user,time\n" + "".join(lines[:41]))
    (tmp_path / "raw/b.csv").write_text("user,time\n")
    table = pa.table({"time": times[41:], "user": [user for user, _ in rows[41:]]})
    pq.write_table(table.select(["user", "time"]), tmp_path / "raw/c.parquet")

    split = {"time": "time", "valid": 0.2, "test": 0.2}
    config = {"unique": unique, "split": split, "rows_per_file": 8}
    num_duplicates = run(tmp_path, PrepareConfig.model_validate(config))

    # cells of CSV are texts, and those of Parquet numbers: a whole row of one equals none of the
    # other, the values do
    kept: dict[Any, tuple[str, float]] = {}
    for index, row in enumerate(rows):
        kept.setdefault({None: (index < 41, *row), "user": row[0], "": index}[_key(unique)], row)
    expected = list(kept.values())
    ordered = sorted(time for _, time in expected)
    first_test = ordered[len(ordered) - int(len(ordered) * 0.2)]
    first_valid = ordered[len(ordered) - 2 * int(len(ordered) * 0.2)]
    assert num_duplicates == len(rows) - len(expected)
    assert rows_of(tmp_path, "train") == [row for row in expected if row[1] < first_valid]
    assert rows_of(tmp_path, "test") == [row for row in expected if row[1] >= first_test]
    assert sum(len(rows_of(tmp_path, name)) for name in SPLITS) == len(expected)
    assert len(rows_of(tmp_path, "rejected")) == num_duplicates


def _key(unique: list[str] | None) -> str | None:
    return None if unique is None else "".join(unique)
