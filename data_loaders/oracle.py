"""What the ground truth itself reaches on the labels drawn from it: the best that is possible.

Shape legend: N examples, Q bins.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]

# log_regression: the truth is the mean of log(1 + label)
TaskKind = Literal["binary", "regression", "log_regression"]


class BinaryBest:
    """AUC and normalised entropy of the truth against the labels drawn from it, in bounded memory.

    The AUC is by counts in 262,144 bins of the logit from -16 to 16; a pair of labels in one bin
    counts as tied. That errs by less than 1e-4 once there are 1,000 labels.
    """

    num_bins = 262_144
    limit = 16.0

    def __init__(self) -> None:
        self.negatives_Q = np.zeros(self.num_bins, dtype=np.int64)
        self.positives_Q = np.zeros(self.num_bins, dtype=np.int64)
        self.cross_entropy = 0.0

    def add(self, *, truth: Floats, labels: Floats) -> None:
        """Counts observed labels, 0 or 1, and their true probabilities, neither 0 nor 1."""
        log_truth_N, log_rest_N = np.log(truth), np.log1p(-truth)
        fraction_N = (log_truth_N - log_rest_N + self.limit) / (2 * self.limit)
        bins_N = np.clip((fraction_N * self.num_bins).astype(np.int64), 0, self.num_bins - 1)
        self.negatives_Q += np.bincount(bins_N[labels == 0], minlength=self.num_bins)
        self.positives_Q += np.bincount(bins_N[labels == 1], minlength=self.num_bins)
        self.cross_entropy -= float(np.where(labels == 1, log_truth_N, log_rest_N).sum())

    def metrics(self) -> dict[str, float]:
        """`auc` and `normalized_entropy`; nothing where all labels are the same."""
        num_negatives, num_positives = float(self.negatives_Q.sum()), float(self.positives_Q.sum())
        if not num_negatives or not num_positives:
            return {}
        num_below_Q = np.cumsum(self.negatives_Q) - 0.5 * self.negatives_Q
        num_labels = num_negatives + num_positives
        base_entropy = -sum(n * math.log(n / num_labels) for n in (num_negatives, num_positives))
        return {
            "auc": float(self.positives_Q @ num_below_Q) / (num_positives * num_negatives),
            "normalized_entropy": self.cross_entropy / base_entropy,
        }


class RegressionBest:
    """Mean squared error of the truth: the label's mean, or with `log` that of log(1 + label)."""

    def __init__(self, *, log: bool) -> None:
        self.log = log
        self.num_labels = 0
        self.sum_squares = 0.0

    def add(self, *, truth: Floats, labels: Floats) -> None:
        values_N = np.log1p(labels) if self.log else labels
        self.num_labels += len(labels)
        self.sum_squares += float(np.square(values_N - truth).sum())

    def metrics(self) -> dict[str, float]:
        """`mse`; nothing where no label is observed."""
        return {"mse": self.sum_squares / self.num_labels} if self.num_labels else {}


def best_of(kind: TaskKind) -> BinaryBest | RegressionBest:
    """What measures the best possible on a task of this kind."""
    return BinaryBest() if kind == "binary" else RegressionBest(log=kind == "log_regression")
