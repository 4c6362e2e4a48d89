"""Windows read ahead: what is held, and for how long."""

from __future__ import annotations

import functools
import gc
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data_loaders.config import DataConfig
from data_loaders.loader import InteractionLoader
from data_loaders.streams import Cursor, Window
from data_loaders.windows import WindowRows
from data_loaders.windows_ahead import WINDOWS_AHEAD
from tests.helpers.logs import write_groups

NUM_ROWS = 2400
NUM_STREAMS = 6
BATCH_SIZE = 12


def loader(root: Path) -> InteractionLoader:
    """Windows of two row groups of five rows; a step takes two rows of each stream."""
    row_R = np.arange(NUM_ROWS)
    table = pa.table({"row": row_R, "odd": row_R % 2})
    groups = [table.slice(start, 5) for start in range(0, NUM_ROWS, 5)]
    write_groups(root, split="train", files=[groups[:240], groups[240:]])
    tree = {
        "root": str(root),
        "batch_size": BATCH_SIZE,
        "num_streams": NUM_STREAMS,
        "shuffle_rows": 10 * NUM_STREAMS,
        "prefetch_bytes": 1,  # no more than a batch or two are made before they are taken
        "features": {"row": {"kind": "id", "encoding": "direct"}},
        "tasks": {"odd": {"kind": "binary"}},
    }
    config = DataConfig.model_validate(tree)
    return InteractionLoader(config, split="train", num_rows={"row": NUM_ROWS}, seed=1)


@pytest.fixture(autouse=True)
def few_objects() -> Iterator[None]:
    """Looking for what is alive passes over what is alive already."""
    gc.freeze()
    yield
    gc.unfreeze()


def alive() -> list[Window]:
    """Of which the rows are held by anything."""
    return [item.window for item in gc.get_objects() if type(item) is WindowRows]


def eventually(is_so: Callable[[], bool]) -> bool:
    """Whether it comes to be: a thread may not have left yet the function that made a window."""
    deadline = time.monotonic() + 20
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.01)
    return is_so()


def test_no_window_lives_longer_than_the_round_that_takes_its_last_row(tmp_path: Path) -> None:
    """Held are those of the round at hand and of the next, which may have begun, and a few read
    ahead: however long the log is.
    """
    item = loader(tmp_path)
    plan = item.plan(epoch=0)
    windows = [window for stream in range(NUM_STREAMS) for window in plan.windows(stream=stream)]
    assert len(windows) > 200

    def step_of(window: Window, *, row: int) -> int:
        return row // int(plan.rows_per_step_V[window.stream])

    def is_flat(first: int, stop: int) -> bool:
        held = alive()
        is_over = [step_of(window, row=window.stop - 1) < first for window in held]
        begun = [
            window
            for window in windows
            if step_of(window, row=window.stop - 1) >= first
            and step_of(window, row=window.start) < stop
        ]
        return not any(is_over) and len(held) <= len(begun) + WINDOWS_AHEAD

    start, size = 0, 1  # of a round; the next is twice as long
    for step, _ in enumerate(item.batches(start=Cursor(), num_steps=item.steps_per_epoch)):
        if step == start:
            assert eventually(functools.partial(is_flat, start, start + 3 * size))
            start, size = start + size, 2 * size
    assert start > item.steps_per_epoch
    assert eventually(lambda: not alive())
