"""Arrow columns as numpy arrays.

Shape legend: R rows.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from data_loaders.errors import WrongRowsError

WRONG_ROW = -1


def column_of(table: pa.Table, name: str) -> pa.Array:
    """A table's column as one array."""
    column = table.column(name)
    if column.num_chunks == 1:
        return column.chunk(0)
    column = column.unify_dictionaries()
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def numbers_of(column: pa.Array) -> np.ndarray:
    """float64 (R,), NaN where null."""
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        column = pc.cast(column, pa.float64(), safe=False)
    # integers beyond 2^53 are rounded
    return column.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)


def floats_of(column: pa.Array) -> np.ndarray:
    """float32 or float64 (R,), NaN where null; a view of the column where that is possible."""
    if not pa.types.is_float32(column.type):
        return numbers_of(column)
    return column.to_numpy(zero_copy_only=False)


def valid_of(column: pa.Array) -> np.ndarray:
    """bool (R,), False where null."""
    return column.is_valid().to_numpy(zero_copy_only=False)


def list_bounds(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """int64 (R,) starts and (R,) ends of each list in `column.values`; a null list has no length,
    because the bytes behind it may hold anything.
    """
    offsets = column.offsets.to_numpy().astype(np.int64)
    starts, ends = offsets[:-1], offsets[1:]
    return starts, np.where(valid_of(column), ends, starts) if column.null_count else ends


def gathered(values: pa.Array, *, starts: np.ndarray, lengths: np.ndarray) -> pa.Array:
    """The ranges of an array that begin at `starts`, behind one another."""
    total = int(lengths.sum())
    if not total:
        return values.slice(0, 0)
    offsets = np.cumsum(lengths) - lengths
    first = int(starts[np.argmax(lengths > 0)])
    is_run = (starts - offsets == first) | (lengths == 0)
    if is_run.all():  # nothing was cut off between them
        return values.slice(first, total)
    return values.take(pa.array(np.repeat(starts - offsets, lengths) + np.arange(total)))


def raw_integers(column: pa.Array) -> tuple[np.ndarray, np.ndarray, int]:
    """A column of integers as it lies in memory, for `is_valid` and compiled loops.

    Returns:
        The values, anything where null; the validity bits, none if nothing is null; and where the
        column's first bit is among them.
    """
    if not len(column):
        return column.to_numpy(zero_copy_only=False), np.zeros(0, np.uint8), 0
    validity, values = column.buffers()
    values_R = np.frombuffer(values, column.type.to_pandas_dtype())
    return (
        values_R[column.offset : column.offset + len(column)],
        np.frombuffer(validity, np.uint8) if column.null_count else np.zeros(0, np.uint8),
        column.offset,
    )


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def is_valid(validity: np.ndarray, bit: int) -> bool:
    """Whether a bit of Arrow's validity bitmap is set; without a bitmap everything is valid."""
    return len(validity) == 0 or (validity[bit >> 3] >> (bit & 7)) & 1 == 1


def rows_of_codes(codes: pa.Array, *, rows_D: np.ndarray, missing_row: int) -> np.ndarray:
    """int64 (N,): `rows_D[code]` of each code of a dictionary, `missing_row` for null.

    Raises:
        WrongRowsError: a code is none of the dictionary; Arrow reads them unchecked.
    """
    codes_N, validity, offset = raw_integers(codes)
    rows_N, num_wrong = _rows_of_codes(codes_N, validity, offset, rows_D, missing_row)
    if num_wrong:
        raise WrongRowsError(
            "a string's code lies outside the dictionary of its row group; the file is damaged: "
            "write it again",
            is_wrong_R=rows_N == WRONG_ROW,
        )
    return rows_N


@njit(cache=True, nogil=True, error_model="numpy")
def _rows_of_codes(
    codes_N: np.ndarray, validity: np.ndarray, offset: int, rows_D: np.ndarray, missing_row: int
) -> tuple[np.ndarray, int]:
    rows_N, num_wrong = np.empty(len(codes_N), np.int64), 0
    for n in range(len(codes_N)):
        rows_N[n] = missing_row
        if is_valid(validity, offset + n):
            if 0 <= codes_N[n] < len(rows_D):
                rows_N[n] = rows_D[codes_N[n]]
            else:
                rows_N[n] = WRONG_ROW
                num_wrong += 1
    return rows_N, num_wrong
