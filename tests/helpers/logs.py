"""A toy log with every kind of column that a recipe can name, and the recipe for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

# rows of each row group of each file; uneven on purpose
TRAIN = ((70, 1, 33), (120,), (0, 57, 19))
VALID = ((40, 21), (30,))
TEST = ((64,), (5, 22))
SPLITS: dict[str, Sequence[Sequence[int]]] = {"train": TRAIN, "valid": VALID, "test": TEST}


def toy_table(num_rows: int, *, seed: int) -> pa.Table:
    """Rows with a little to learn: clicks go by user, purchases and watch time by age."""
    random = np.random.default_rng(seed)

    def with_nulls(values: Any, fraction: float, kind: pa.DataType) -> pa.Array:
        mask = random.random(num_rows) < fraction
        kept = [None if is_null else value for value, is_null in zip(values, mask, strict=True)]
        return pa.array(kept, kind)

    def lists(draw: Any, kind: pa.DataType) -> pa.Array:
        return with_nulls([draw(n) for n in random.integers(0, 8, num_rows)], 0.1, pa.list_(kind))

    def items(n: int) -> list[str | None]:
        return [None if i == 0 else f"item-{i}" for i in random.integers(0, 60, n)]

    def tags(n: int) -> list[int]:
        return random.integers(-5, 40, n).tolist()

    users = random.integers(0, 200, num_rows)
    ages = random.integers(1, 90, num_rows)
    click = (random.random(num_rows) < np.where(users % 3 == 0, 0.8, 0.3)).astype(np.int8)
    purchase = random.random(num_rows) < ages / 90
    watch = np.round(random.exponential(2.0 + ages / 10), 3)
    return pa.table(
        {
            "user": with_nulls(users.tolist(), 0.05, pa.int64()),
            "item": with_nulls(items(num_rows), 0.05, pa.string()),
            "country": pa.array(random.integers(0, 7, num_rows), pa.int8()),
            "history": lists(items, pa.string()),
            "tags": lists(tags, pa.int64()),
            "age": with_nulls(ages.tolist(), 0.1, pa.int32()),
            "price": with_nulls(random.normal(5, 2, num_rows).tolist(), 0.1, pa.float32()),
            "click": pa.array(click),
            "purchase": with_nulls(purchase.tolist(), 0.05, pa.bool_()),
            "watch": with_nulls(watch.tolist(), 0.1, pa.float64()),
        }
    )


def write_groups(root: Path, *, split: str, files: Sequence[Sequence[pa.Table]]) -> None:
    """Writes each table as a row group of its own, each inner sequence as a file."""
    for index, groups in enumerate(files):
        path = root / split / f"part-{index:05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(path, groups[0].schema) as writer:
            for table in groups:
                writer.write_table(table, row_group_size=max(1, table.num_rows))


def write_toy_log(
    root: Path, *, splits: Mapping[str, Sequence[Sequence[int]]] | None = None
) -> Path:
    """Writes the log below `root`; row group sizes as in `SPLITS`."""
    seed = 0
    for split, sizes in (splits or SPLITS).items():
        files = []
        for groups in sizes:
            files.append([toy_table(size, seed=(seed := seed + 1)) for size in groups])
        write_groups(root, split=split, files=files)
    return root


def toy_recipe(
    root: Path | str,
    *,
    run: Mapping[str, Any] | None = None,
    sharding: str = "auto",
    data: Mapping[str, Any] | None = None,
    **sections: Any,
) -> dict[str, Any]:
    """The recipe of the toy log as a tree for `trainer.config.build_recipe`.

    Args:
        root: of the log.
        run: keys of the section `run`; 6 steps where it does not say.
        sharding: of every table.
        data: more keys of the section `data`.
        sections: whole sections of the recipe (model, optimizer, checkpoint).
    """
    tables = {
        "user": {"num_rows": 1003, "dim": 8},
        "item": {"num_rows": 101, "dim": 4},
        "country": {"num_rows": 7, "dim": 4},
        "tags": {"num_rows": 53, "dim": 8, "pooling": "mean"},
    }
    length = {} if run and "num_epochs" in run else {"num_steps": 6}
    return {
        "data": {
            "root": str(root),
            "batch_size": 32,
            "num_streams": 8,
            "prefetch_bytes": 4000,
            **_toy_columns(),
            **(data or {}),
        },
        "embeddings": {
            "tables": {name: table | {"sharding": sharding} for name, table in tables.items()}
        },
        "model": {"shared_tower": [16], "task_tower": [8]},
        "run": {"name": "toy", "seed": 1, "log_interval_steps": 1, **length, **(run or {})},
        **sections,
    }


def _toy_columns() -> dict[str, Any]:
    """What the recipe says about each column."""
    return {
        "features": {
            "user": {"kind": "id"},
            "item": {"kind": "id"},
            "country": {"kind": "id", "encoding": "direct"},
            "history": {"kind": "id_list", "table": "item", "max_length": 5},
            "tags": {"kind": "id_list"},
            "age": {"kind": "dense", "log": True, "mean": 3.5, "std": 0.8},
            "price": {"kind": "dense", "mean": 5.0, "std": 2.0},
        },
        "tasks": {
            "click": {"kind": "binary"},
            "purchase": {"kind": "binary", "where": "click"},
            "watch": {"kind": "regression", "where": "click", "log": True, "mean": 1.5},
        },
    }
