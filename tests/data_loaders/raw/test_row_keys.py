"""Hashes of rows: equal exactly where rows are."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_loaders.raw.row_keys import fractions_of, row_hashes

SCHEMA = pa.schema(
    {
        "a": pa.int16(),
        "b": pa.string(),
        "c": pa.list_(pa.string()),
        "d": pa.float64(),
        "e": pa.struct({"x": pa.int8()}),
    }
)
short = st.sampled_from(["", "x", "y"])
rows = st.fixed_dictionaries(
    {
        "a": st.none() | st.integers(0, 2),
        "b": st.none() | short,
        "c": st.none() | st.lists(st.none() | short, max_size=3),
        "d": st.none() | st.sampled_from([0.0, 1.5]),
        "e": st.none() | st.fixed_dictionaries({"x": st.integers(0, 1)}),
    }
)


@given(st.lists(rows, min_size=2, max_size=8))
def test_hashes_are_equal_where_rows_are(found: list[dict[str, Any]]) -> None:
    """Nulls, empty texts, empty lists and the order of items are told apart."""
    table = pa.Table.from_pylist(found, SCHEMA)
    for key in (0, 1):
        hashes = row_hashes(table, key=key)
        for (one, first), (two, second) in itertools.combinations(
            zip(found, hashes, strict=True), 2
        ):
            assert (one == two) == (first == second)


@given(st.lists(rows, max_size=8), st.permutations(SCHEMA.names), st.integers(0, 8))
def test_a_hash_is_of_the_row_alone(
    found: list[dict[str, Any]], order: list[str], cut: int
) -> None:
    """Not of the order of the columns, nor of the rows around it."""
    table = pa.Table.from_pylist(found, SCHEMA)
    parts = [table.select(order).slice(0, cut), table.select(order).slice(cut)]
    hashes = np.concatenate([row_hashes(part, key=0) for part in parts])
    np.testing.assert_array_equal(hashes, row_hashes(table, key=0))


def test_text_and_its_bytes_hash_alike_and_keys_do_not() -> None:
    """A CSV file's cells are bytes."""
    texts = pa.table({"a": ["x", None, "ü", "ü"]})
    as_bytes = pa.table({"a": [b"x", None, "ü".encode(), "ü".encode()]})
    np.testing.assert_array_equal(row_hashes(texts, key=0), row_hashes(as_bytes, key=0))
    assert not set(row_hashes(texts, key=0).tolist()) & set(row_hashes(texts, key=1)[:1].tolist())


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_text_hashes_alike_in_every_type_of_it(kind: pa.DataType) -> None:
    """Writers differ in what they take: pandas takes large strings."""
    texts = pa.array(["x", None, "", "a longer text"])
    as_kind = pa.table({"a": texts.cast(kind)})
    np.testing.assert_array_equal(
        row_hashes(as_kind, key=0), row_hashes(pa.table({"a": texts}), key=0)
    )


@pytest.mark.parametrize(
    "kind",
    [pa.large_list(pa.large_string()), pa.list_(pa.string(), 2), pa.list_(pa.large_string())],
)
def test_lists_hash_alike_in_every_type_of_them(kind: pa.DataType) -> None:
    """Also lists of a fixed size, as vectors are."""
    lists = [["x", None], None, ["", "y"]]
    tables = [pa.table({"a": pa.array(lists, each)}) for each in (kind, pa.list_(pa.string()))]
    one, other = (row_hashes(table, key=0) for table in tables)
    np.testing.assert_array_equal(one, other)


def test_fractions_are_spread_evenly() -> None:
    """A tenth of the rows lies below 0.1."""
    fractions = fractions_of(row_hashes(pa.table({"a": range(20_000)}), key=0))
    assert fractions.min() >= 0
    assert fractions.max() < 1
    assert (fractions < 0.1).mean() == pytest.approx(0.1, abs=0.01)
