"""Mixing of integers and strings into 64 bits, the same on every platform and in every version."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numba import njit

from data_loaders.columns import is_valid, raw_values, valid_of, write_rows_of_codes
from data_loaders.memory import frozen

# Changing this key, or anything below, moves every hashed id to another row of its table: old
# checkpoints turn to noise. tests/data_loaders/test_hashing.py holds golden values.
STRING_HASH_KEY = "polytower-ids-v1"
_KEYS = tuple(np.frombuffer(STRING_HASH_KEY.encode(), "<u8"))


def mix64(values_N: np.ndarray) -> np.ndarray:
    """Spreads each uint64 over all 64 bits; a bijection.

    Source: the finalizer of SplitMix64, Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators", 2014.
    """
    mixed_N = values_N + np.uint64(0x9E3779B97F4A7C15)
    mixed_N = (mixed_N ^ (mixed_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed_N = (mixed_N ^ (mixed_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed_N ^ (mixed_N >> np.uint64(31))


def shuffled(num_items: int, *, key: tuple[int, ...]) -> np.ndarray:
    """A permutation of `range(num_items)`, uint32, that depends on the integers of `key` alone.

    Source: Durstenfeld, "Algorithm 235: random permutation", CACM 1964, on SplitMix64.
    """
    return _permutation(num_items, _state(key))


def hashed_range(start: int, stop: int, *, key: tuple[int, ...]) -> np.ndarray:
    """uint64 (stop - start,), spread over all 64 bits; each depends on its integer and on `key`."""
    return mix64(_state(key) ^ mix64(np.arange(start, stop, dtype=np.uint64)))


def hash_rows(column: pa.Array, *, num_rows: int) -> np.ndarray:
    """Rows 1 to num_rows - 1 of a table for a column of ids, 0 for null: int64 (N,)."""
    return np.where(valid_of(column), _rows_of_ids(column, np.uint64(num_rows - 1)), 0)


def write_hashed(
    column: pa.Array, out_N: np.ndarray, place_N: np.ndarray, *, num_rows: int, missing_row: int
) -> None:
    """Writes what `hash_rows` returns, each row to its place; `missing_row` for null."""
    num_hashed = np.uint64(num_rows - 1)
    if pa.types.is_integer(column.type):
        _write_hashed(*raw_values(column), num_hashed, missing_row, place_N, out_N)
    elif pa.types.is_dictionary(column.type):
        rows_D = _rows_of_ids(column.dictionary, num_hashed)
        write_rows_of_codes(column.indices, out_N, place_N, rows_D=rows_D, missing_row=missing_row)
    else:
        rows_N = _rows_of_ids(column, num_hashed)
        out_N[place_N] = np.where(valid_of(column), rows_N, missing_row)


def _rows_of_ids(column: pa.Array, num_hashed: np.uint64) -> np.ndarray:
    return _rows_of_hashes(hash_ids(column), num_hashed)


def hash_ids(column: pa.Array) -> np.ndarray:
    """Hashes integers by `mix64` and strings by SipHash to uint64 (N,); anything for null.

    Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012; the values are those of
        https://pandas.pydata.org/docs/reference/api/pandas.util.hash_array.html
    """
    if pa.types.is_integer(column.type):
        return mix64(raw_values(column)[0].astype(np.uint64, copy=False))
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    _, offsets, text = column.buffers()  # an empty column may lack both
    offset_type = np.int64 if pa.types.is_large_string(column.type) else np.int32
    offsets_N, text_N = np.zeros(1, offset_type), np.zeros(0, np.uint8)
    if len(column):
        offsets_N = np.frombuffer(offsets, offset_type)[column.offset :][: len(column) + 1]
    if text is not None:
        text_N = np.frombuffer(text, np.uint8)
    return _sip_hashes(frozen(text_N), frozen(offsets_N), *_KEYS)


def _state(key: tuple[int, ...]) -> np.uint64:
    state = np.zeros(1, np.uint64)
    for part in key:
        state = mix64(state ^ np.uint64(part & 0xFFFF_FFFF_FFFF_FFFF))
    return np.uint64(state[0])


@njit(cache=True, nogil=True, error_model="numpy")
def _mix(value: np.uint64) -> np.uint64:
    """`mix64` of one value, for compiled loops."""
    return _finalised(value + np.uint64(0x9E3779B97F4A7C15))


@njit(cache=True, nogil=True, error_model="numpy")
def _finalised(value: np.uint64) -> np.uint64:
    mixed = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


@njit(cache=True, nogil=True, error_model="numpy")
def _write_hashed(
    values_N: np.ndarray,
    validity: np.ndarray,
    offset: int,
    num_hashed: np.uint64,
    missing_row: int,
    place_N: np.ndarray,
    out_N: np.ndarray,
) -> None:
    for n in range(len(values_N)):
        row = np.int64(missing_row)
        if is_valid(validity, offset + n):
            row = 1 + np.int64(_mix(np.uint64(values_N[n])) % num_hashed)
        out_N[place_N[n]] = row


@njit(cache=True, nogil=True, error_model="numpy")
def _rows_of_hashes(hashes_N: np.ndarray, num_hashed: np.uint64) -> np.ndarray:
    rows_N = np.empty(len(hashes_N), np.int64)
    for n in range(len(hashes_N)):
        rows_N[n] = 1 + np.int64(hashes_N[n] % num_hashed)
    return rows_N


@njit(cache=True, nogil=True, error_model="numpy")
def _sip_hashes(
    text_N: np.ndarray, offsets_N: np.ndarray, key_0: np.uint64, key_1: np.uint64
) -> np.ndarray:
    """SipHash-2-4 of each string."""
    hashes_N = np.empty(len(offsets_N) - 1, np.uint64)
    for n in range(len(hashes_N)):
        start, stop = offsets_N[n], offsets_N[n + 1]
        v0 = key_0 ^ np.uint64(0x736F6D6570736575)
        v1 = key_1 ^ np.uint64(0x646F72616E646F6D)
        v2 = key_0 ^ np.uint64(0x6C7967656E657261)
        v3 = key_1 ^ np.uint64(0x7465646279746573)
        num_words = (stop - start) // 8
        for word in range(num_words + 1):
            first, message = np.uint64(start + 8 * word), np.uint64(0)
            if word < num_words:
                for byte in range(8):  # becomes one instruction
                    message |= np.uint64(text_N[first + np.uint64(byte)]) << np.uint64(8 * byte)
            else:
                for byte in range((stop - start) & 7):
                    message |= np.uint64(text_N[first + np.uint64(byte)]) << np.uint64(8 * byte)
                message |= np.uint64(stop - start) << np.uint64(56)
            v3 ^= message
            for _ in range(2):
                v0, v1, v2, v3 = _sip_round(v0, v1, v2, v3)
            v0 ^= message
        v2 ^= np.uint64(0xFF)
        for _ in range(4):
            v0, v1, v2, v3 = _sip_round(v0, v1, v2, v3)
        hashes_N[n] = _finalised(v0 ^ v1 ^ v2 ^ v3)  # as pandas does
    return hashes_N


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _sip_round(
    v0: np.uint64, v1: np.uint64, v2: np.uint64, v3: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    v0 += v1
    v2 += v3
    v1 = _rotated(v1, 13) ^ v0
    v3 = _rotated(v3, 16) ^ v2
    v0 = _rotated(v0, 32)
    v2 += v1
    v0 += v3
    v1 = _rotated(v1, 17) ^ v2
    v3 = _rotated(v3, 21) ^ v0
    return v0, v1, _rotated(v2, 32), v3


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _rotated(value: np.uint64, bits: int) -> np.uint64:
    return (value << np.uint64(bits)) | (value >> np.uint64(64 - bits))


@njit(cache=True, nogil=True, error_model="numpy")
def _permutation(num_items: int, state: np.uint64) -> np.ndarray:
    items = np.arange(num_items).astype(np.uint32)
    for last in range(num_items - 1, 0, -1):
        state += np.uint64(0x9E3779B97F4A7C15)
        other = np.int64(_mix(state) % np.uint64(last + 1))
        items[last], items[other] = items[other], items[last]
    return items
