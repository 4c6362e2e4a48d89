"""Numbers as the model reads them: one pass from a column to the places of its rows.

Shape legend: R rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numba import njit

from data_loaders.columns import NO_VALIDITY, floats_of, is_valid, raw_numbers, valid_of
from data_loaders.config import AnyTask, DenseFeature, fitted_number
from data_loaders.errors import WrongRowsError
from data_loaders.memory import frozen
from data_loaders.task_config import MulticlassTask, RegressionTask

# Numbers as they lie in memory, their validity bits, and where the first one's is among them.
Numbers = tuple[np.ndarray, np.ndarray, int]

ALL_OBSERVED = np.zeros(0, bool)


class DenseEncoder:
    """Standardises the numbers of one feature; several threads may share one.

    Args:
        feature: fitted.
        column: name of the numbers' column, for messages.
    """

    def __init__(self, feature: DenseFeature, *, column: str) -> None:
        self._feature = feature
        self._column = column
        self._scale = _Scale.of(feature, missing=0.0)

    def write(self, column: pa.Array, out_R: np.ndarray, place_R: np.ndarray) -> None:
        """Writes float32, standardised, to the places; where null or NaN that of `fill`, or else 0,
        the mean.

        Raises:
            WrongRowsError: a number is infinite, or has no logarithm.
        """
        if self._feature.fill is None and self._feature.clip is None:
            numbers = raw_numbers(column)
        else:
            numbers = self._filled(column), NO_VALIDITY, 0
        if not self._scale.write(numbers, ALL_OBSERVED, out_R, place_R):
            raise self._scale.error(self._filled(column), out_R[place_R], name=self._column)

    def _filled(self, column: pa.Array) -> np.ndarray:
        numbers_R, fill, clip = floats_of(column), self._feature.fill, self._feature.clip
        if fill is not None:
            numbers_R = np.where(np.isnan(numbers_R), numbers_R.dtype.type(fill), numbers_R)
        return numbers_R if clip is None else np.clip(numbers_R, *clip)


class LabelEncoder:
    """Brings the labels of one task into the units of its loss; several threads may share one.

    Args:
        task: fitted.
        name: of the task, for messages.
    """

    def __init__(self, task: AnyTask, *, name: str) -> None:
        self._name = name
        self._task = task
        self._column = task.column or name
        if isinstance(task, RegressionTask):
            self._scale = _Scale.of(task, missing=math.nan)
        else:
            highest = task.num_classes - 1.0 if isinstance(task, MulticlassTask) else 1.0
            self._scale = _Scale(missing=math.nan, lowest=0.0, highest=highest)

    def write(
        self, column: pa.Array, where: pa.Array | None, out_R: np.ndarray, place_R: np.ndarray
    ) -> None:
        """Writes float32 in the units of the loss to the places; NaN where null, NaN, or outside
        `where`.

        Args:
            where: 1 where the label is observed; None if it always is.

        Raises:
            WrongRowsError: a label that is observed is impossible.
        """
        is_observed_R = ALL_OBSERVED
        if where is not None:
            is_observed_R = raw_numbers(where)[0] == 1
            if where.null_count:
                is_observed_R &= valid_of(where)
        is_possible = self._scale.write(raw_numbers(column), is_observed_R, out_R, place_R)
        is_refused_R = self._is_refused(out_R, place_R)
        if is_possible and not is_refused_R.any():
            return
        numbers_R = floats_of(column)
        if where is not None:
            numbers_R = np.where(is_observed_R, numbers_R, np.nan)
        if isinstance(self._task, RegressionTask) and not is_possible:
            raise self._scale.error(numbers_R, out_R[place_R], name=self._column)
        outside_R = (numbers_R < self._scale.lowest) | (numbers_R > self._scale.highest)
        is_wrong_R = outside_R | is_refused_R
        expected, remedy = self._expected()
        raise WrongRowsError(
            f"column {self._column}: label {numbers_R[is_wrong_R][0]:g} of the {self._task.kind} "
            f"task {self._name} lies outside its range; expected {expected}, or null where not "
            f"observed; {remedy}",
            is_wrong_R=is_wrong_R,
        )

    def _is_refused(self, out_R: np.ndarray, place_R: np.ndarray) -> np.ndarray:
        """bool (R,): labels in the range that are impossible all the same; (1,), False, where
        the task refuses none, for to gather labels takes as long as to write them.
        """
        task = self._task
        if isinstance(task, MulticlassTask):
            labels_R = out_R[place_R]
            return (labels_R != np.floor(labels_R)) & ~np.isnan(labels_R)
        if isinstance(task, RegressionTask) and task.loss == "lognormal":
            return out_R[place_R] <= 0
        if isinstance(task, RegressionTask) and task.loss == "ziln":
            return out_R[place_R] < 0
        return np.zeros(1, bool)

    def _expected(self) -> tuple[str, str]:
        """In words, and what to do."""
        task = self._task
        if isinstance(task, MulticlassTask):
            remedy = "number the classes from 0 on, or correct num_classes"
            return f"an integer from 0 to {task.num_classes - 1}", remedy
        if isinstance(task, RegressionTask):
            lowest = "above 0" if task.loss == "lognormal" else "of 0 or more"
            return (
                f"a number {lowest} (loss: {task.loss})",
                "use loss: ziln for amounts that may be 0, and another loss for negative numbers",
            )
        return "0 to 1", "use kind: regression for other numbers"


class ExampleWeightEncoder:
    """Checks the weights of examples; several threads may share one.

    Args:
        column: of the log.
    """

    def __init__(self, column: str) -> None:
        self.column = column
        self._scale = _Scale(missing=1.0, lowest=0.0)

    def write(self, column: pa.Array, out_R: np.ndarray, place_R: np.ndarray) -> None:
        """Writes float32 to the places, 1 where null or NaN.

        Raises:
            WrongRowsError: a weight is negative, or infinite.
        """
        if self._scale.write(raw_numbers(column), ALL_OBSERVED, out_R, place_R):
            return
        numbers_R = floats_of(column)
        is_wrong_R = np.isinf(out_R[place_R]) | (numbers_R < 0)
        raise WrongRowsError(
            f"column {self.column}: example weight is {numbers_R[is_wrong_R][0]:g}; expected a "
            "finite number >= 0, or null for a weight of 1; write the column anew",
            is_wrong_R=is_wrong_R,
        )


@dataclass(frozen=True)
class _Scale:
    """How numbers become what the model reads.

    Attributes:
        missing: what is written for null and NaN.
        lowest: x that is possible.
        highest: x that is possible.
        mean: of f(x).
        std: of f(x).
        log: f is log(1 + x).
    """

    missing: float
    lowest: float = -math.inf
    highest: float = math.inf
    mean: float = 0.0
    std: float = 1.0
    log: bool = False

    @classmethod
    def of(cls, spec: DenseFeature | RegressionTask, *, missing: float) -> _Scale:
        return cls(
            missing=missing,
            lowest=0.0 if spec.log else -math.inf,
            mean=fitted_number(spec.mean),
            std=fitted_number(spec.std),
            log=spec.log,
        )

    def write(
        self, numbers: Numbers, is_observed_R: np.ndarray, out_R: np.ndarray, place_R: np.ndarray
    ) -> bool:
        """Writes (f(x) - mean) / std to the places; returns whether all are possible."""
        numbers_R, validity, offset = numbers
        numbers_R = scaled_R = frozen(numbers_R)
        if self.log:
            dtype = numbers_R.dtype if numbers_R.dtype.kind == "f" else np.float64
            with np.errstate(all="ignore"):  # what has no logarithm is refused
                scaled_R = frozen(np.log1p(numbers_R, dtype=dtype))
        raw = (numbers_R, validity, offset, scaled_R, is_observed_R)
        limits = (self.lowest, self.highest)
        return _write_scaled(*raw, *limits, self.mean, self.std, self.missing, place_R, out_R)

    def error(self, numbers_R: np.ndarray, scaled_R: np.ndarray, *, name: str) -> WrongRowsError:
        """About numbers that are impossible.

        Args:
            numbers_R: NaN where null or not observed.
            scaled_R: what was written for them.
        """
        is_wrong_R = np.isinf(scaled_R) | (numbers_R < self.lowest)
        expected = "a finite number >= 0 (log: true)" if self.log else "a finite number"
        return WrongRowsError(
            f"column {name}: value {numbers_R[is_wrong_R][0]:g}; expected {expected}, "
            "or null where missing; clean the log, or correct the recipe",
            is_wrong_R=is_wrong_R,
        )


def finite_float32(numbers: np.ndarray, *, name: str, what: str, remedy: str) -> np.ndarray:
    """The numbers as float32.

    Raises:
        WrongRowsError: one is none, or infinite, or too large.
    """
    with np.errstate(over="ignore"):  # refused below
        narrow = numbers.astype(np.float32)
    wrong = ~np.isfinite(narrow)
    if wrong.any():
        raise WrongRowsError(
            f"column {name}: {what} is {numbers[wrong][0]:g}; expected a finite number, {remedy}; "
            "write the column anew",
            is_wrong_R=wrong,
        )
    return narrow


@njit(cache=True, nogil=True, error_model="numpy")
def _write_scaled(
    numbers_R: np.ndarray,
    validity: np.ndarray,
    offset: int,
    scaled_R: np.ndarray,
    is_observed_R: np.ndarray,
    lowest: float,
    highest: float,
    mean: float,
    std: float,
    missing: float,
    place_R: np.ndarray,
    out_R: np.ndarray,
) -> bool:
    is_possible = True
    for r in range(len(numbers_R)):
        value = np.float32(missing)
        is_given = is_valid(validity, offset + r) and not math.isnan(numbers_R[r])
        if is_given and (len(is_observed_R) == 0 or is_observed_R[r]):
            scaled = scaled_R[r] - mean
            value = np.float32(scaled if std == 1 else scaled / std)  # to divide takes long
            if math.isinf(value) or numbers_R[r] < lowest or numbers_R[r] > highest:
                is_possible = False
        out_R[place_R[r]] = value
    return is_possible
