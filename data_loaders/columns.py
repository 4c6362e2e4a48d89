"""Arrow columns as numpy arrays.

Shape legend: R rows, N ids or other values, D distinct ones of a dictionary.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from data_loaders.errors import WrongRowsError
from data_loaders.memory import frozen

WRONG_ROW = -1
NO_LIMIT = 2**62
NO_VALIDITY = frozen(np.zeros(0, np.uint8))


def columns_of(table: pa.Table) -> dict[str, pa.Array]:
    """A table's columns, each as one array."""
    batches = table.to_batches()
    if len(batches) == 1:
        return dict(zip(table.column_names, batches[0].columns, strict=True))
    return {name: column_of(table, name) for name in table.column_names}


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


def write_kept_lengths(
    column: pa.Array, out_R: np.ndarray, place_R: np.ndarray, *, max_length: int
) -> None:
    """Writes the lengths of `kept_lists` to the places."""
    _write_kept_lengths(*_list_bounds(column), max_length, place_R, out_R)


def kept_lists(column: pa.Array, *, max_length: int = NO_LIMIT) -> tuple[np.ndarray, np.ndarray]:
    """Where the last `max_length` values of each list lie in `column.values`: int64 (R,) starts and
    (R,) lengths; a null list has none, because the bytes behind it may hold anything.
    """
    return _kept_lists(*_list_bounds(column), max_length)


def _list_bounds(column: pa.Array) -> tuple[np.ndarray, np.ndarray, int]:
    """Where lists begin and end, their validity bits, and where the first one's is among them."""
    validity = NO_VALIDITY
    if column.null_count:
        validity = frozen(np.frombuffer(column.buffers()[0], np.uint8))
    return column.offsets.to_numpy(), validity, column.offset


def gathered(values: pa.Array, *, starts: np.ndarray, lengths: np.ndarray) -> pa.Array:
    """The ranges of an array that begin at `starts`, rising, behind one another."""
    total = int(lengths.sum())
    if not total:
        return values.slice(0, 0)
    if starts[-1] + lengths[-1] - starts[0] == total:  # nothing was cut off between them
        return values.slice(int(starts[0]), total)
    offsets = np.cumsum(lengths) - lengths
    return values.take(pa.array(np.repeat(starts - offsets, lengths) + np.arange(total)))


def raw_values(column: pa.Array) -> tuple[np.ndarray, np.ndarray, int]:
    """A column of numbers as it lies in memory, for `is_valid` and compiled loops.

    Returns:
        The values, anything where null; the validity bits, none if nothing is null; and where the
        column's first bit is among them.
    """
    if not column.null_count:
        return column.to_numpy(), NO_VALIDITY, 0
    validity, values = column.buffers()
    values_R = np.frombuffer(values, column.type.to_pandas_dtype())
    values_R = frozen(values_R[column.offset : column.offset + len(column)])
    return values_R, frozen(np.frombuffer(validity, np.uint8)), column.offset


def raw_numbers(column: pa.Array) -> tuple[np.ndarray, np.ndarray, int]:
    """As `raw_values`, of any numbers: integers, float32 or float64; decimals are rounded."""
    kind = column.type
    if pa.types.is_float32(kind) or pa.types.is_float64(kind) or pa.types.is_integer(kind):
        return raw_values(column)
    return frozen(numbers_of(column)), NO_VALIDITY, 0


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def is_valid(validity: np.ndarray, bit: int) -> bool:
    """Whether a bit of Arrow's validity bitmap is set; without a bitmap everything is valid."""
    return len(validity) == 0 or (validity[bit >> 3] >> (bit & 7)) & 1 == 1


def write_rows_of_codes(
    codes: pa.Array, out_R: np.ndarray, place_R: np.ndarray, *, rows_D: np.ndarray, missing_row: int
) -> None:
    """Writes `rows_D[code]` of each code of a dictionary to its place, `missing_row` for null.

    Raises:
        WrongRowsError: a code is none of the dictionary; Arrow reads them unchecked.
    """
    raw = raw_values(codes)
    if not write_coded(*raw, len(rows_D), frozen(rows_D), missing_row, place_R, out_R):
        raise WrongRowsError(
            "a string's code lies outside the dictionary of its row group; the file is damaged: "
            "write it again",
            is_wrong_R=out_R[place_R] == WRONG_ROW,
        )


@njit(cache=True, nogil=True, error_model="numpy")
def write_coded(
    codes_R: np.ndarray,
    validity: np.ndarray,
    offset: int,
    num_codes: int,
    rows_D: np.ndarray,
    missing_row: int,
    place_R: np.ndarray,
    out_R: np.ndarray,
) -> bool:
    """Writes `rows_D[code]`, or the code itself where `rows_D` is empty, `missing_row` for null and
    `WRONG_ROW` for a code that is not below `num_codes`; returns whether there is no such.
    """
    is_right = True
    for r in range(len(codes_R)):
        row = np.int64(missing_row)
        if is_valid(validity, offset + r):
            row = np.int64(codes_R[r])
            if 0 <= row < num_codes:
                row = rows_D[row] if len(rows_D) else row
            else:
                row, is_right = np.int64(WRONG_ROW), False
        out_R[place_R[r]] = row
    return is_right


@njit(cache=True, nogil=True, error_model="numpy")
def _kept_lists(
    offsets: np.ndarray, validity: np.ndarray, offset: int, max_length: int
) -> tuple[np.ndarray, np.ndarray]:
    num_lists = max(0, len(offsets) - 1)
    starts_R, lengths_R = np.empty(num_lists, np.int64), np.empty(num_lists, np.int64)
    for r in range(num_lists):
        lengths_R[r] = _kept_length(offsets, validity, offset, max_length, r)
        starts_R[r] = offsets[r + 1] - lengths_R[r]
    return starts_R, lengths_R


@njit(cache=True, nogil=True, error_model="numpy")
def _write_kept_lengths(
    offsets: np.ndarray,
    validity: np.ndarray,
    offset: int,
    max_length: int,
    place_R: np.ndarray,
    out_R: np.ndarray,
) -> None:
    for r in range(len(place_R)):
        out_R[place_R[r]] = _kept_length(offsets, validity, offset, max_length, r)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _kept_length(
    offsets: np.ndarray, validity: np.ndarray, offset: int, max_length: int, r: int
) -> int:
    if not is_valid(validity, offset + r):
        return 0
    return min(int(offsets[r + 1] - offsets[r]), max_length)
