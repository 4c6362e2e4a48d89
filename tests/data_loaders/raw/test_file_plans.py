"""Which rows go to which file: all of them, once, in order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_loaders.dataset import SPLITS
from data_loaders.errors import InputError
from data_loaders.exact_numbers import ValueCounts
from data_loaders.prepare_config import PrepareConfig, SplitConfig
from data_loaders.raw.file_plans import plan_files, split_starts
from data_loaders.raw.staging import FilePlan, SplitPart
from data_loaders.storage import locate

ROOT = locate("/data")
counts = st.lists(st.tuples(*[st.integers(0, 9)] * 3), min_size=1, max_size=5)


def plans_of(parts: list[SplitPart], **prepare: int) -> list[FilePlan]:
    return plan_files(
        parts,
        root=ROOT,
        prepare=PrepareConfig.model_validate(prepare),
        num_streams=64,
        bytes_per_row=10.0,
        fitted={"x": "number"},
    )


@given(st.lists(counts, min_size=1, max_size=4), st.integers(1, 12))
def test_every_row_is_in_one_file_in_order(
    rows: list[list[tuple[int, int, int]]], rows_per_file: int
) -> None:
    """Files are full but for the last one of each split."""
    parts = [SplitPart(index, np.array(groups)) for index, groups in enumerate(rows)]
    if not sum(part.num_rows_GS[:, 0].sum() for part in parts):
        return
    plans = plans_of(parts, rows_per_file=rows_per_file)
    for code, split in enumerate(SPLITS):
        expected = [
            (part.index, group, row)
            for part in parts
            for group in range(len(part.num_rows_GS))
            for row in range(part.num_rows_GS[group, code])
        ]
        files = [
            [
                (piece.part, piece.group, row)
                for piece in plan.pieces
                for row in range(piece.skip, piece.skip + piece.take)
            ]
            for plan in plans
            if plan.split == split
        ]
        assert [row for file in files for row in file] == expected
        assert [len(file) for file in files[:-1]] == [rows_per_file] * (len(files) - 1)
    names = [Path(plan.target).relative_to("/data") for plan in plans]
    assert len(set(names)) == len(names)
    assert {plan.split for plan in plans if plan.fitted} == {"train"}


@pytest.mark.parametrize(
    ("num_rows", "row_group", "file"),
    [
        (1_000, 1_024, 2**20),  # small: no row group for each stream
        (100_000, 1_563, 670 * 1_563),
        (10_000_000, 65_536, 2**20),
    ],
)
def test_sizes_suit_the_log(num_rows: int, row_group: int, file: int) -> None:
    """A row group for each stream, but none too small to read or too large to hold."""
    [plan, *_] = plans_of([SplitPart(0, np.array([[num_rows, 0, 0]]))])
    assert plan.rows_per_row_group == row_group
    assert sum(piece.take for piece in plan.pieces) == min(num_rows, file)


def test_a_log_without_training_rows_is_refused() -> None:
    """It is the split that is at fault."""
    with pytest.raises(InputError, match=r"prepare.split: no row is left for train"):
        plans_of([SplitPart(0, np.array([[0, 3, 4]]))])


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=80),
    st.floats(0, 0.49),
    st.floats(0, 0.49),
)
def test_the_latest_rows_are_held_out(times: list[int], valid: float, test: float) -> None:
    """Equal times stay together: no fewer rows are held out than asked for, to the whole row."""
    scores = ValueCounts()
    scores.add(np.array(times, np.float64))
    config = SplitConfig(time="t", valid=valid, test=test)
    starts = split_starts(config, scores=scores)
    split = np.searchsorted(starts, np.array(times, np.float64), side="right")
    assert (split == 2).sum() >= int(len(times) * test)
    assert (split >= 1).sum() >= int(len(times) * test) + int(len(times) * valid)
    assert [code for _, code in sorted(zip(times, split, strict=True))] == sorted(split)
    assert starts[0] <= starts[1]
    if not int(len(times) * test):
        assert not (split == 2).any()
