"""Numbers as the model reads them: one pass from a column to a row of the encoded features.

Shape legend: R rows.
"""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
from numba import njit

from data_loaders.columns import floats_of
from data_loaders.config import AnyTask, DenseFeature, fitted_number
from data_loaders.errors import WrongRowsError
from data_loaders.task_config import MulticlassTask, RegressionTask


def encode_dense(column: pa.Array, out_R: np.ndarray, *, name: str, feature: DenseFeature) -> None:
    """Writes float32, standardised; where null or NaN that of `fill`, or else 0, the mean.

    Raises:
        WrongRowsError: a number is infinite, or has no logarithm.
    """
    numbers_R = floats_of(column)
    if feature.fill is not None:
        numbers_R = np.where(np.isnan(numbers_R), numbers_R.dtype.type(feature.fill), numbers_R)
    if feature.clip is not None:
        numbers_R = np.clip(numbers_R, *feature.clip)
    _standardise(numbers_R, out_R, name=name, spec=feature, missing=0.0)


def encode_labels(
    column: pa.Array, where: pa.Array | None, out_R: np.ndarray, *, name: str, task: AnyTask
) -> None:
    """Writes float32 in the units of the loss; NaN where null, NaN, or outside `where`.

    Args:
        where: 1 where the label is observed; None if it always is.

    Raises:
        WrongRowsError: a label that is observed is impossible.
    """
    numbers_R = floats_of(column)
    if where is not None:
        numbers_R = np.where(floats_of(where) == 1, numbers_R, np.nan)
    if isinstance(task, RegressionTask):
        _standardise(numbers_R, out_R, name=task.column or name, spec=task, missing=math.nan)
        lowest = {"lognormal": "above 0", "ziln": "of 0 or more"}.get(task.loss)
        is_wrong_R = out_R <= 0 if task.loss == "lognormal" else out_R < 0
        expected = f"a number {lowest} (loss: {task.loss})"
        if lowest is None or not is_wrong_R.any():
            return
        remedy = "use loss: ziln for amounts that may be 0, and another loss for negative numbers"
    elif isinstance(task, MulticlassTask):
        is_wrong_R = ~np.isnan(numbers_R) & (numbers_R != np.floor(numbers_R))
        is_wrong_R |= (numbers_R < 0) | (numbers_R >= task.num_classes)
        expected = f"an integer from 0 to {task.num_classes - 1}"
        remedy = "number the classes from 0 on, or correct num_classes"
    else:
        is_wrong_R = (numbers_R < 0) | (numbers_R > 1)
        expected, remedy = "0 to 1", "use kind: regression for other numbers"
    if is_wrong_R.any():
        raise WrongRowsError(
            f"column {task.column or name}: label {numbers_R[is_wrong_R][0]:g} of the {task.kind} "
            f"task {name} lies outside its range; expected {expected}, or null where not observed; "
            f"{remedy}",
            is_wrong_R=is_wrong_R,
        )
    if not isinstance(task, RegressionTask):
        out_R[:] = numbers_R


def encode_example_weights(column: pa.Array, out_R: np.ndarray, *, name: str) -> None:
    """Writes float32, 1 where null or NaN.

    Raises:
        WrongRowsError: a weight is negative, or infinite.
    """
    numbers_R = floats_of(column)
    with np.errstate(over="ignore"):  # refused below
        out_R[:] = np.where(np.isnan(numbers_R), 1.0, numbers_R)
    is_wrong_R = (out_R < 0) | np.isinf(out_R)
    if is_wrong_R.any():
        raise WrongRowsError(
            f"column {name}: example weight is {numbers_R[is_wrong_R][0]:g}; expected a finite "
            "number >= 0, or null for a weight of 1; write the column anew",
            is_wrong_R=is_wrong_R,
        )


def _standardise(
    numbers_R: np.ndarray,
    out_R: np.ndarray,
    *,
    name: str,
    spec: DenseFeature | RegressionTask,
    missing: float,
) -> None:
    """Writes (f(x) - mean) / std, and `missing` for NaN."""
    mean, std = fitted_number(spec.mean), fitted_number(spec.std)
    scaled_R, lowest = numbers_R, -math.inf
    if spec.log:
        with np.errstate(all="ignore"):  # what has no logarithm is refused below
            scaled_R, lowest = np.log1p(numbers_R), 0.0
    wrong = _write_standardised(numbers_R, scaled_R, lowest, mean, std, missing, out_R)
    if wrong >= 0:
        expected = "a finite number >= 0 (log: true)" if spec.log else "a finite number"
        raise WrongRowsError(
            f"column {name}: value {numbers_R[wrong]:g}; expected {expected}, "
            "or null where missing; clean the log, or correct the recipe",
            is_wrong_R=np.isinf(out_R) | (numbers_R < lowest),
        )


@njit(cache=True, nogil=True, error_model="numpy")
def _write_standardised(
    numbers_R: np.ndarray,
    scaled_R: np.ndarray,
    lowest: float,
    mean: float,
    std: float,
    missing: float,
    out_R: np.ndarray,
) -> int:
    """Returns the first row whose number is below `lowest` or leads to infinity, or -1."""
    wrong = -1
    for r in range(len(numbers_R)):
        out_R[r] = missing if math.isnan(numbers_R[r]) else (scaled_R[r] - mean) / std
        if wrong < 0 and (math.isinf(out_R[r]) or numbers_R[r] < lowest):
            wrong = r
    return wrong
