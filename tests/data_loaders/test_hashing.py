"""Hashing of ids: the same forever, on every platform, for every spelling of a column."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loaders.hashing import STRING_HASH_KEY, hash_ids, hash_rows, hashed_range, mix64, shuffled

MASK = 2**64 - 1
INTEGERS = [
    pa.array([0, 1, 100, -1], pa.int8()),
    pa.array([0, 1, 100, -1], pa.int16()),
    pa.array([0, 1, 2**31 - 1, -(2**31)], pa.int32()),
    pa.array([0, 1, 2**63 - 1, -(2**63)], pa.int64()),
    pa.array([0, 1, 255], pa.uint8()),
    pa.array([0, 1, 2**64 - 1], pa.uint64()),
]


def mixed(value: int) -> int:
    """SplitMix64's output after the state `value`, in Python's integers.

    Source: https://prng.di.unimi.it/splitmix64.c
    """
    z = (value + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_mix64_keeps_its_golden_values() -> None:
    """Another value moves every hashed id to another row: old checkpoints turn to noise."""
    values = np.array([0, 1, 2, 2**63, MASK], np.uint64)
    assert mix64(values).tolist() == [
        0xE220A8397B1DCDAF,  # the first output of SplitMix64 seeded with 0, as published
        0x910A2DEC89025CC1,
        0x975835DE1C9756CE,
        0x481EC0A212A9F3DB,
        0xE4D971771B652C20,
    ]


@settings(deadline=None)
@given(st.lists(st.integers(0, MASK), max_size=20))
def test_mix64_is_splitmix64(values: list[int]) -> None:
    """Against the published algorithm in exact integers."""
    assert mix64(np.array(values, np.uint64)).tolist() == [mixed(value) for value in values]


def test_ids_keep_their_golden_hashes() -> None:
    """Integers and strings, negative, empty and not ASCII."""
    assert hash_ids(pa.array([0, 1, -1], pa.int64())).tolist() == [
        0xE220A8397B1DCDAF,
        0x910A2DEC89025CC1,
        0xE4D971771B652C20,
    ]
    assert hash_ids(pa.array(["", "a", "item-1", "日本", "a" * 100])).tolist() == [
        0x5B09B536500E0B1E,
        0x7BCBC6D018E28266,
        0x3912B3071296AC43,
        0xACC16C9B9B6AEACB,
        0x330C076541E87372,
    ]


def test_shuffled_keeps_its_golden_order() -> None:
    """A run resumed with a newer version finds its rows where they were."""
    assert shuffled(10, key=(7, 3)).tolist() == [6, 8, 4, 0, 3, 9, 7, 2, 1, 5]


def test_row_keys_keep_their_golden_values() -> None:
    """What is drawn for a row in an epoch is drawn again when a run is resumed."""
    assert hashed_range(0, 2, key=(7, 3)).tolist() == [0x5F69DD0B06E43FD0, 0xA9B609302829F21F]
    assert hashed_range(1, 2, key=(7, 3))[0] == hashed_range(0, 2, key=(7, 3))[1]


@settings(deadline=None)
@given(st.lists(st.text(max_size=12), max_size=30), st.integers(2, 2**40))
def test_rows_of_a_table_are_the_hash_modulo_its_rows(names: list[str], num_rows: int) -> None:
    """Of strings and of integers of every width; row 0 is left free."""
    for column in (pa.array(names, pa.string()), *INTEGERS):
        expected = [1 + int(value) % (num_rows - 1) for value in hash_ids(column)]
        assert hash_rows(column, num_rows=num_rows).tolist() == expected


@settings(deadline=None)
@given(st.lists(st.text(max_size=12), max_size=30))
def test_strings_hash_the_same_however_they_are_stored(names: list[str]) -> None:
    """Plain, large, and dictionary-encoded with an order and entries of its own."""
    plain = pa.array(names, pa.string())
    expected = hash_ids(plain).tolist()
    known = ["unused", *sorted(set(names), reverse=True)]
    indices = pa.array([known.index(name) if name != "unused" else 0 for name in names], pa.int32())
    assert hash_ids(plain.cast(pa.large_string())).tolist() == expected
    assert hash_ids(plain.dictionary_encode()).tolist() == expected
    assert hash_ids(pa.DictionaryArray.from_arrays(indices, pa.array(known))).tolist() == expected
    assert hash_ids(pa.array(["x", *names])[1:]).tolist() == expected


@pytest.mark.parametrize("kind", [pa.int8(), pa.int16(), pa.int32(), pa.uint8(), pa.uint64()])
def test_an_integer_hashes_the_same_in_every_width(kind: pa.DataType) -> None:
    """A column rewritten with a narrower type finds the same rows, negative ids too."""
    ids = [0, 1, 100] if pa.types.is_unsigned_integer(kind) else [0, 1, 100, -1, -100]
    assert hash_ids(pa.array(ids, kind)).tolist() == hash_ids(pa.array(ids, pa.int64())).tolist()


@settings(deadline=None)
@given(st.integers(0, 300), st.lists(st.integers(-(2**63), MASK), max_size=3))
def test_shuffled_is_a_permutation(num_items: int, key: list[int]) -> None:
    """Every item once, and the same for the same key."""
    order = shuffled(num_items, key=tuple(key))
    assert sorted(order.tolist()) == list(range(num_items))
    assert order.tolist() == shuffled(num_items, key=tuple(key)).tolist()


def test_every_part_of_the_key_changes_the_order() -> None:
    """Seeds, epochs and row groups have orders of their own, also swapped ones."""
    keys = [(1, 2), (2, 1), (1, 3), (1, 2, 0), (1,), ()]
    orders = {tuple(shuffled(50, key=key)) for key in keys}
    assert len(orders) == len(keys)


def test_shuffled_puts_every_item_at_every_place_alike() -> None:
    """Over many keys the mean place of each item is the middle, within five standard errors."""
    places = np.stack([np.argsort(shuffled(8, key=(seed,))) for seed in range(4000)])
    error = np.sqrt((8**2 - 1) / 12 / 4000)
    assert np.abs(places.mean(0) - 3.5).max() < 5 * error


@settings(deadline=None)
@given(st.lists(st.text(max_size=40), max_size=20))
def test_strings_hash_as_pandas_hashes_them(names: list[str]) -> None:
    """Whatever their length, in slices too; so that others can find the rows of their ids."""
    column = pa.array(["before", *names])
    expected = pd.util.hash_array(np.array(names, object), hash_key=STRING_HASH_KEY)
    assert hash_ids(column.slice(1)).tolist() == expected.tolist()
    assert hash_ids(column.cast(pa.large_string()).slice(1)).tolist() == expected.tolist()
