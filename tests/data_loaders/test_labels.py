"""Labels and example weights as they come from a log, and what of them is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import TypeAdapter

from data_loaders.config import DataConfig, Task
from data_loaders.errors import WrongRowsError
from data_loaders.label_columns import LabelColumns
from data_loaders.number_encoding import ExampleWeightEncoder, LabelEncoder
from data_loaders.transforms import Encoder


def labels_of(column: pa.Array, **task: Any) -> list[float]:
    out_R = np.empty(len(column), np.float32)
    config = TypeAdapter(Task).validate_python(task)
    LabelEncoder(config, name="y").write(column, None, out_R, np.arange(len(column)))
    return out_R.tolist()


@pytest.mark.parametrize(
    "column",
    [
        pa.array([3, 0, None, 2**24 - 1], pa.int32()),
        pa.array([3, 0, None, 2**24 - 1], pa.uint64()),
        pa.array([3.0, 0.0, math.nan, 2**24 - 1]),
    ],
)
def test_class_numbers_are_exact_up_to_the_largest(column: pa.Array) -> None:
    """Of any type of number; null and NaN are not observed."""
    found = labels_of(column, kind="multiclass", num_classes=2**24)
    assert found[:2] + found[3:] == [3.0, 0.0, 2**24 - 1]
    assert math.isnan(found[2])


@pytest.mark.parametrize(
    ("task", "labels", "num_wrong", "message"),
    [
        (
            {"kind": "multiclass", "num_classes": 3},
            [0, 3, -1],
            2,
            "column y: label 3 of the multiclass task y lies outside its range; expected an "
            "integer from 0 to 2, or null where not observed; number the classes from 0 on",
        ),
        (
            {"kind": "multiclass", "num_classes": 3},
            [0.5, 1.0, math.inf],
            2,
            "label 0.5 of the multiclass task y lies outside its range; expected an integer",
        ),
        (
            {"kind": "ranking"},
            [0.5, 4.0],
            1,
            "label 4 of the ranking task y lies outside its range; expected 0 to 1, or null",
        ),
        (
            {"kind": "regression", "loss": "lognormal"},
            [1.0, 0.0, -2.0],
            2,
            "label 0 of the regression task y lies outside its range; expected a number above 0 "
            "(loss: lognormal), or null where not observed; use loss: ziln for amounts that may",
        ),
        (
            {"kind": "regression", "loss": "lognormal", "std": 1e30},
            [1e-30],
            1,
            "label 1e-30 of the regression task y lies outside its range",
        ),
        (
            {"kind": "regression", "loss": "ziln"},
            [0.0, -0.5],
            1,
            "label -0.5 of the regression task y lies outside its range; expected a number of 0 or",
        ),
    ],
)
def test_impossible_labels_are_refused_in_one_line(
    task: dict[str, Any], labels: list[float], num_wrong: int, message: str
) -> None:
    """With the rows that hold them."""
    with pytest.raises(WrongRowsError) as caught:
        labels_of(pa.array(labels, pa.float64()), **task)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.is_wrong_R.sum() == num_wrong


def test_amounts_are_in_units_of_std() -> None:
    """Without a mean; what is not observed stays so."""
    found = labels_of(pa.array([5.0, 0.0, None]), kind="regression", loss="ziln", std=2.0)
    assert found[:2] == [2.5, 0.0]
    assert math.isnan(found[2])


def test_a_missing_example_weight_is_one() -> None:
    """Null and NaN; bools and integers are weights too."""
    encoder, out_R = ExampleWeightEncoder("w"), np.empty(4, np.float32)
    encoder.write(pa.array([0.5, None, math.nan, 0.0]), out_R, np.arange(4))
    assert out_R.tolist() == [0.5, 1.0, 1.0, 0.0]
    encoder.write(pa.array([True, None, False, True]), out_R, np.arange(4))
    assert out_R.tolist() == [1.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize("wrong", [-0.1, math.inf, 1e39])
def test_an_impossible_example_weight_is_refused(wrong: float) -> None:
    """Negative, or more than float32 holds."""
    with pytest.raises(WrongRowsError, match=r"column w: example weight is .*; expected a finite"):
        ExampleWeightEncoder("w").write(
            pa.array([1.0, wrong]), np.empty(2, np.float32), np.arange(2)
        )


def test_weights_stand_behind_the_labels_each_once() -> None:
    """In the order in which tasks name them; the column of a label may be a weight too."""
    config = DataConfig.model_validate(
        {
            "features": {"user": {"kind": "id"}},
            "tasks": {
                "click": {"kind": "binary", "example_weight": "b"},
                "watch": {"kind": "regression"},
                "buy": {"kind": "binary", "example_weight": "a"},
                "like": {"kind": "binary", "example_weight": "b"},
                "pay": {"kind": "binary", "example_weight": "watch"},
            },
        }
    )
    columns = LabelColumns.of(config)
    assert columns.weights == ("b", "a", "watch")
    assert columns.weight_of_task == (5, None, 6, 5, 7)
    assert (columns.num_columns, columns.log_q) == (8, None)
    table = pa.table(
        {"user": [7, 8]}
        | {name: [1.0, 0.0] for name in ("click", "buy", "like", "pay")}
        | {"watch": [4.0, None], "a": [2.0, 3.0], "b": [None, 0.25]}
    )
    found = Encoder(config, num_rows={"user": 10}).encode(table).labels_TR
    np.testing.assert_array_equal(found[1], [4.0, np.nan])
    np.testing.assert_array_equal(found[5:], [[1.0, 0.25], [2.0, 3.0], [4.0, 1.0]])
