"""Which raw rows fit the recipe, and why the others do not.

Shape legend: R rows, N items of lists.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_loaders.prepare_config import PrepareConfig, SplitConfig
from data_loaders.raw.cells import EXPECTED, Cells
from data_loaders.raw.columns import Bounds, RawColumn
from data_loaders.raw.row_keys import fractions_of, row_hashes
from data_loaders.raw.rows import Block

# Beside the columns that are written, a clean row carries its place in its file, and what its split
# is decided by: seconds, or a number that is evenly spread in [0, 1).
ROW_NUMBER = "__row_number"
SCORE = "__score"

REJECTED_SCHEMA = pa.schema(
    {
        "reason": pa.string(),
        "value": pa.string(),
        "source": pa.string(),
        "row": pa.int64(),
        "raw": pa.string(),
    }
)
MAX_VALUE_LENGTH = 200
DUPLICATE = "duplicate"


@dataclass(frozen=True)
class CleanRows:
    """A block after cleaning.

    Attributes:
        table: the rows that fit, with `ROW_NUMBER` and `SCORE`.
        keys_RK: uint64 (R, 2), equal where rows are duplicates of each other.
        rejected: the others, as `REJECTED_SCHEMA` says.
    """

    table: pa.Table
    keys_RK: np.ndarray
    rejected: pa.Table


def clean(
    block: Block, *, columns: Sequence[RawColumn], prepare: PrepareConfig, source: str
) -> CleanRows:
    """Converts a block's rows and keeps those that fit.

    Args:
        block: raw rows.
        columns: what the recipe asks for.
        prepare: how to clean and to split.
        source: URI of the file, for `rejected`.

    Raises:
        SchemaError: a column has a type that no value of it could fit.
    """
    found = {
        column.name: block.rows.cells(
            column, missing=prepare.missing, list_separator=prepare.list_separator
        )
        for column in columns
    }
    faults = _Faults(len(block.numbers_R))
    for column in columns:
        _check(column, found, faults)
    if (time := prepare.split.time) is not None:
        faults.add(time, "missing (prepare.split.time)", _is_null(found[time].values))
    table = pa.table({name: cells.values for name, cells in found.items()})
    keep_R = faults.code_R < 0
    keys_RK = _keys(block, table, columns=columns, prepare=prepare)[keep_R]
    kept = table.filter(pa.array(keep_R))
    written = kept.select([column.name for column in columns if column.is_written])
    numbered = written.append_column(ROW_NUMBER, pa.array(block.numbers_R[keep_R]))
    return CleanRows(
        table=numbered.append_column(SCORE, _scores(kept, written, split=prepare.split)),
        keys_RK=keys_RK,
        rejected=_rejected(block, faults, source=source),
    )


def duplicates_as_rejected(rows: pa.Table, *, source: str) -> pa.Table:
    """Rows that were kept at first, as `REJECTED_SCHEMA` says; `raw` holds them converted."""
    numbers = rows[ROW_NUMBER].to_pylist()
    records = rows.drop_columns([ROW_NUMBER, SCORE]).to_pylist()
    return pa.table(
        {
            "reason": [DUPLICATE] * len(numbers),
            "value": [None] * len(numbers),
            "source": [source] * len(numbers),
            "row": numbers,
            "raw": [_json(record) for record in records],
        },
        REJECTED_SCHEMA,
    )


class _Faults:
    """The first fault of each row."""

    def __init__(self, num_rows: int) -> None:
        self.reasons: list[tuple[str, str]] = []  # column, what is wrong with it
        self.code_R = np.full(num_rows, -1, np.int64)

    def add(self, column: str, reason: str, wrong_R: np.ndarray) -> None:
        if wrong_R.any():
            self.code_R[wrong_R & (self.code_R < 0)] = len(self.reasons)
            self.reasons.append((column, reason))


def _check(column: RawColumn, found: dict[str, Cells], faults: _Faults) -> None:
    name, cells = column.name, found[column.name]
    faults.add(name, f"not {EXPECTED[column.type]}", cells.wrong_R)
    faults.add(name, "not finite", _infinite(cells.values))
    for bounds in column.bounds:
        faults.add(name, bounds.reason, _outside(cells.values, bounds))
    if column.length is not None:
        lengths_R = _lengths(cells.values)
        is_wrong_R = (lengths_R != column.length) & ~_is_null(cells.values)
        has_null_R = _any_item(cells.values, _is_null(cells.values.flatten()))
        faults.add(name, f"not a vector of {column.length} numbers", is_wrong_R | has_null_R)
    if column.as_long_as is not None:
        others_R = _lengths(found[column.as_long_as].values)
        differs_R = _lengths(cells.values) != others_R
        faults.add(name, f"not as long as {column.as_long_as}", differs_R)


def _infinite(values: pa.Array) -> np.ndarray:
    is_list = pa.types.is_list(values.type)
    items = values.flatten() if is_list else values
    if not pa.types.is_floating(items.type):
        return np.zeros(len(values), bool)
    infinite_N = pc.fill_null(pc.is_inf(items), False).to_numpy(zero_copy_only=False)
    return _any_item(values, infinite_N) if is_list else infinite_N


def _outside(values: pa.Array, bounds: Bounds) -> np.ndarray:
    is_list = pa.types.is_list(values.type)
    numbers = (values.flatten() if is_list else values).cast(pa.float64(), safe=False)
    numbers_N = numbers.to_numpy(zero_copy_only=False)  # NaN where null, and so never outside
    outside_N = np.zeros(len(numbers_N), bool)
    if bounds.low is not None:
        outside_N |= numbers_N < bounds.low
    if bounds.high is not None:
        outside_N |= numbers_N > bounds.high
    return _any_item(values, outside_N) if is_list else outside_N


def _any_item(lists: pa.Array, is_wrong_N: np.ndarray) -> np.ndarray:
    """Where an item of a row's list is wrong."""
    row_N = np.repeat(np.arange(len(lists)), _lengths(lists))
    return np.bincount(row_N[is_wrong_N], minlength=len(lists)).astype(bool)


def _keys(
    block: Block, table: pa.Table, *, columns: Sequence[RawColumn], prepare: PrepareConfig
) -> np.ndarray:
    if prepare.unique is None:
        rows = block.rows.identity()
    else:
        written = [column.name for column in columns if column.is_written]
        rows = table.select(prepare.unique or written)
    return np.stack([row_hashes(rows, key=key) for key in (0, 1)], axis=1)


def _scores(table: pa.Table, written: pa.Table, *, split: SplitConfig) -> pa.Array:
    if split.time is not None:
        return table[split.time].combine_chunks().cast(pa.float64(), safe=False)
    decisive = written if split.by is None else table.select([split.by])
    return pa.array(fractions_of(row_hashes(decisive, key=0)))


def _rejected(block: Block, faults: _Faults, *, source: str) -> pa.Table:
    rows = np.flatnonzero(faults.code_R >= 0)
    records = block.rows.records(rows)
    faulty = [faults.reasons[code] for code in faults.code_R[rows]]
    texts = [_json(record) for record in records]
    values = [
        _value(record.get(column)) for record, (column, _) in zip(records, faulty, strict=True)
    ]
    malformed = block.malformed
    return pa.table(
        {
            "reason": [f"{column}: {reason}" for column, reason in faulty]
            + [item.reason for item in malformed],
            "value": values + [None] * len(malformed),
            "source": [source] * (len(rows) + len(malformed)),
            "row": [*block.numbers_R[rows].tolist(), *(item.number for item in malformed)],
            "raw": texts + [item.text for item in malformed],
        },
        REJECTED_SCHEMA,
    )


def _value(value: Any) -> str | None:
    if isinstance(value, list | dict):
        return _json(value)[:MAX_VALUE_LENGTH]
    text = value if value is None or isinstance(value, str) else str(value)
    return None if text is None else text[:MAX_VALUE_LENGTH]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _lengths(lists: pa.Array) -> np.ndarray:
    """int64, 0 where null."""
    return pc.fill_null(pc.list_value_length(lists), 0).to_numpy().astype(np.int64)


def _is_null(values: pa.Array) -> np.ndarray:
    return values.is_null().to_numpy(zero_copy_only=False)
