"""Which raw rows fit a recipe, and what is said of the others."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data_loaders.config import DataConfig
from data_loaders.errors import InputError
from data_loaders.prepare_config import PrepareConfig
from data_loaders.raw.cleaning import ROW_NUMBER, SCORE, CleanRows, clean
from data_loaders.raw.columns import raw_columns
from data_loaders.raw.rows import ArrowRows, Block, Malformed

DATA = {
    "features": {
        "user": {"kind": "id"},
        "country": {"kind": "id", "encoding": "direct"},
        "history": {
            "kind": "id_list",
            "table": "user",
            "weights": "seconds",
            "weights_sum_to_one": True,
        },
        "age": {"kind": "dense", "log": True},
        "price": {"kind": "dense"},
        "image": {"kind": "dense_vector", "length": 2},
    },
    "tasks": {
        "click": {"kind": "binary"},
        "spend": {"kind": "regression", "where": "click", "log": True},
    },
}
GOOD = {
    "user": "u1",
    "country": "3",
    "history": "u2|u3",
    "seconds": "1.5|",
    "age": "30",
    "price": "-2.5",
    "image": "[0.5, 1]",
    "click": "1",
    "spend": "20",
}
MISSING = dict.fromkeys(GOOD, "")


def cleaned(rows: list[dict[str, str]], **prepare: Any) -> CleanRows:
    config = PrepareConfig.model_validate(prepare)
    columns = raw_columns(
        DataConfig.model_validate(DATA), prepare=config, num_rows={"country": 7, "user": 50}
    )
    table = pa.Table.from_pylist(rows)
    numbers = np.arange(1, len(rows) + 1)
    block = Block(ArrowRows(table), numbers, (Malformed(9, "not a row", "?"),), 0)
    return clean(block, columns=columns, prepare=config, source="s3://bucket/log.csv")


def test_rows_that_fit_are_converted() -> None:
    """By the recipe's kinds; what is missing becomes null."""
    found = cleaned([GOOD, MISSING]).table.drop_columns([SCORE]).to_pylist()
    assert found[0] == {
        "user": "u1",
        "country": 3,
        "history": ["u2", "u3"],
        "seconds": [1.5, None],
        "age": 30.0,
        "price": -2.5,
        "image": [0.5, 1.0],
        "click": 1.0,
        "spend": 20.0,
        ROW_NUMBER: 1,
    }
    assert found[1] == {**dict.fromkeys(GOOD), ROW_NUMBER: 2}


@pytest.mark.parametrize(
    ("column", "text", "reason"),
    [
        ("country", "DE", "country: not an integer"),
        ("country", "7", "country: outside its table (0 to 6)"),
        ("history", "[1", "history: not a list of texts or integers"),
        ("seconds", "1|2|3", "seconds: not as long as history"),
        ("seconds", "-1|2", "seconds: negative (weights_sum_to_one: true)"),
        ("seconds", "a|b", "seconds: not a list of numbers"),
        ("age", "-1", "age: negative (log: true)"),
        ("price", "cheap", "price: not a number"),
        ("price", "inf", "price: not finite"),
        ("price", "1e400", "price: not finite"),
        ("seconds", "1|inf", "seconds: not finite"),
        ("image", "[1, -inf]", "image: not a list of numbers"),  # which is no JSON
        ("image", "1|-inf", "image: not finite"),
        ("day", "inf", "day: not finite"),
        ("price", "1e38", "price: beyond 1e+30"),
        ("price", "1001", "price: outside -1000 to 1000 (prepare.ranges)"),
        ("image", "[1]", "image: not a vector of 2 numbers"),
        ("image", "[1, null]", "image: not a vector of 2 numbers"),
        ("click", "2", "click: outside 0 to 1 (a binary label)"),
        ("spend", "-3", "spend: negative (log: true)"),
        ("day", "monday", "day: not a time (a number, or an ISO date and time)"),
        ("day", "", "day: missing (prepare.split.time)"),
    ],
)
def test_rows_that_do_not_fit_say_why(column: str, text: str, reason: str) -> None:
    """The reason, the value, where the row came from, and the row as it was."""
    good = {**GOOD, "day": "2026-03-01"}
    bad = {**good, column: text}
    ranges = {"price": [-1000, 1000]}
    found = cleaned([good, bad, good], ranges=ranges, split={"time": "day"})
    assert found.table[ROW_NUMBER].to_pylist() == [1, 3]
    assert len(found.keys_RK) == 2
    rejected, malformed = found.rejected.to_pylist()
    assert json.loads(rejected.pop("raw")) == bad
    source = "s3://bucket/log.csv"
    assert rejected == {"reason": reason, "value": text, "source": source, "row": 2}
    assert malformed == {
        "reason": "not a row",
        "value": None,
        "source": source,
        "row": 9,
        "raw": "?",
    }


def test_what_is_clipped_has_no_bounds() -> None:
    """The loader brings it into its range."""
    features = {**DATA["features"], "age": {"kind": "dense", "log": True, "clip": [0, 99]}}
    columns = raw_columns(
        DataConfig.model_validate({**DATA, "features": features}),
        prepare=PrepareConfig(),
        num_rows={},
    )
    assert {column.name: column.bounds for column in columns}["age"] == ()


def test_equal_keys_are_of_rows_that_are_equal_in_the_unique_columns() -> None:
    """By default in all columns, also those that the recipe does not read."""
    rows = [GOOD, {**GOOD, "user": "u9"}, {**GOOD, "age": "30.0"}, {**GOOD, "age": "31"}]
    in_age = cleaned(rows, unique=["age"]).keys_RK
    assert (in_age[0] == in_age[1]).all()
    assert (in_age[0] == in_age[2]).all()  # of values, not of texts
    assert (in_age[0] != in_age[3]).all()
    whole = cleaned([{**GOOD, "request": "1"}, {**GOOD, "request": "2"}]).keys_RK
    assert (whole[0] != whole[1]).all()


def test_equal_values_of_the_deciding_column_have_one_score() -> None:
    """So a user is in one split."""
    scores = cleaned([GOOD, {**GOOD, "age": "9"}, {**GOOD, "user": "v"}], split={"by": "user"})
    one, two, three = scores.table[SCORE].to_pylist()
    assert one == two != three


def test_columns_are_kept_with_the_type_that_is_asked_for() -> None:
    """And ids are integers where the recipe says so."""
    row = {**GOOD, "user": "17", "history": "", "request": "007", "ts": "2026-03-01"}
    row["seconds"] = ""
    found = cleaned([row], keep={"request": "text", "ts": "time"}, integers=["user", "history"])
    [kept] = found.table.to_pylist()
    assert (kept["user"], kept["request"], kept["ts"]) == (17, "007", 1772323200.0)
    assert found.table.schema.field("history").type == pa.list_(pa.int64())


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        ({"keep": {"user": "number"}}, "column user: is asked for as text and as number"),
        ({"ranges": {"user": [0, 1]}}, r"prepare.ranges.user: the column is text.*integers"),
        ({"integers": ["usr"]}, "prepare.integers: usr is no column"),
        ({"integers": ["price"]}, "found price, which data.features.price reads as number; take"),
        ({"integers": ["seconds"]}, "found seconds, which data.features.history reads as numbers"),
    ],
)
def test_columns_asked_for_in_two_ways_are_refused(prepare: Any, message: str) -> None:
    """By name, with the remedy."""
    with pytest.raises(InputError, match=message):
        cleaned([GOOD], **prepare)
