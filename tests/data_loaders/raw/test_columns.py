"""What a recipe asks of a raw log, and what of it is fitted."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from data_loaders.config import DataConfig
from data_loaders.errors import SchemaError
from data_loaders.prepare import prepare_log
from data_loaders.prepare_config import PrepareConfig
from data_loaders.raw.columns import raw_columns
from data_loaders.row_groups import read_columns
from data_loaders.statistics import fitted_columns
from trainer.recipe_file import load_recipe, shipped_recipes


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_prepared_log_has_the_columns_that_the_loader_reads(name: str) -> None:
    """For every recipe that ships, and so for every kind of feature that they use."""
    recipe = load_recipe(name)
    columns = raw_columns(
        recipe.data, prepare=PrepareConfig(), num_rows=recipe.num_rows_of_feature()
    )
    assert {column.name for column in columns} == set(read_columns(recipe.data))
    assert all(column.is_written for column in columns)


def data_of(**features: Any) -> DataConfig:
    return DataConfig.model_validate(
        {"features": features, "tasks": {"click": {"kind": "binary", "where": "seen"}}}
    )


def test_a_column_that_is_read_twice_has_the_type_that_serves_both() -> None:
    """An id that is a number too is an integer."""
    data = data_of(
        hour={"kind": "id", "encoding": "direct"},
        hour_number={"kind": "dense", "column": "hour"},
        age={"kind": "id", "encoding": "quantiles"},
        ages={"kind": "dense", "column": "age"},
    )
    found = {item.name: item for item in raw_columns(data, prepare=PrepareConfig(), num_rows={})}
    assert found["hour"].type == "integer"
    assert found["age"].type == "number"
    prepare = PrepareConfig(unique=["request"], integers=["request"], ranges={"day": (0, None)})
    found = {item.name: item for item in raw_columns(data, prepare=prepare, num_rows={"hour": 24})}
    assert (found["request"].type, found["request"].is_written) == ("integer", False)
    assert (found["day"].type, found["day"].is_written) == ("number", False)
    assert [bounds.high for bounds in found["hour"].bounds if bounds.low == 0] == [23]


def test_labels_of_every_kind_and_weights_of_examples_have_their_bounds() -> None:
    """All of them are columns of the data set; classes are integers."""
    tasks = {
        "aisle": {"kind": "multiclass", "num_classes": 7, "example_weight": "importance"},
        "spent": {"kind": "regression", "loss": "ziln"},
        "grade": {"kind": "ranking", "where": "seen"},
    }
    data = DataConfig.model_validate({"features": {"user": {"kind": "id"}}, "tasks": tasks})
    found = {item.name: item for item in raw_columns(data, prepare=PrepareConfig(), num_rows={})}
    assert set(found) == set(read_columns(data))
    assert all(column.is_written for column in found.values())
    assert found["aisle"].type == "integer"
    wanted = {"aisle": (0, 6), "importance": (0, None), "spent": (0, None), "grade": (0, 1)}
    for name, limits in wanted.items():
        assert limits in [(bounds.low, bounds.high) for bounds in found[name].bounds]


def test_numbers_ids_and_labels_are_fitted() -> None:
    """A column that needs a vocabulary as ids; vectors and weights not at all."""
    data = data_of(
        user={"kind": "id"},
        item={"kind": "id", "encoding": "vocabulary"},
        item_number={"kind": "dense", "column": "item"},
        hour={"kind": "id", "encoding": "direct"},
        hour_number={"kind": "dense", "column": "hour"},
        tags={"kind": "id_list", "weights": "tag_weights"},
        age={"kind": "id", "encoding": "quantiles"},
        image={"kind": "dense_vector", "length": 4},
    )
    ids = {"user", "item", "tags"}
    numbers = {"click", "seen", "hour", "age"}
    assert fitted_columns(data) == dict.fromkeys(ids, "id") | dict.fromkeys(numbers, "number")


def test_a_column_that_no_file_has_is_refused_by_who_asks_for_it(tmp_path: Path) -> None:
    """With the nearest name, before anything is written or a cluster is joined."""
    (tmp_path / "raw.csv").write_text("price,click,seen\n1,1,1\n")
    data = data_of(cost={"kind": "dense", "column": "preis"})
    expected = (
        r"^column preis \(data.features.cost\): expected a .*number, found no such column in any "
        r"file of --source; did you mean price\?$"
    )
    with pytest.raises(SchemaError, match=expected):
        prepare_log(
            data,
            prepare=PrepareConfig(),
            num_rows={},
            name="toy",
            sources=[str(tmp_path / "raw.csv")],
            out=str(tmp_path / "out"),
            cluster=contextlib.nullcontext(),
        )
    assert not (tmp_path / "out").exists()
