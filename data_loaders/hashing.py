"""Mixing of integers and strings into 64 bits, the same on every platform and in every version."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

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
    """A permutation of `range(num_items)`, int64, that depends on the integers of `key` alone."""
    state = np.zeros(1, np.uint64)
    for part in key:
        state = mix64(state ^ np.uint64(part & 0xFFFF_FFFF_FFFF_FFFF))
    return np.argsort(mix64(state ^ mix64(np.arange(num_items, dtype=np.uint64))), kind="stable")


def hash_ids(column: pa.Array) -> np.ndarray:
    """Hashes a column without nulls to uint64 (N,): integers by `mix64`, strings by SipHash.

    A string is hashed once for each distinct value of the column, not once a row.

    Source: https://pandas.pydata.org/docs/reference/api/pandas.util.hash_array.html
    """
    if pa.types.is_integer(column.type):
        return mix64(column.to_numpy(zero_copy_only=False).astype(np.uint64, copy=False))
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    names = column.dictionary.to_numpy(zero_copy_only=False)
    hashes = pd.util.hash_array(names, hash_key=STRING_HASH_KEY, categorize=False)
    return hashes[column.indices.to_numpy(zero_copy_only=False)]
