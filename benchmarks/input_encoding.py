"""What a user writes to turn log rows into tensors: row by row, and column by column.

Both give what `data_loaders` gives: ids hashed into their tables, lists cut to `max_length`, dense
features standardised, labels NaN where not observed. Lists are padded to a rectangle, because
`torch.utils.data` and Ray Data hand over rectangles. Which row of its table a hashed id gets
differs; how many there are does not, and that is what the benchmark compares.

Shape legend: B rows, L ids of the longest list, F id features, D dense features, T tasks.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from data_loaders.config import (
    AnyTask,
    DataConfig,
    DenseFeature,
    IdFeature,
    IdListFeature,
    RegressionTask,
    fitted_number,
)
from data_loaders.errors import InputError

LIST_PREFIX = "list/"
LENGTHS_PREFIX = "lengths/"

# What is written by hand below; a recipe may set no more.
HAND_WRITTEN = {
    "id": {"kind", "column", "table", "encoding"},
    "id_list": {"kind", "column", "table", "encoding", "max_length"},
    "dense": {"kind", "column", "log", "mean", "std"},
    "binary": {"kind", "column", "where", "weight"},
    "regression": {"kind", "column", "where", "weight", "log", "mean", "std"},
}


def check_hand_written(config: DataConfig) -> None:
    """Whether this module can do for the rivals all that a recipe asks of the loader.

    Raises:
        InputError: it cannot; the message names the key.
    """
    if config.negatives is not None:
        raise InputError(
            "data.negatives: is more than the input benchmark does for the rivals; leave it out "
            "for the benchmark, or measure recipe ecommerce"
        )
    for section, items in (("features", config.features), ("tasks", config.tasks)):
        for name, item in items.items():
            written = HAND_WRITTEN.get(item.kind, set())
            for key, value in item.model_dump(exclude_defaults=True).items():
                is_known = key in written and (key != "encoding" or value in ("hash", "direct"))
                if not is_known:
                    raise InputError(
                        f"data.{section}.{name}.{key}: {value} is more than the input benchmark "
                        "does for the rivals; leave it out for the benchmark (encoding: hash or "
                        "direct), or measure recipe ecommerce"
                    )


@dataclass(frozen=True)
class Columns:
    """The recipe's features and tasks by kind, each with its column.

    Attributes:
        num_rows: rows of the embedding table of each id feature.
    """

    ids: dict[str, IdFeature]
    lists: dict[str, IdListFeature]
    dense: dict[str, DenseFeature]
    tasks: Mapping[str, AnyTask]
    num_rows: Mapping[str, int]

    @classmethod
    def of(cls, config: DataConfig, *, num_rows: Mapping[str, int]) -> Columns:
        features = config.features.items()
        return cls(
            ids={name: item for name, item in features if isinstance(item, IdFeature)},
            lists={name: item for name, item in features if isinstance(item, IdListFeature)},
            dense={name: item for name, item in features if isinstance(item, DenseFeature)},
            tasks=config.tasks,
            num_rows=num_rows,
        )


@dataclass(frozen=True)
class RowCollate:
    """A `collate_fn` over rows as Python dicts, what `to_pylist()` makes of a record batch."""

    columns: Columns

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        columns = self.columns
        batch = {
            "ids": torch.tensor(
                [
                    [
                        _row_of_id(row[item.column or name], item, columns.num_rows[name])
                        for name, item in columns.ids.items()
                    ]
                    for row in rows
                ],
                dtype=torch.int64,
            ),
            "dense": _stacked(
                [
                    torch.nan_to_num(_standardised(_floats(rows, item.column or name), item))
                    for name, item in columns.dense.items()
                ],
                num_rows=len(rows),
            ),
            "labels": _stacked(
                [_row_labels(rows, name, task) for name, task in columns.tasks.items()],
                num_rows=len(rows),
            ),
        }
        for name, item in columns.lists.items():
            lists = [
                [
                    _row_of_id(value, item, columns.num_rows[name])
                    for value in (row[item.column or name] or ())[-item.max_length :]
                ]
                for row in rows
            ]
            longest = max(map(len, lists))
            batch[LIST_PREFIX + name] = torch.tensor(
                [ids + [0] * (longest - len(ids)) for ids in lists], dtype=torch.int64
            )
            batch[LENGTHS_PREFIX + name] = torch.tensor([len(ids) for ids in lists])
        return batch


def encode_table(table: pa.Table, *, columns: Columns) -> dict[str, np.ndarray]:
    """The same arrays, computed a column at a time; lists padded to `max_length`.

    A string is hashed once for each distinct value of the table.
    """
    num_rows = table.num_rows
    ids = [
        _rows_of_ids(_array(table, item.column or name), item, columns.num_rows[name])
        for name, item in columns.ids.items()
    ]
    dense = [
        torch.nan_to_num(_standardised(_numbers(table, item.column or name), item))
        for name, item in columns.dense.items()
    ]
    labels = []
    for name, task in columns.tasks.items():
        values = _numbers(table, task.column or name)
        if task.where is not None:
            values[_numbers(table, task.where) != 1] = math.nan
        labels.append(_standardised(values, task) if isinstance(task, RegressionTask) else values)
    encoded = {
        "ids": np.stack(ids, axis=1) if ids else np.zeros((num_rows, 0), np.int64),
        "dense": _stacked(dense, num_rows=num_rows).numpy(),
        "labels": torch.stack(labels, dim=1).numpy(),
    }
    for name, item in columns.lists.items():
        lists = _array(table, item.column or name)
        offsets = lists.offsets.to_numpy().astype(np.int64)
        starts, ends = offsets[:-1], offsets[1:]
        ends = np.where(lists.is_valid().to_numpy(zero_copy_only=False), ends, starts)
        starts = np.maximum(starts, ends - item.max_length)
        list_ids = _rows_of_ids(lists.values, item, columns.num_rows[name])
        is_id_BL = np.arange(item.max_length) < (ends - starts)[:, None]
        padded_BL = np.zeros(is_id_BL.shape, np.int64)
        padded_BL[is_id_BL] = list_ids[(starts[:, None] + np.arange(item.max_length))[is_id_BL]]
        encoded[LIST_PREFIX + name] = padded_BL
        encoded[LENGTHS_PREFIX + name] = ends - starts
    return encoded


def _row_of_id(value: int | str | None, item: IdFeature | IdListFeature, num_rows: int) -> int:
    """A row of the table. Python's own `hash` of strings differs from process to process."""
    if value is None:
        return 0
    if item.encoding == "direct":
        return int(value)
    mixed = zlib.crc32(value.encode()) if isinstance(value, str) else value
    return 1 + mixed % (num_rows - 1)


def _floats(rows: Sequence[Mapping[str, Any]], column: str) -> Tensor:
    values = (row[column] for row in rows)
    return torch.tensor([math.nan if value is None else float(value) for value in values])


def _row_labels(rows: Sequence[Mapping[str, Any]], name: str, task: AnyTask) -> Tensor:
    labels = _floats(rows, task.column or name)
    if task.where is not None:
        labels[_floats(rows, task.where) != 1] = math.nan
    return _standardised(labels, task) if isinstance(task, RegressionTask) else labels


def _standardised(values: Tensor, spec: DenseFeature | RegressionTask) -> Tensor:
    scaled = values.log1p() if spec.log else values
    return (scaled - fitted_number(spec.mean)) / fitted_number(spec.std)


def _stacked(parts: list[Tensor], *, num_rows: int) -> Tensor:
    return torch.stack(parts, dim=1) if parts else torch.zeros(num_rows, 0)


def _rows_of_ids(column: pa.Array, item: IdFeature | IdListFeature, num_rows: int) -> np.ndarray:
    is_valid = column.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_integer(column.type):
        rows = pc.fill_null(column, 0).to_numpy(zero_copy_only=False).astype(np.int64)
        if item.encoding == "hash":
            rows = 1 + rows % (num_rows - 1)
    else:
        names = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        hashes = pd.util.hash_array(names.dictionary.to_numpy(zero_copy_only=False))
        hashed = 1 + (hashes % np.uint64(num_rows - 1)).astype(np.int64)
        positions = pc.fill_null(names.indices, 0).to_numpy(zero_copy_only=False)
        rows = hashed[positions] if len(hashed) else np.zeros(len(column), np.int64)
    return np.where(is_valid, rows, 0)


def _numbers(table: pa.Table, column: str) -> Tensor:
    """float32, NaN where null; a copy that may be written to."""
    values = pc.cast(_array(table, column), pa.float32(), safe=False)
    return torch.tensor(values.to_numpy(zero_copy_only=False))


def _array(table: pa.Table, column: str) -> pa.Array:
    joined = table.column(column).unify_dictionaries().combine_chunks()
    if isinstance(joined, pa.ChunkedArray):
        return joined.chunk(0) if joined.num_chunks else pa.array([], joined.type)
    return joined
