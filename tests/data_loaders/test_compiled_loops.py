"""Loops are compiled, or loaded, when a loader is made: the first batch does not wait for them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from numba.core.registry import CPUDispatcher

from data_loaders import columns, hashing, negatives, number_encoding, placement, round_placement
from data_loaders.config import DataConfig
from data_loaders.loader import InteractionLoader
from data_loaders.streams import Cursor
from tests.data_loaders.test_negatives import NUM_ROWS as ROWS_BESIDE_NEGATIVES
from tests.data_loaders.test_negatives import make_config, write_log
from tests.helpers.logs import write_groups

MODULES = (columns, hashing, negatives, number_encoding, placement, round_placement)
FEATURES = {
    "user": {"kind": "id"},
    "name": {"kind": "id"},
    "seen": {"kind": "id_list"},
    "age": {"kind": "dense"},
    "hour": {"kind": "id", "encoding": "direct"},
}
NUM_ROWS = {"user": 50, "name": 50, "seen": 50, "hour": 24}
FILLED = {"user": {"kind": "id", "fill": 7}, "age": {"kind": "dense", "fill": 30.0}}


def signatures() -> Iterator[str]:
    for module in MODULES:
        for name, item in vars(module).items():
            if isinstance(item, CPUDispatcher):
                yield from (f"{name}{signature}" for signature in item.signatures)


def compiled_late(config: DataConfig, num_rows: dict[str, int]) -> list[str]:
    """What reading an epoch compiles beyond what the loader had compiled."""
    item = InteractionLoader(config, split="train", num_rows=num_rows, seed=0)
    before = set(signatures())
    list(item.batches(start=Cursor(), num_steps=item.steps_per_epoch))
    return sorted(set(signatures()) - before)


def in_new_process(config: DataConfig, num_rows: dict[str, int]) -> list[str]:
    """Where no other test has compiled anything."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(compiled_late, config, num_rows).result()


@pytest.mark.parametrize(
    ("features", "largest"), [(FEATURES, 50), (FEATURES | FILLED, 2**33)], ids=["plain", "filled"]
)
def test_reading_compiles_nothing(tmp_path: Path, features: dict[str, Any], largest: int) -> None:
    """With nulls in every column, for tables that int32 counts, and for larger ones."""
    rows = range(40)
    table = pa.table(
        {
            "user": pa.array([row if row % 5 else None for row in rows], pa.int64()),
            "name": pa.array([f"n{row}" if row % 7 else None for row in rows]),
            "seen": pa.array([[row] * (row % 3) if row % 4 else None for row in rows]),
            "age": pa.array([float(row) if row % 3 else None for row in rows], pa.float32()),
            "hour": pa.array([row % 24 if row % 6 else None for row in rows], pa.int8()),
            "click": pa.array([row % 2 if row % 9 else None for row in rows], pa.int8()),
        }
    )
    write_groups(tmp_path, split="train", files=[[table]])
    config = DataConfig.model_validate(
        {
            "root": str(tmp_path),
            "batch_size": 8,
            "num_streams": 2,
            "features": features,
            "tasks": {"click": {"kind": "binary"}},
        }
    )
    assert in_new_process(config, NUM_ROWS | {"name": largest}) == []


def test_negatives_compile_nothing_either(tmp_path: Path) -> None:
    """Drawn items go the same ways."""
    write_log(tmp_path)
    assert in_new_process(make_config(tmp_path), ROWS_BESIDE_NEGATIVES) == []
