"""Cells of raw logs: whether one converts, and to what, never depends on the cells around it."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal
from typing import Any, get_args

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loaders.errors import SchemaError
from data_loaders.raw.cells import ARROW_TYPES, convert
from data_loaders.raw.columns import CellType

NASTY = [
    *("", " ", "0", "-0", "7", " 7 ", "+7", "007", "7.0", "7.5", "1e3", "1e400", "-1e-400"),
    *("nan", "NaN", "inf", "-Infinity", "true", "False", "abc", "1_000", "0x1F", "7,5"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775808", "9007199254740993"),
    *("2026-03-01", "2026-03-01T09:00:00Z", "2026-03-01 09:00:00+02:00", "2026-13-01"),
    *(
        "1|2",
        "a||b",
        "|",
        "[]",
        "[1, 2.0, null]",
        '["a|b", "ü"]',
        "[1",
        "[[1]]",
        '[{"a": 1}]',
        "[a]",
    ),
]
cells = st.lists(st.none() | st.sampled_from(NASTY) | st.text(max_size=4), max_size=6)


def converted(values: Any, *, to: CellType, kind: pa.DataType | None = None) -> Any:
    """Values, and where they are wrong."""
    found = convert(pa.array(values, kind), to=to, missing=["", "NULL"], list_separator="|")
    assert found.values.type == ARROW_TYPES[to]
    assert not (found.values.is_valid().to_numpy(zero_copy_only=False) & found.wrong_R).any() or (
        to in ("texts", "integers", "numbers")
    )
    return found.values.to_pylist(), found.wrong_R.tolist()


@settings(max_examples=200)
@given(cells, st.sampled_from(get_args(CellType)))
def test_a_cell_converts_as_it_would_alone(texts: list[str | None], to: CellType) -> None:
    """So the result cannot depend on how a file is cut into blocks."""
    values, wrong = converted(texts, to=to, kind=pa.string())
    alone = [converted([text], to=to, kind=pa.string()) for text in texts]
    assert values == [value for [value], _ in alone]
    assert wrong == [is_wrong for _, [is_wrong] in alone]


@given(st.lists(st.floats()))
def test_numbers_survive_as_text(numbers: list[float]) -> None:
    """To the last bit; NaN is missing."""
    values, wrong = converted([repr(number) for number in numbers], to="number", kind=pa.string())
    assert values == [None if math.isnan(number) else number for number in numbers]
    assert not any(wrong)
    assert (values, wrong) == converted(numbers, to="number", kind=pa.float64())


@given(st.lists(st.none() | st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)), max_size=8))
def test_lists_are_the_same_in_every_notation(lists: list[list[int | None] | None]) -> None:
    """Of Parquet, as JSON array, and with a separator, which has no word for an empty list."""
    expected = (lists, [False] * len(lists))
    as_json = [None if items is None else str(items).replace("None", "null") for items in lists]
    separated = [
        "|".join("" if item is None else str(item) for item in items) or "[]"
        if items is not None and items != [None]
        else None
        if items is None
        else "[null]"
        for items in lists
    ]
    assert converted(lists, to="integers", kind=pa.list_(pa.int64())) == expected
    assert converted(as_json, to="integers", kind=pa.string()) == expected
    assert converted(separated, to="integers", kind=pa.string()) == expected


@pytest.mark.parametrize(
    ("text", "to", "value"),
    [
        ("true", "number", 1.0),
        ("FALSE", "number", 0.0),
        (" 12.0 ", "integer", 12),
        ("12.5", "integer", "wrong"),
        ("9223372036854775808", "integer", "wrong"),
        ("NULL", "text", None),
        (" x ", "text", " x "),
        ("2026-03-01 09:00:00.5", "time", 1772355600.5),
        ("2026-03-01T09:00:00Z", "time", 1772355600.0),
        ("2026-03-01T11:00:00+02:00", "time", 1772355600.0),
        ("1772355600", "time", 1772355600.0),
        ("yesterday", "time", "wrong"),
        ("a|NULL|c", "texts", ["a", None, "c"]),
        ('["a|b", 3]', "texts", ["a|b", "3"]),
        ("[[1]]", "texts", "wrong"),
        ("[" * 100_000, "texts", "wrong"),
        ("0.5|1", "numbers", [0.5, 1.0]),
    ],
)
def test_texts_mean_what_a_reader_would_think(text: str, to: CellType, value: Any) -> None:
    """The notations that the guide names."""
    values, wrong = converted([text], to=to)
    assert wrong == [value == "wrong"]
    if value != "wrong":
        assert values == [value]


@pytest.mark.parametrize(
    ("values", "kind", "to", "expected"),
    [
        ([1, None], pa.int8(), "text", ["1", None]),
        ([1.0, 1.5, math.nan], pa.float64(), "text", ["1", "wrong", None]),
        ([3.0, 2.0**60], pa.float64(), "integer", [3, "wrong"]),
        ([2**64 - 1, 5], pa.uint64(), "integer", ["wrong", 5]),
        ([2**64 - 1, 5], pa.uint64(), "text", ["18446744073709551615", "5"]),
        ([True, None], pa.bool_(), "number", [1.0, None]),
        ([Decimal("1.50")], pa.decimal128(5, 2), "number", [1.5]),
        ([datetime.date(2026, 3, 1)], pa.date32(), "time", [1772323200.0]),
        ([1772323200 * 10**9 + 1], pa.timestamp("ns", "Asia/Tokyo"), "time", [1772323200.0]),
        ([b"x", b"\xff"], pa.binary(), "text", ["x", "wrong"]),
        (["a", "a"], pa.dictionary(pa.int8(), pa.string()), "text", ["a", "a"]),
        ([[1, 2], None], pa.list_(pa.int16(), 2), "numbers", [[1.0, 2.0], None]),
        ([["1", "x"], []], pa.large_list(pa.string()), "integers", ["wrong", []]),
        ([None], pa.null(), "texts", [None]),
    ],
)
def test_types_of_parquet_convert(values: Any, kind: pa.DataType, to: Any, expected: Any) -> None:
    """Value by value."""
    found, wrong = converted(values, to=to, kind=kind)
    assert wrong == [value == "wrong" for value in expected]
    right = [value for value in expected if value != "wrong"]
    assert [value for value, is_wrong in zip(found, wrong, strict=True) if not is_wrong] == right


@pytest.mark.parametrize(
    ("kind", "to"),
    [
        (pa.struct({"a": pa.int8()}), "number"),
        (pa.int64(), "texts"),
        (pa.list_(pa.int64()), "text"),
        (pa.date32(), "integer"),
    ],
)
def test_types_that_never_convert_are_refused(kind: pa.DataType, to: Any) -> None:
    """At once, not row by row."""
    with pytest.raises(SchemaError, match=r"expected an? .*, found"):
        converted([None], to=to, kind=kind)
