"""Columns to numbers, against a row-by-row loop over Python values."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loaders import list_encoding
from data_loaders.config import (
    DataConfig,
    DenseFeature,
    DenseVectorFeature,
    IdFeature,
    IdListFeature,
    RegressionTask,
    fitted_number,
)
from data_loaders.errors import InputError, SchemaError
from data_loaders.hashing import hash_ids
from data_loaders.rows import EncodedRows, Ragged
from data_loaders.transforms import Encoder
from tests.helpers.encoded_rows import joined, taken

NUM_ROWS = {"user": 50, "name": 11, "country": 7, "tags": 2, "names": 30, "places": 7}
DATA = DataConfig.model_validate(
    {
        "features": {
            "tags": {"kind": "id_list", "max_length": 3, "weights": "tag_weights"},
            "look": {"kind": "dense_vector", "length": 2},
            "age": {"kind": "dense", "mean": 30.0, "std": 10.0},
            "user": {"kind": "id", "column": "user_id"},
            "name": {"kind": "id"},
            "names": {"kind": "id_list", "max_length": 50},
            "country": {"kind": "id", "encoding": "direct"},
            "places": {"kind": "id_list", "encoding": "direct", "max_length": 2},
            "paid": {"kind": "dense", "log": True, "mean": 1.0},
            "is_new": {"kind": "dense"},
            "price": {"kind": "dense", "log": True, "clip": [1, 50], "fill": 80.0, "mean": 2.0},
            "change": {"kind": "dense", "clip": [-5, 5], "std": 2.0},
        },
        "tasks": {
            "buy": {"kind": "binary", "where": "click"},
            "click": {"kind": "binary"},
            "watch": {"kind": "regression", "log": True, "mean": 2.0, "std": 3.0},
        },
    }
)
TYPES = {
    "user_id": [pa.int64(), pa.int32(), pa.int16()],
    "name": [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())],
    "tags": [pa.list_(pa.int64()), pa.large_list(pa.int32())],
    "tag_weights": [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.int8())],
    "look": [pa.list_(pa.float32(), 2), pa.list_(pa.float32()), pa.large_list(pa.float64())],
    "names": [pa.list_(pa.string()), pa.large_list(pa.large_string())],
    "country": [pa.int8(), pa.uint64()],
    "places": [pa.list_(pa.int64()), pa.list_(pa.uint8())],
    "age": [pa.int32(), pa.uint64(), pa.float64()],
    "paid": [pa.float64(), pa.float32()],
    "is_new": [pa.bool_(), pa.int8()],
    "price": [pa.float64(), pa.float32()],
    "change": [pa.float64(), pa.float32()],
    "buy": [pa.bool_(), pa.int64(), pa.float32()],
    "click": [pa.int8(), pa.bool_()],
    "watch": [pa.float64(), pa.float32()],
}


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), values)


NUMBERS = st.floats(0, 1e6, width=32)
PLACES, TEXTS, INTEGERS = st.integers(0, 6), st.text(max_size=3), st.integers(-(2**15), 2**15 - 1)
PAIRS = maybe(st.lists(st.tuples(maybe(INTEGERS), maybe(st.integers(-3, 3))), max_size=6))
ROWS = st.fixed_dictionaries(
    {
        "user_id": maybe(INTEGERS),
        "name": maybe(TEXTS),
        "tags and weights": PAIRS,
        "look": maybe(st.tuples(NUMBERS, NUMBERS)),
        "names": maybe(st.lists(maybe(TEXTS), max_size=3)),
        "country": maybe(PLACES),
        "places": maybe(st.lists(maybe(PLACES), max_size=4)),
        "age": maybe(st.integers(0, 120)),
        "paid": maybe(NUMBERS | st.just(math.nan)),
        "is_new": maybe(st.integers(0, 1)),
        "price": maybe(st.floats(-10, 100, width=32) | st.sampled_from([math.nan, math.inf])),
        "change": maybe(st.floats(-10, 10, width=32) | st.sampled_from([math.nan, -math.inf])),
        "buy": maybe(st.integers(0, 1)),
        "click": maybe(st.integers(0, 1)),
        "watch": maybe(NUMBERS | st.just(math.nan)),
    }
)


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Any of the types, in chunks that are slices of longer arrays."""
    rows = draw(st.lists(ROWS, max_size=8))
    for row in rows:
        pairs = row.pop("tags and weights")
        row["tags"] = None if pairs is None else [tag for tag, _ in pairs]
        row["tag_weights"] = None if pairs is None else [weight for _, weight in pairs]
    cuts = sorted({0, len(rows), *draw(st.lists(st.integers(0, len(rows)), max_size=2))})
    columns = {}
    for name, kinds in TYPES.items():
        kind = draw(st.sampled_from(kinds))
        values = [row[name] for row in rows]
        if pa.types.is_boolean(kind):
            values = [None if value is None else bool(value) for value in values]
        around = values[-1:] + values + values[:1]
        is_dictionary = pa.types.is_dictionary(kind)
        whole = pa.array(around, kind.value_type if is_dictionary else kind)
        first = min(1, len(rows))
        chunks = [
            whole.slice(first + start, stop - start) for start, stop in itertools.pairwise(cuts)
        ]
        if is_dictionary:  # each chunk with a dictionary of its own
            chunks = [chunk.dictionary_encode() for chunk in chunks]
        columns[name] = pa.chunked_array(chunks, kind)
    return pa.table(columns)


def naive_id(value: Any, *, name: str) -> int:
    feature = DATA.features[name]
    assert isinstance(feature, IdFeature | IdListFeature)
    if value is None:
        return 0
    if feature.encoding == "direct":
        return int(value)
    [hashed] = hash_ids(pa.array([value]))
    return 1 + int(hashed) % (NUM_ROWS[name] - 1)


def naive_number(value: float | None, *, log: bool, mean: float, std: float) -> float:
    if value is None or math.isnan(value):
        return math.nan
    return ((math.log(1 + value) if log else value) - mean) / std


def naive_dense(value: float | None, *, feature: DenseFeature) -> float:
    if value is None or math.isnan(value):
        if feature.fill is None:
            return 0.0
        value = feature.fill
    if feature.clip is not None:
        value = min(max(value, feature.clip[0]), feature.clip[1])
    mean, std = fitted_number(feature.mean), fitted_number(feature.std)
    return naive_number(value, log=feature.log, mean=mean, std=std)


def naive_row(row: dict[str, Any]) -> dict[str, Any]:
    """What one row becomes, by feature and task."""
    result: dict[str, Any] = {}
    for name, feature in DATA.features.items():
        value = row[feature.column or name]
        if isinstance(feature, IdFeature):
            result[name] = naive_id(value, name=name)
        elif isinstance(feature, IdListFeature):
            kept = (value or [])[-feature.max_length :]
            result[name] = [naive_id(item, name=name) for item in kept]
            if feature.weights is not None:
                weights = (row[feature.weights] or [])[-feature.max_length :]
                result[f"{name} weights"] = [1 if item is None else item for item in weights]
        elif isinstance(feature, DenseVectorFeature):
            result[name] = value or [0.0] * feature.length
        else:
            result[name] = naive_dense(value, feature=feature)
    for name, task in DATA.tasks.items():
        label = row[name]
        if task.where is not None and row[task.where] != 1:
            label = None
        is_regression = isinstance(task, RegressionTask)
        log, mean, std = (task.log, task.mean, task.std) if is_regression else (False, 0.0, 1.0)
        result[f"label {name}"] = naive_number(
            label, log=log, mean=fitted_number(mean), std=fitted_number(std)
        )
    return result


def assert_rows(encoded: EncodedRows, expected: list[dict[str, Any]]) -> None:
    assert len(encoded) == len(expected)
    assert encoded.ids_FR.dtype == np.int32
    assert encoded.dense_DR.dtype == encoded.labels_TR.dtype == np.float32
    for index, row in enumerate(expected):
        assert encoded.ids_FR[:, index].tolist() == [row["user"], row["name"], row["country"]]
        for ragged, name in zip(encoded.lists, ("tags", "names", "places"), strict=True):
            start, stop = ragged.offsets_R[index : index + 2]
            assert ragged.values_N[start:stop].tolist() == row[name]
            if f"{name} weights" in row:
                assert ragged.weights_N is not None
                assert ragged.weights_N[start:stop].tolist() == row[f"{name} weights"]
        numbers = [row[name] for name in ("age", "paid", "is_new", "price", "change")]
        dense = [*row["look"], *numbers]
        np.testing.assert_allclose(encoded.dense_DR[:, index], dense, rtol=1e-6, atol=1e-6)
        labels = [row["label buy"], row["label click"], row["label watch"]]
        np.testing.assert_allclose(encoded.labels_TR[:, index], labels, rtol=1e-6, atol=1e-6)
    for ragged in encoded.lists:
        assert (ragged.values_N.dtype, ragged.offsets_R.dtype) == (np.int32, np.int64)
        assert ragged.weights_N is None or ragged.weights_N.dtype == np.float32
        assert len(ragged.values_N) == ragged.offsets_R[-1]
        assert len(ragged.offsets_R) == len(expected) + 1


@settings(deadline=None)
@given(tables())
def test_encode_is_the_row_by_row_loop(table: pa.Table) -> None:
    """Over nulls, slices, chunks, empty tables, and all types that a column may have."""
    expected = [naive_row(row) for row in table.to_pylist()]
    assert_rows(Encoder(DATA, num_rows=NUM_ROWS).encode(table), expected)


@settings(deadline=None, max_examples=20)
@given(tables())
def test_ids_of_a_table_that_int32_cannot_count_are_wider(table: pa.Table) -> None:
    """Of all tables then; the rows of the others are the same."""
    narrow = Encoder(DATA, num_rows=NUM_ROWS).encode(table)
    wide = Encoder(DATA, num_rows=NUM_ROWS | {"user": 2**31 + 1}).encode(table)
    assert wide.ids_FR.dtype == np.int64
    assert wide.ids_FR[1:].tolist() == narrow.ids_FR[1:].tolist()
    for wider, ragged in zip(wide.lists, narrow.lists, strict=True):
        assert wider.values_N.dtype == np.int64
        assert wider.values_N.tolist() == ragged.values_N.tolist()


def test_a_row_of_a_large_table_may_lie_beyond_int32() -> None:
    """Ids are hashed into all of its rows."""
    data = DataConfig.model_validate(
        {"features": {"user": {"kind": "id"}}, "tasks": {"click": {"kind": "binary"}}}
    )
    users = pa.array(range(100))
    table = pa.table({"user": users, "click": pa.nulls(100, pa.int8())})
    (rows_R,) = Encoder(data, num_rows={"user": 2**40}).encode(table).ids_FR
    assert rows_R.tolist() == [1 + int(hashed) % (2**40 - 1) for hashed in hash_ids(users)]
    assert rows_R.max() > 2**31


@settings(deadline=None)
@given(tables(), tables(), st.randoms(use_true_random=False))
def test_taking_and_joining_rows_is_that_of_lists(
    first: pa.Table, second: pa.Table, random: Any
) -> None:
    """Any rows, in any order, some of them twice."""
    expected = [naive_row(row) for table in (first, second) for row in table.to_pylist()]
    both = joined([Encoder(DATA, num_rows=NUM_ROWS).encode(table) for table in (first, second)])
    assert_rows(both, expected)
    rows = [random.randrange(len(expected)) for _ in range(7)] if expected else []
    assert_rows(taken(both, np.array(rows, np.int64)), [expected[row] for row in rows])


def encode_one(
    column: pa.Array, *, feature: dict[str, Any] | None = None, task: dict[str, Any] | None = None
) -> EncodedRows:
    """Encodes a table whose column `x` is a feature, or else a label."""
    features = {"x": feature} if feature else {"f": {"kind": "dense"}}
    tasks = {"y": {**task, "column": "x"}} if task else {"t": {"kind": "binary"}}
    zeros = pa.array(np.zeros(len(column)))
    table = pa.table({"x": column, "f": zeros, "t": zeros})
    data = DataConfig.model_validate({"features": features, "tasks": tasks})
    return Encoder(data, num_rows={"x": 10}).encode(table)


@pytest.mark.parametrize("is_list", [False, True])
@pytest.mark.parametrize("wrong", [-1, 10, 2**40])
def test_a_direct_id_outside_its_table_is_refused(wrong: int, is_list: bool) -> None:
    """Naming the column, the id and the range; the lookup itself would read other memory."""
    values = [[0, 9], [None, wrong]] if is_list else [0, 9, None, wrong]
    feature = {"kind": "id_list" if is_list else "id", "encoding": "direct"}
    with pytest.raises(SchemaError, match=rf"column x: id {wrong} lies outside.*0 to 9"):
        encode_one(pa.array(values), feature=feature)


def test_an_id_beyond_64_bits_of_sign_is_refused_or_hashed() -> None:
    """The largest unsigned id is not row -1."""
    ids = pa.array([2**64 - 1], pa.uint64())
    with pytest.raises(SchemaError, match="lies outside"):
        encode_one(ids, feature={"kind": "id", "encoding": "direct"})
    assert 1 <= encode_one(ids, feature={"kind": "id"}).ids_FR[0, 0] <= 9


def test_more_ids_than_a_window_can_count_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would overwrite each other; two settings make windows smaller."""
    monkeypatch.setattr(list_encoding, "MAX_IDS", 3)
    feature = {"kind": "id_list"}
    assert encode_one(pa.array([[1, 2], [3]]), feature=feature).lists[0].offsets_R[-1] == 3
    with pytest.raises(InputError, match=r"2 rows has lists of 4 ids; .* lower data\.shuffle_rows"):
        encode_one(pa.array([[1, 2], [3, 4]]), feature=feature)


def test_what_hides_behind_a_null_list_is_not_read() -> None:
    """Arrow allows any values there; a null list is an empty one."""
    lists = pa.ListArray.from_arrays(
        pa.array([0, 2, 4, 5]), pa.array([1, 2, 3, 4, 5]), mask=pa.array([False, True, False])
    )
    [ragged] = encode_one(lists, feature={"kind": "id_list", "encoding": "direct"}).lists
    assert ragged.values_N.tolist() == [1, 2, 5]
    assert ragged.offsets_R.tolist() == [0, 2, 2, 3]


@pytest.mark.parametrize("wrong", [-0.5, 1.5, 2, -1, math.inf, -math.inf])
def test_a_binary_label_outside_zero_to_one_is_refused(wrong: float) -> None:
    """Naming column, task and value; soft labels between are fine."""
    assert encode_one(pa.array([0, 0.3, 1.0]), task={"kind": "binary"}).labels_TR.shape == (1, 3)
    with pytest.raises(SchemaError, match=rf"column x: label {wrong:g} of the binary task y"):
        encode_one(pa.array([0.0, None, wrong]), task={"kind": "binary"})


def test_a_label_outside_its_range_counts_only_where_it_is_observed() -> None:
    """Logs put -1 where there was no click."""
    data = DataConfig.model_validate(
        {
            "features": {"f": {"kind": "dense"}},
            "tasks": {"buy": {"kind": "binary", "where": "click"}},
        }
    )
    table = pa.table({"f": [0.0, 0.0], "buy": [-1, 1], "click": [0, 1]})
    labels = Encoder(data, num_rows={}).encode(table).labels_TR[0]
    np.testing.assert_array_equal(labels, [np.nan, 1])


@pytest.mark.parametrize("wrong", [math.inf, -math.inf, 1e39, -1e300])
@pytest.mark.parametrize("part", ["dense", "regression"])
def test_a_number_that_float32_cannot_hold_is_refused(part: str, wrong: float) -> None:
    """It would train as infinity; a missing one is null or NaN."""
    column = pa.array([1.0, None, math.nan, wrong])
    arguments = {"feature" if part == "dense" else "task": {"kind": part}}
    with pytest.raises(SchemaError, match=r"column x: value .* expected a finite number"):
        encode_one(column, **arguments)


@pytest.mark.parametrize("part", ["dense", "regression"])
def test_a_negative_number_has_no_logarithm(part: str) -> None:
    """Refused before numpy makes a NaN, which would count as missing; zero is fine."""
    arguments = {"feature" if part == "dense" else "task": {"kind": part, "log": True}}
    encode_one(pa.array([0.0, 1.0]), **arguments)
    with pytest.raises(SchemaError, match=r"column x: value -0\.25; expected .*log: true"):
        encode_one(pa.array([1.0, None, -0.25]), **arguments)


def test_row_zero_is_for_missing_ids_only() -> None:
    """No hash falls on it, whatever the id."""
    ids = encode_one(pa.array(range(2000)), feature={"kind": "id"}).ids_FR[0]
    assert set(ids.tolist()) == set(range(1, 10))


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([[1.0, 2.0], None, [3.0]], r"a vector of 1 numbers; expected 2 \(length\)"),
        ([[1.0, 2.0], []], "a vector of 0 numbers; expected 2"),
        ([[1.0, math.nan]], "number in a vector is nan; expected a finite number"),
        ([None, [1.0, None]], "number in a vector is nan"),
        ([[-math.inf, 0.0]], "number in a vector is -inf"),
        ([[1e39, 0.0]], r"number in a vector is 1e\+39"),
    ],
)
def test_a_vector_with_holes_is_refused(vectors: list[Any], message: str) -> None:
    """In one line that names the column; a whole vector may be missing."""
    with pytest.raises(SchemaError, match=rf"^column x: {message}.*$"):
        encode_one(pa.array(vectors), feature={"kind": "dense_vector", "length": 2})


def encode_weighted(ids: list[Any], lists: list[Any], **keys: Any) -> Ragged:
    """A list feature x whose weights, if `keys` does not say otherwise, are column w."""
    feature = {"kind": "id_list", "encoding": "direct", "weights": "w", "max_length": 2, **keys}
    data = DataConfig.model_validate(
        {"features": {"x": feature}, "tasks": {"t": {"kind": "binary"}}}
    )
    column = pa.array(lists, pa.list_(pa.float32()))
    table = pa.table({"x": ids, "w": column, "t": np.zeros(len(ids))})
    [ragged] = Encoder(data, num_rows={"x": 10}).encode(table).lists
    return ragged


def test_weights_follow_their_ids() -> None:
    """The last ones of both are kept; a null list is an empty one, whichever of the two it is."""
    ragged = encode_weighted([[1, 2, 3], None, [], [4]], [[0.1, 0.2, None], [], None, [0.4]])
    assert ragged.values_N.tolist() == [2, 3, 4]
    assert ragged.offsets_R.tolist() == [0, 2, 2, 2, 3]
    np.testing.assert_array_equal(ragged.weights_N, np.array([0.2, 1, 0.4], np.float32))


@pytest.mark.parametrize(
    ("ids", "weights", "message"),
    [
        (
            [[1], [1, 2, 3]],
            [[1.0], [1.0]],
            "column w: a list of 1 weights beside 3 ids in column x",
        ),
        ([[1]], [None], "column w: a list of 0 weights beside 1 ids in column x"),
        ([[1]], [[math.nan]], "column w: weight is nan; expected a finite number"),
        ([[1]], [[math.inf]], "column w: weight is inf"),
    ],
)
def test_weights_that_do_not_fit_are_refused(ids: Any, weights: Any, message: str) -> None:
    """Naming both columns and lengths; NaN is no weight, null is 1."""
    with pytest.raises(SchemaError, match=message):
        encode_weighted(ids, weights)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [("w", [0.25, 0.75, 0, 0, 1]), (None, [0.5, 0.5, 0.5, 0.5, 1])],
)
def test_weights_may_be_made_to_sum_to_one(weights: str | None, expected: list[float]) -> None:
    """Those that `max_length` leaves; all 0 if they were; without a column they are equal."""
    ids = [[9, 1, 2], None, [3, 4], [5]]
    given = [[7.0, 1.0, 3.0], None, [0.0, 0.0], [None]]
    ragged = encode_weighted(ids, given, weights=weights, weights_sum_to_one=True)
    assert ragged.values_N.tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_array_equal(ragged.weights_N, np.array(expected, np.float32))


def test_negative_weights_do_not_sum_to_one() -> None:
    """Their sum may be 0 or less."""
    assert encode_weighted([[1, 2]], [[-1.0, 1.0]]).weights_N is not None
    with pytest.raises(SchemaError, match="column w: weight is -1; expected 0 or more"):
        encode_weighted([[1, 2]], [[-1.0, 1.0]], weights_sum_to_one=True)


def test_what_hides_behind_a_null_vector_is_not_read() -> None:
    """Arrow keeps numbers there in a list of fixed size."""
    values = pa.array([1.0, 2.0, math.nan, math.inf, 5.0, 6.0])
    vectors = pa.FixedSizeListArray.from_arrays(values, 2, mask=pa.array([False, True, False]))
    encoded = encode_one(vectors.slice(1), feature={"kind": "dense_vector", "length": 2})
    np.testing.assert_array_equal(encoded.dense_DR.T, [[0, 0], [5, 6]])
