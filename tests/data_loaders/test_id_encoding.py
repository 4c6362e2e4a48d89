"""Ids to table rows, against a loop over Python values."""

from __future__ import annotations

import math
from bisect import bisect_right
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from data_loaders.config import Feature, IdFeature, IdListFeature
from data_loaders.errors import InputError
from data_loaders.hashing import hash_ids
from data_loaders.id_encoding import IdEncoder
from data_loaders.id_vocabulary import digest_of

KNOWN_NAMES = {"b": 9, "a": 9, "": 4, "ccc": 2, "d": 1}
KNOWN_NUMBERS = {3: 9, -7: 8, 2**62: 4, 0: 2, 5: 1}
BOUNDARIES = [-1.5, 0.0, 2.0, 2.5]


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """URIs of a vocabulary of strings and one of integers."""
    folder: Path = tmp_path_factory.mktemp("vocabularies")
    uris = {}
    for name, counts in (("names", KNOWN_NAMES), ("numbers", KNOWN_NUMBERS)):
        uris[name] = str(folder / f"{name}.parquet")
        pq.write_table(pa.table({"id": list(counts), "count": list(counts.values())}), uris[name])
    return uris


def make_encoder(num_rows: int, **keys: Any) -> IdEncoder:
    if "vocabulary" in keys:
        keys["vocabulary_digest"] = digest_of(keys["vocabulary"])
    feature = TypeAdapter(Feature).validate_python({"kind": "id", **keys})
    assert isinstance(feature, IdFeature | IdListFeature)
    return IdEncoder(feature, column="x", num_rows=num_rows)


def rows_of(encoder: IdEncoder, column: pa.Array) -> np.ndarray:
    """The rows as they come, brought into the reverse order and back."""
    rows, place = np.empty(len(column), np.int64), np.arange(len(column))[::-1].copy()
    encoder.write(column, rows, place)
    return rows[::-1]


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.one_of(st.none(), values), max_size=12)


def known_row(value: Any, counts: dict[Any, int], *, num_rows: int, min_count: int) -> int:
    kept = [known for known, count in counts.items() if count >= min_count][: num_rows - 2]
    return 2 + kept.index(value) if value in kept else 1


NAMES = st.sampled_from([*KNOWN_NAMES, "e", "zz"])


@settings(deadline=None)
@given(
    ids=maybe(NAMES),
    kind=st.sampled_from([pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())]),
    num_rows=st.integers(3, 9),
    min_count=st.integers(1, 10),
    fill=st.none() | NAMES,
)
def test_names_have_the_row_of_their_place_in_the_vocabulary(
    vocabularies: dict[str, str],
    ids: list[str | None],
    kind: pa.DataType,
    num_rows: int,
    min_count: int,
    fill: str | None,
) -> None:
    """Row 0 is missing, 1 rare or unknown, or cut off by the table; null takes the row of fill."""
    encoder = make_encoder(
        num_rows,
        encoding="vocabulary",
        vocabulary=vocabularies["names"],
        min_count=min_count,
        fill=fill,
    )

    def naive(value: str | None) -> int:
        value = fill if value is None else value
        if value is None:
            return 0
        return known_row(value, KNOWN_NAMES, num_rows=num_rows, min_count=min_count)

    column = pa.array(ids, pa.string())
    column = column.dictionary_encode() if pa.types.is_dictionary(kind) else column.cast(kind)
    assert rows_of(encoder, column).tolist() == [naive(value) for value in ids]


@settings(deadline=None)
@given(ids=maybe(st.sampled_from([*KNOWN_NUMBERS, 1, -1])), num_rows=st.integers(3, 9))
def test_integers_have_the_row_of_their_place_in_the_vocabulary(
    vocabularies: dict[str, str], ids: list[int | None], num_rows: int
) -> None:
    """As names."""
    encoder = make_encoder(num_rows, encoding="vocabulary", vocabulary=vocabularies["numbers"])
    expected = [
        0 if value is None else known_row(value, KNOWN_NUMBERS, num_rows=num_rows, min_count=1)
        for value in ids
    ]
    assert rows_of(encoder, pa.array(ids, pa.int64())).tolist() == expected


NUMBERS = st.floats(-3, 4, width=32) | st.sampled_from([*BOUNDARIES, math.inf, -math.inf])


@settings(deadline=None)
@given(
    numbers=maybe(NUMBERS | st.just(math.nan)),
    kind=st.sampled_from([pa.float64(), pa.float32()]),
    fill=st.none() | st.sampled_from([*BOUNDARIES, 1, -9.0]),
)
def test_a_boundary_belongs_to_the_range_above_it(
    numbers: list[float | None], kind: pa.DataType, fill: float | None
) -> None:
    """Row 1 lies below the first, the last row from the last on; null and NaN are missing."""
    encoder = make_encoder(6, encoding="quantiles", boundaries=BOUNDARIES, fill=fill)

    def naive(value: float | None) -> int:
        value = fill if value is None or math.isnan(value) else value
        return 0 if value is None else 1 + bisect_right(BOUNDARIES, value)

    assert rows_of(encoder, pa.array(numbers, kind)).tolist() == [naive(value) for value in numbers]


@pytest.mark.parametrize(
    ("column", "rows"),
    [
        (pa.array([True, False, None]), [3, 3, 4]),
        (pa.array([-2, 2, None], pa.int8()), [1, 4, 4]),
        (pa.array([2**40, None], pa.uint64()), [5, 4]),
    ],
)
def test_quantiles_cut_any_kind_of_number(column: pa.Array, rows: list[int]) -> None:
    """The number that fills in for a missing one need not be of the column's type."""
    encoder = make_encoder(6, encoding="quantiles", boundaries=BOUNDARIES, fill=2.25)
    assert rows_of(encoder, column).tolist() == rows


@pytest.mark.parametrize(
    ("encoding", "ids", "fill"),
    [("hash", [1, None, 3], 7), ("hash", ["a", None], "none"), ("direct", [1, None, 3], 7)],
)
def test_a_missing_id_takes_the_row_of_fill(encoding: str, ids: list[Any], fill: Any) -> None:
    """As if the log held it."""
    encoder = make_encoder(10, encoding=encoding, fill=fill)
    filled = [fill if value is None else value for value in ids]
    assert rows_of(encoder, pa.array(ids)).tolist() == rows_of(encoder, pa.array(filled)).tolist()
    if encoding == "hash":
        expected = 1 + int(hash_ids(pa.array([fill]))[0]) % 9
        assert rows_of(encoder, pa.array(ids))[1] == expected


@pytest.mark.parametrize(
    ("encoding", "column", "fill", "message"),
    [
        ("hash", pa.array(["a", None]), 7, "column x: fill 7 is no string"),
        ("hash", pa.array([1, None]), "a", "column x: fill 'a' is no int64"),
        ("hash", pa.array([1, None], pa.int8()), 300, "column x: fill 300 is no int8"),
        ("hash", pa.array(["a", None]).dictionary_encode(), 7, "column x: fill 7 is no string"),
        ("direct", pa.array([1, None]), 10, "column x: id 10 lies outside its table"),
    ],
)
def test_a_fill_that_the_column_cannot_hold_is_refused(
    encoding: str, column: pa.Array, fill: Any, message: str
) -> None:
    """In one line, when the first missing id is met."""
    with pytest.raises(InputError, match=message):
        rows_of(make_encoder(10, encoding=encoding, fill=fill), column)
