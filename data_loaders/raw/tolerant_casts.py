"""Casts that mark what does not convert, cell by cell, where Arrow's own refuse a whole array.

Shape legend: R rows.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# integers that float64 holds exactly
EXACT = 2**53


def cast_each(values: pa.Array, to: pa.DataType) -> pa.Array:
    """Casts; null where a value alone would fail."""
    try:
        return values.cast(to)
    except pa.ArrowInvalid:
        encoded = values.dictionary_encode()
        return _cast_halves(encoded.dictionary, to).take(encoded.indices)


def _cast_halves(values: pa.Array, to: pa.DataType) -> pa.Array:
    try:
        return values.cast(to)
    except pa.ArrowInvalid:
        if len(values) == 1:
            return pa.nulls(1, to)
        middle = len(values) // 2
        halves = (values.slice(0, middle), values.slice(middle))
        return pa.concat_arrays([_cast_halves(half, to) for half in halves])


def decoded(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """string, and where bytes are not UTF-8."""
    wrong_R = np.zeros(len(column), bool)
    try:
        return column.cast(pa.string()), wrong_R
    except pa.ArrowInvalid:
        cells: list[str | None] = [None] * len(column)
        for row, cell in enumerate(column.cast(pa.binary()).to_pylist()):
            try:
                cells[row] = None if cell is None else cell.decode()
            except UnicodeDecodeError:
                wrong_R[row] = True
        return pa.array(cells, pa.string()), wrong_R


def whole(numbers: pa.Array) -> pa.Array:
    """int64; null where a number is not whole, or too large to be known exactly."""
    is_whole = pc.and_(pc.equal(pc.floor(numbers), numbers), pc.less(pc.abs(numbers), float(EXACT)))
    return pc.if_else(is_whole, numbers, pa.scalar(None, numbers.type)).cast(pa.int64())


def seconds(times: pa.Array) -> pa.Array:
    """float64, seconds since 1970 of timestamps or dates."""
    zone = times.type.tz if pa.types.is_timestamp(times.type) else None
    micros = times.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64())
    return pc.divide(micros.cast(pa.float64(), safe=False), 1e6)
