"""Hashes of whole rows: the same for equal rows, whatever file or block they came in.

Shape legend: R rows, N items of lists.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa

from data_loaders.hashing import mix64

# of pandas' SipHash: 16 characters each
HASH_KEYS = ("polytower-row-k1", "polytower-row-k2")
NULL_ITEM = np.uint64(0x9AE16A3B2F90404F)


def row_hashes(table: pa.Table, *, key: int) -> np.ndarray:
    """uint64 (R,): two rows that differ have equal hashes with a chance of 2^-64.

    The order of the columns does not matter, and a null is like a column that is not there.

    Args:
        table: with columns of any type.
        key: index into `HASH_KEYS`; hashes with different keys are independent.
    """
    sums_R = np.zeros(table.num_rows, np.uint64)
    for name, column in zip(table.column_names, table.columns, strict=True):
        array = column.combine_chunks()
        name_hash = _text_hashes(pa.array([name]), key=key)
        hashes_R = mix64(_hashes(array, key=key) ^ name_hash)
        sums_R += np.where(array.is_valid().to_numpy(zero_copy_only=False), hashes_R, np.uint64(0))
    return mix64(sums_R)


def fractions_of(hashes_R: np.ndarray) -> np.ndarray:
    """float64 (R,), evenly spread in [0, 1)."""
    return (hashes_R >> np.uint64(11)).astype(np.float64) / 2**53


def _hashes(array: pa.Array, *, key: int) -> np.ndarray:
    """uint64 of each value; anything where it is null."""
    found = array.type
    if pa.types.is_dictionary(found):
        return _hashes(array.dictionary_decode(), key=key)
    if pa.types.is_fixed_size_list(found):
        return _list_hashes(array.cast(pa.list_(found.value_type)), key=key)
    if pa.types.is_list(found) or pa.types.is_large_list(found):
        return _list_hashes(array, key=key)
    if pa.types.is_string_view(found):
        return _text_hashes(array.cast(pa.large_string()), key=key)
    if pa.types.is_floating(found):
        numbers = array.cast(pa.float64()).to_numpy(zero_copy_only=False) + 0.0  # no -0.0
        return mix64(numbers.view(np.uint64) ^ np.uint64(key))
    is_integer = pa.types.is_integer(found) or pa.types.is_boolean(found)
    if is_integer and found != pa.uint64():
        integers = array.cast(pa.int64()).fill_null(0).to_numpy()
        return mix64(integers.view(np.uint64) ^ np.uint64(key))
    if not (_is_text(found) or pa.types.is_binary(found) or pa.types.is_large_binary(found)):
        # rare: their text is as good as they are
        texts = [json.dumps(value, sort_keys=True, default=str) for value in array.to_pylist()]
        array = pa.array(texts, pa.string())
    return _text_hashes(array, key=key)


def _text_hashes(array: pa.Array, *, key: int) -> np.ndarray:
    """Hashes each distinct text once."""
    encoded = array.fill_null("" if _is_text(array.type) else b"").dictionary_encode()
    texts = encoded.dictionary.to_numpy(zero_copy_only=False)
    if not len(texts):
        return np.zeros(0, np.uint64)
    hashes = pd.util.hash_array(texts, hash_key=HASH_KEYS[key], categorize=False)
    return hashes[encoded.indices.to_numpy()]


def _is_text(found: pa.DataType) -> bool:
    return bool(pa.types.is_string(found) or pa.types.is_large_string(found))


def _list_hashes(array: pa.Array, *, key: int) -> np.ndarray:
    """Of the items and their places."""
    lengths_R = array.value_lengths().fill_null(0).to_numpy().astype(np.int64)
    items = array.flatten()  # without those behind null lists
    hashes_N = np.where(
        items.is_valid().to_numpy(zero_copy_only=False), _hashes(items, key=key), NULL_ITEM
    )
    starts_R = np.cumsum(lengths_R) - lengths_R
    place_N = np.arange(len(items)) - np.repeat(starts_R, lengths_R)
    sums_N = np.cumsum(mix64(hashes_N ^ mix64(place_N.astype(np.uint64))), dtype=np.uint64)
    behind_R = np.concatenate([np.zeros(1, np.uint64), sums_N])
    sums_R = behind_R[starts_R + lengths_R] - behind_R[starts_R]
    return mix64(sums_R + lengths_R.astype(np.uint64))
