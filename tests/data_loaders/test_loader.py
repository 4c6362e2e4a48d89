"""The log on real Parquet files, streamed to ranks: every row once, wherever a run stops."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from data_loaders.batch import InteractionBatch
from data_loaders.config import DataConfig
from data_loaders.errors import InputError, SchemaError, StorageError
from data_loaders.loader import ROWS_PER_ROUND, InteractionLoader
from data_loaders.streams import Cursor
from tests.helpers.logs import write_groups

MAX_ROWS = 100_000
CONFIG = {
    "num_streams": 6,
    "features": {
        "row": {"kind": "id", "encoding": "direct"},
        "twin": {"kind": "id_list", "encoding": "direct", "table": "row"},
        "half": {"kind": "dense"},
    },
    "tasks": {"odd": {"kind": "binary"}},
}


def numbered(start: int, stop: int) -> pa.Table:
    """Rows that know their number, in every kind of column."""
    rows = range(start, stop)
    return pa.table(
        {
            "row": pa.array(rows, pa.int64()),
            "twin": pa.array([[row] * (row % 3) for row in rows], pa.list_(pa.int64())),
            "half": pa.array([row / 2 for row in rows], pa.float64()),
            "odd": pa.array([row % 2 for row in rows], pa.int8()),
        }
    )


def write_numbered(root: Path, *, sizes: list[list[int]], split: str = "train") -> int:
    """A log of numbered rows in row groups of these sizes; returns the number of rows."""
    start, files = 0, []
    for groups in sizes:
        tables = []
        for size in groups:
            tables.append(numbered(start, start + size))
            start += size
        files.append(tables)
    write_groups(root, split=split, files=files)
    return start


def loader(
    root: Path,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    seed: int | None = 0,
    prefetch_bytes: int = 4000,
) -> InteractionLoader:
    tree = CONFIG | {
        "root": str(root),
        "batch_size": batch_size,
        "prefetch_bytes": prefetch_bytes,
    }
    return InteractionLoader(
        DataConfig.model_validate(tree),
        split="train",
        num_rows={"row": MAX_ROWS, "twin": MAX_ROWS},
        seed=seed,
        rank=rank,
        world_size=world_size,
    )


def rows_of(batch: InteractionBatch) -> list[int]:
    """The numbers of a batch's rows, after checking that all its columns are of the same rows."""
    rows = batch.ids["row"].values().tolist()
    size = len(rows)
    padding = len(batch.weights_B) - size
    assert batch.weights_B.tolist() == [1.0] * size + [0.0] * padding
    assert batch.ids["row"].lengths().tolist() == [1] * size + [0] * padding
    assert batch.ids["twin"].lengths().tolist() == [row % 3 for row in rows] + [0] * padding
    assert batch.ids["twin"].values().tolist() == [row for row in rows for _ in range(row % 3)]
    assert batch.dense_BD[:, 0].tolist() == [row / 2 for row in rows] + [0.0] * padding
    assert batch.labels_BT[:size, 0].tolist() == [row % 2 for row in rows]
    assert batch.labels_BT[size:].isnan().all()
    return rows


SIZES = [[7, 0, 1, 30], [13], [0, 2, 11]]


@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
@pytest.mark.parametrize("batch_size", [1, 4, 10, 64, 100])
def test_every_row_is_read_once_an_epoch_at_any_world_size(
    tmp_path: Path, world_size: int, batch_size: int
) -> None:
    """In steps that are the same set at every world size, with empty batches at the end."""
    total = write_numbered(tmp_path, sizes=SIZES)
    loaders = [
        loader(tmp_path, batch_size=batch_size, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    num_steps = loaders[0].steps_per_epoch
    whole = loader(tmp_path, batch_size=batch_size)
    streams = [item.batches(start=Cursor(), num_steps=2 * num_steps) for item in loaders]
    expected = whole.batches(start=Cursor(), num_steps=2 * num_steps)
    read: list[int] = []
    for step, batches in enumerate(zip(*streams, strict=True)):
        together = [row for batch in batches for row in rows_of(batch)]
        read += together
        single = next(expected)
        assert sorted(together) == sorted(rows_of(single))
        assert {len(batch.weights_B) for batch in batches} == {
            max(len(rows_of(batch)) for batch in batches)
        }
        cursors = {batch.cursor for batch in (*batches, single)}
        assert cursors == {Cursor(*divmod(step + 1, num_steps))}
    assert sorted(read[:total]) == sorted(read[total:]) == list(range(total))
    assert read[:total] != read[total:] or total == 1


def test_one_row_group_feeds_more_ranks_than_there_are_groups(tmp_path: Path) -> None:
    """Streams cut row groups, so no rank is without rows."""
    write_numbered(tmp_path, sizes=[[60]])
    for rank in range(6):
        item = loader(tmp_path, batch_size=12, rank=rank, world_size=6)
        batches = list(item.batches(start=Cursor(), num_steps=5))
        assert [len(rows_of(batch)) for batch in batches] == [2] * 5


def test_reading_goes_on_at_any_step_as_if_never_stopped(tmp_path: Path) -> None:
    """From the cursor of any batch, over the end of the epoch, in the same order."""
    write_numbered(tmp_path, sizes=SIZES)
    item = loader(tmp_path, batch_size=10, rank=1, world_size=2)
    steps = 2 * item.steps_per_epoch + 1
    whole = list(item.batches(start=Cursor(), num_steps=steps))
    for done in range(steps):
        start = whole[done - 1].cursor if done else Cursor()
        rest = list(item.batches(start=start, num_steps=steps - done))
        assert [rows_of(batch) for batch in rest] == [rows_of(batch) for batch in whole[done:]]
        assert [batch.cursor for batch in rest] == [batch.cursor for batch in whole[done:]]


def test_a_run_that_stops_at_three_ranks_goes_on_at_two(tmp_path: Path) -> None:
    """No example lost, none twice."""
    total = write_numbered(tmp_path, sizes=SIZES)
    read, cursor = [], Cursor()
    for world_size, steps in ((3, 2), (2, 3), (1, 2)):
        cursors = set()
        for rank in range(world_size):
            item = loader(tmp_path, batch_size=10, rank=rank, world_size=world_size)
            for batch in item.batches(start=cursor, num_steps=steps):
                read += rows_of(batch)
            cursors.add(batch.cursor)
        [cursor] = cursors
    assert cursor == Cursor(1, 0)
    assert sorted(read) == list(range(total))


def test_the_plan_of_an_epoch_is_made_once(tmp_path: Path) -> None:
    """Asked for at every step, by the one who trains and by the one who reads ahead."""
    write_numbered(tmp_path, sizes=SIZES)
    item = loader(tmp_path, batch_size=10)
    plans = [item.plan(epoch=epoch) for epoch in (3, 4, 3, 4)]
    assert plans[0] is plans[2]
    assert plans[1] is plans[3]
    assert [plan.epoch for plan in plans] == [3, 4, 3, 4]


def test_rounds_of_many_steps_read_the_same_rows(tmp_path: Path) -> None:
    """A log longer than what is gathered at once, in steps that the rounds do not divide."""
    total = write_numbered(tmp_path, sizes=[[ROWS_PER_ROUND + 123], [ROWS_PER_ROUND // 2]])
    item = loader(tmp_path, batch_size=3000)
    plan = item.plan(epoch=0)
    read = []
    for step, batch in enumerate(item.batches(start=Cursor(), num_steps=item.steps_per_epoch)):
        rows = batch.ids["row"].values()
        assert len(rows) == plan.num_examples(rank=0, world_size=1, step=step)
        read.append(rows)
    everything = torch.cat(read)
    assert torch.equal(everything.sort().values, torch.arange(total))
    assert len(set(everything[:3000].tolist()) & set(range(3000))) < 1500  # shuffled


def test_without_a_seed_the_log_is_read_in_its_own_order(tmp_path: Path) -> None:
    """As evaluation does: each rank a run of rows, and the same on every call."""
    total = write_numbered(tmp_path, sizes=SIZES)
    for world_size in (1, 4):  # 4 does not divide the 6 streams of training
        read = []
        for rank in range(world_size):
            item = loader(tmp_path, batch_size=8, rank=rank, world_size=world_size, seed=None)
            for batch in item.batches(start=Cursor(), num_steps=item.steps_per_epoch):
                read += rows_of(batch)
        assert read == list(range(total))


def test_seeds_shuffle_row_groups_and_the_rows_in_their_windows(tmp_path: Path) -> None:
    """The same seed reads the same order; another one another; a row group is not read in order."""
    write_numbered(tmp_path, sizes=[[20, 20], [20]])

    def order(seed: int) -> list[int]:
        item = loader(tmp_path, batch_size=6, seed=seed)
        batches = item.batches(start=Cursor(), num_steps=item.steps_per_epoch)
        return [row for batch in batches for row in rows_of(batch)]

    assert order(1) == order(1) != order(2)
    first_group = [row for row in order(1) if row < 20]
    assert first_group != sorted(first_group)


def damage(file: Path, *, row_group: int) -> None:
    """Overwrites the pages of a row group; the footer stays whole."""
    column = pq.read_metadata(file).row_group(row_group).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    content = bytearray(file.read_bytes())
    content[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    file.write_bytes(content)


def test_a_damaged_row_group_is_named_after_the_batches_before_it(tmp_path: Path) -> None:
    """The error arrives where the batches are taken, and leaves no thread behind."""
    write_numbered(tmp_path, sizes=[[20], [20, 20]])
    file = tmp_path / "train/part-00001.parquet"
    damage(file, row_group=1)
    item = loader(tmp_path, batch_size=10, seed=None)
    read = []
    with pytest.raises(StorageError) as caught:  # noqa: PT012 - the batches before are the point
        for batch in item.batches(start=Cursor(), num_steps=6):
            read += rows_of(batch)
    assert str(caught.value).startswith(f"{file}: row group 1 cannot be read (")
    assert "\n" not in str(caught.value)
    assert read == list(range(len(read)))  # the rounds before it, whole
    assert len(read) <= 40
    assert not prefetch_threads()


def test_a_file_that_vanishes_is_named(tmp_path: Path) -> None:
    """Between its footer and its rows."""
    write_numbered(tmp_path, sizes=[[20], [20]])
    item = loader(tmp_path, batch_size=10)
    file = tmp_path / "train/part-00001.parquet"
    file.unlink()
    with pytest.raises(StorageError, match="no such file") as caught:
        list(item.batches(start=Cursor(), num_steps=4))
    assert str(caught.value).startswith(f"{file}: ")


def test_an_impossible_value_is_named_with_file_and_column(tmp_path: Path) -> None:
    """The transforms know the column, the loader the file."""
    write_groups(
        tmp_path, split="train", files=[[numbered(0, 5)], [numbered(MAX_ROWS, MAX_ROWS + 1)]]
    )
    item = loader(tmp_path, batch_size=10)
    with pytest.raises(SchemaError) as caught:
        list(item.batches(start=Cursor(), num_steps=1))
    file = tmp_path / "train/part-00001.parquet"
    assert str(caught.value).startswith(f"{file}: column row: id {MAX_ROWS} lies outside its table")


def prefetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_closing_early_ends_the_thread(tmp_path: Path) -> None:
    """A run that fails elsewhere does not go on reading."""
    write_numbered(tmp_path, sizes=[[50], [50]])
    batches = loader(tmp_path, batch_size=2, prefetch_bytes=100).batches(
        start=Cursor(), num_steps=50
    )
    assert len(list(itertools.islice(batches, 3))) == 3
    assert len(prefetch_threads()) == 1
    batches.close()
    assert not prefetch_threads()


def test_the_fingerprint_is_of_everything_that_the_cursor_counts_in(tmp_path: Path) -> None:
    """Another log, batch size or seed is another order; another rank or read-ahead is not."""
    write_numbered(tmp_path / "a", sizes=SIZES)
    write_numbered(tmp_path / "b", sizes=[*SIZES, [1]])
    same = loader(tmp_path / "a", batch_size=10).fingerprint
    assert loader(tmp_path / "a", batch_size=10, rank=1, world_size=3).fingerprint == same
    assert loader(tmp_path / "a", batch_size=10, prefetch_bytes=9).fingerprint == same
    others = {
        loader(tmp_path / "b", batch_size=10).fingerprint,
        loader(tmp_path / "a", batch_size=11).fingerprint,
        loader(tmp_path / "a", batch_size=10, seed=1).fingerprint,
    }
    assert len(others - {same}) == 3


def test_a_world_size_that_does_not_divide_the_streams_is_refused(tmp_path: Path) -> None:
    """Before anything is read."""
    with pytest.raises(InputError, match=r"4 ranks cannot share data\.num_streams=6"):
        loader(tmp_path / "none", batch_size=10, world_size=4)


def test_batches_share_no_memory(tmp_path: Path) -> None:
    """Batches own their numbers: changing one changes no other."""
    write_numbered(tmp_path, sizes=[[40]])
    item = loader(tmp_path, batch_size=10)
    batches = list(item.batches(start=Cursor(), num_steps=4))
    before = [rows_of(batch) for batch in batches]
    batches[0].ids.values().fill_(0)
    batches[0].dense_BD.fill_(-1)
    assert [rows_of(batch) for batch in batches[1:]] == before[1:]
    assert np.unique(np.concatenate(before)).tolist() == list(range(40))
