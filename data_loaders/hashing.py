"""Mixing of integers and strings into 64 bits, the same on every platform and in every version."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
from numba import njit

# Changing this key, or anything below, moves every hashed id to another row of its table: old
# checkpoints turn to noise. tests/data_loaders/test_hashing.py holds golden values.
STRING_HASH_KEY = "polytower-ids-v1"


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
    """A permutation of `range(num_items)`, int64, that depends on the integers of `key` alone.

    Source: Durstenfeld, "Algorithm 235: random permutation", CACM 1964, on SplitMix64.
    """
    return _permutation(num_items, _state(key))


def hashed_range(start: int, stop: int, *, key: tuple[int, ...]) -> np.ndarray:
    """uint64 (stop - start,), spread over all 64 bits; each depends on its integer and on `key`."""
    return mix64(_state(key) ^ mix64(np.arange(start, stop, dtype=np.uint64)))


def hash_rows(column: pa.Array, *, num_rows: int) -> np.ndarray:
    """Rows 1 to num_rows - 1 of a table for a column of ids without nulls: int64 (N,)."""
    if pa.types.is_integer(column.type):
        return _rows_of_integers(column.to_numpy(zero_copy_only=False), np.uint64(num_rows - 1))
    hashes_N, indices_N = _hash_strings(column)
    rows = 1 + (hashes_N % np.uint64(num_rows - 1)).astype(np.int64)
    return rows[indices_N]


def hash_ids(column: pa.Array) -> np.ndarray:
    """Hashes a column without nulls to uint64 (N,): integers by `mix64`, strings by SipHash.

    A string is hashed once for each distinct value of the column, not once a row.

    Source: https://pandas.pydata.org/docs/reference/api/pandas.util.hash_array.html
    """
    if pa.types.is_integer(column.type):
        return mix64(column.to_numpy(zero_copy_only=False).astype(np.uint64, copy=False))
    hashes_N, indices_N = _hash_strings(column)
    return hashes_N[indices_N]


def _hash_strings(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The hash of each distinct string, and where each value is among them."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    names = column.dictionary.to_numpy(zero_copy_only=False)
    hashes = pd.util.hash_array(names, hash_key=STRING_HASH_KEY, categorize=False)
    return hashes, column.indices.to_numpy(zero_copy_only=False)


def _state(key: tuple[int, ...]) -> np.uint64:
    state = np.zeros(1, np.uint64)
    for part in key:
        state = mix64(state ^ np.uint64(part & 0xFFFF_FFFF_FFFF_FFFF))
    return np.uint64(state[0])


@njit(cache=True, nogil=True, error_model="numpy")
def _mix(value: np.uint64) -> np.uint64:
    """`mix64` of one value, for compiled loops."""
    mixed = value + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


@njit(cache=True, nogil=True, error_model="numpy")
def _rows_of_integers(values_N: np.ndarray, num_hashed: np.uint64) -> np.ndarray:
    rows_N = np.empty(len(values_N), np.int64)
    for n in range(len(values_N)):
        rows_N[n] = 1 + np.int64(_mix(np.uint64(values_N[n])) % num_hashed)
    return rows_N


@njit(cache=True, nogil=True, error_model="numpy")
def _permutation(num_items: int, state: np.uint64) -> np.ndarray:
    items = np.arange(num_items)
    for last in range(num_items - 1, 0, -1):
        state += np.uint64(0x9E3779B97F4A7C15)
        other = np.int64(_mix(state) % np.uint64(last + 1))
        items[last], items[other] = items[other], items[last]
    return items
