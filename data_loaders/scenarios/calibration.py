"""From a task's signal, a sum of effects, to its truth and its labels, at the rates it states.

Shape legend: N examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.random import Generator

from data_loaders.oracle import TaskKind
from data_loaders.scenarios.draws import Bools, Floats

NUM_PILOT_EXAMPLES = 20_000


@dataclass(frozen=True)
class Target:
    """What a task's truth should look like, over the examples where its label is observed.

    Binary: `center` is the rate, `spread` the standard deviation of the true logits; 1.4 to 1.7
    make a best AUC of 0.80 to 0.85. Regression: mean and standard deviation of the true means.
    """

    center: float
    spread: float
    given: str | None = None  # a binary task, earlier in order, that must be 1


@dataclass(frozen=True)
class Scale:
    """logit, or mean = offset + slope * signal"""

    offset: float
    slope: float


def calibrate(
    signals: Mapping[str, Floats],
    *,
    tasks: Mapping[str, TaskKind],
    targets: Mapping[str, Target],
) -> dict[str, Scale]:
    """The scales with which the signals, of a pilot sample, meet their targets."""
    scales: dict[str, Scale] = {}
    is_one: dict[str, Floats] = {}  # the probability that a binary task is observed and 1
    for task, signal_N in signals.items():
        target = targets[task]
        weights_N = None if target.given is None else is_one[target.given]
        mean, std = _mean_and_std(signal_N, weights=weights_N)
        slope = target.spread / std
        offset = target.center - slope * mean
        if tasks[task] == "binary":
            offset = _offset_for_rate(slope * signal_N, rate=target.center, weights=weights_N)
            rate_N = sigmoid(offset + slope * signal_N)
            is_one[task] = rate_N if weights_N is None else weights_N * rate_N
        scales[task] = Scale(offset=offset, slope=slope)
    return scales


def truth_of(
    signals: Mapping[str, Floats],
    *,
    tasks: Mapping[str, TaskKind],
    targets: Mapping[str, Target],
    scales: Mapping[str, Scale],
) -> dict[str, Floats]:
    """Each task's probability, or its mean kept within 3 spreads of the center; float64 (N,)."""
    truth = {}
    for task, signal_N in signals.items():
        value_N = scales[task].offset + scales[task].slope * signal_N.astype(np.float64)
        if tasks[task] == "binary":
            truth[task] = sigmoid(value_N)
        else:
            center, reach = targets[task].center, 3 * targets[task].spread
            truth[task] = np.clip(value_N, center - reach, center + reach)
    return truth


def binary_labels(
    rng: Generator,
    *,
    truth: Mapping[str, Floats],
    tasks: Mapping[str, TaskKind],
    targets: Mapping[str, Target],
) -> dict[str, pa.Array]:
    """Draws the binary tasks' labels; int8 (N,), null where the task they are given is not 1."""
    labels: dict[str, pa.Array] = {}
    is_one: dict[str, Bools] = {}
    for task, kind in tasks.items():
        if kind != "binary":
            continue
        given = targets[task].given
        observed_N = np.ones(len(truth[task]), dtype=bool) if given is None else is_one[given]
        is_one[task] = observed_N & (rng.random(len(observed_N)) < truth[task])
        labels[task] = pa.array(is_one[task].astype(np.int8), mask=~observed_N)
    return labels


def sigmoid(logits: Floats) -> Floats:
    return 1 / (1 + np.exp(-logits))


def _mean_and_std(values: Floats, *, weights: Floats | None) -> tuple[float, float]:
    mean = np.average(values, weights=weights)
    return float(mean), float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))


def _offset_for_rate(logits: Floats, *, rate: float, weights: Floats | None) -> float:
    """What to add to the logits for a mean probability of `rate`, by bisection."""
    low, high = -30.0, 30.0
    for _ in range(50):
        middle = (low + high) / 2
        if np.average(sigmoid(logits + middle), weights=weights) < rate:
            low = middle
        else:
            high = middle
    return low
