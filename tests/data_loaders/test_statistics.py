"""Statistics of columns against numpy and pandas; the same bytes however the rows were cut."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loaders.config import DataConfig
from data_loaders.errors import SchemaError
from data_loaders.statistics import Fitter, IdFit, IdStatistics, NumberFit, fitted_columns
from data_loaders.storage import locate
from tests.helpers.logs import toy_recipe, toy_table

COLUMNS = fitted_columns(DataConfig.model_validate(toy_recipe("log")["data"]))


def files_of(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def fitted(*fitters: Fitter) -> tuple[str, dict[str, bytes]]:
    """The merged fit as JSON, and the bytes of the vocabularies."""
    first, *others = fitters
    for other in others:
        first.merge(other)
    with tempfile.TemporaryDirectory() as folder:
        columns = first.write(locate(folder))
        text = json.dumps({name: item.model_dump() for name, item in columns.items()})
        return text, files_of(Path(folder))


def fitter_of(*tables: pa.Table) -> Fitter:
    fitter = Fitter(COLUMNS)
    assert list(fitter.watch(tables)) == list(tables)
    return fitter


@pytest.mark.parametrize("encoding", ["hash", "direct", "quantiles", "vocabulary"])
@pytest.mark.parametrize("order", list(itertools.permutations(["as_id", "as_number"])))
def test_a_column_read_both_ways_is_numbers_unless_its_ids_need_a_vocabulary(
    encoding: str, order: tuple[str, ...]
) -> None:
    """In whatever order the recipe names the features."""
    features = {
        "as_id": {"kind": "id", "column": "age", "encoding": encoding},
        "as_number": {"kind": "dense", "column": "age", "mean": "fit", "std": "fit"},
    }
    tree = {
        "features": {name: features[name] for name in order},
        "tasks": {"click": {"kind": "binary"}},
    }
    expected = "id" if encoding == "vocabulary" else "number"
    assert fitted_columns(DataConfig.model_validate(tree)) == {"age": expected, "click": "number"}


@settings(max_examples=20)
@given(st.lists(st.integers(0, 300), max_size=6), st.permutations(range(7)), st.integers(0, 9))
def test_the_same_rows_give_the_same_bytes(cuts: list[int], order: list[int], seed: int) -> None:
    """However they are cut into tables, ordered, and spread over fitters that merge."""
    table = toy_table(300, seed=seed)
    bounds = [0, *sorted(cuts), 300]
    pieces = [table.slice(low, high - low) for low, high in itertools.pairwise(bounds)]
    shuffled = [pieces[index] for index in order if index < len(pieces)]
    whole = fitted(fitter_of(table))
    assert fitted(fitter_of(*shuffled)) == whole
    assert fitted(*map(fitter_of, shuffled)) == whole
    rows = np.random.default_rng(seed).permutation(300)
    assert fitted(fitter_of(table.take(rows))) == whole


def test_numbers_are_those_of_numpy() -> None:
    """Null and NaN are missing; the logarithm's moments are given where it has any."""
    values = [3.0, None, float("nan"), 0.25, 700.0, 0.0]
    fit = NumberFit()
    fit.add(pa.array(values))
    found = fit.result()
    known = np.array([3.0, 0.25, 700.0, 0.0])
    assert found is not None
    assert (found.count, found.missing, found.min, found.max) == (4, 2, 0.0, 700.0)
    assert found.mean == pytest.approx(known.mean(), rel=1e-15)
    assert found.std == pytest.approx(known.std(), rel=1e-15)
    assert found.log_mean == pytest.approx(np.log1p(known).mean(), rel=1e-11)
    assert found.log_std == pytest.approx(np.log1p(known).std(), rel=1e-11)
    assert found.quantiles == pytest.approx(np.quantile(known, np.arange(101) / 100).tolist())


def test_a_negative_number_has_no_logarithm() -> None:
    """From whichever part it comes."""
    fits = [NumberFit(), NumberFit()]
    fits[0].add(pa.array([1, 2], pa.int8()))
    fits[1].add(pa.array([True, False]))
    fits[1].add(pa.array([-1.5], pa.float32()))
    fits[0].merge(fits[1])
    found = fits[0].result()
    assert found is not None
    assert (found.log_mean, found.log_std, found.min, found.count) == (None, None, -1.5, 5)


@given(st.lists(st.none() | st.lists(st.none() | st.integers(-3, 3), max_size=5), max_size=20))
def test_ids_are_counted_as_a_counter_does(lists: list[Any]) -> None:
    """Over all lists; by falling count, then by rising id."""
    fit = IdFit()
    for part in (lists[:7], lists[7:]):
        fit.add(pa.array(part, pa.list_(pa.int16())))
    counter = Counter(item for items in lists for item in items or [] if item is not None)
    expected = sorted(counter.items(), key=lambda pair: (-pair[1], pair[0]))
    assert [tuple(row.values()) for row in fit.result().to_pylist()] == expected


def test_vocabularies_are_parquet_files_that_the_statistics_name(tmp_path: Path) -> None:
    """Strings, dictionaries of strings and lists of strings; a column's name may hold a slash."""
    table = pa.table({"a/b": ["y", "x", None, "y"], "tags": [["p"], [], None, ["p", "ö"]]})
    table = table.add_column(0, "d", pa.array(["k", "k", None, "j"]).dictionary_encode())
    fitter = Fitter({"a/b": "id", "tags": "id", "d": "id"})
    fitter.add(table)
    columns = fitter.write(locate(str(tmp_path)))
    found = columns["a/b"]
    assert isinstance(found, IdStatistics)
    assert (found.count, found.missing, found.distinct) == (3, 1, 2)
    expected = {"a/b": {"y": 2, "x": 1}, "tags": {"p": 2, "ö": 1}, "d": {"k": 2, "j": 1}}
    for name, counts in expected.items():
        statistics = columns[name]
        assert isinstance(statistics, IdStatistics)
        vocabulary = pq.read_table(tmp_path / statistics.vocabulary)
        assert dict(zip(*vocabulary.to_pydict().values(), strict=True)) == counts


def test_columns_without_values_do_no_harm(tmp_path: Path) -> None:
    """No number has no mean: it is left out; no id is an empty vocabulary."""
    fitter = Fitter({"x": "number", "user": "id"})
    fitter.add(pa.table({"x": pa.nulls(2, pa.float64()), "user": pa.nulls(2)}))
    columns = fitter.write(locate(str(tmp_path)))
    assert set(columns) == {"user"}
    found = columns["user"]
    assert isinstance(found, IdStatistics)
    assert (found.count, found.missing, found.distinct) == (0, 2, 0)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        ("number", pa.array(["1"]), "column x: expected numbers or bools, found string"),
        ("number", pa.array([1.0, float("inf")]), "column x: expected finite numbers, found inf"),
        ("id", pa.array([1.5]), "column x: expected ids"),
    ],
)
def test_what_cannot_be_fitted_is_named(kind: Any, values: pa.Array, message: str) -> None:
    """Column, expected, found."""
    with pytest.raises(SchemaError, match=message):
        Fitter({"x": kind}).add(pa.table({"x": values}))
