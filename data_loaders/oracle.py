"""What the ground truth itself reaches on the labels drawn from it: the best that is possible.

Shape legend: N examples, Q bins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Floats = npt.NDArray[np.floating]

# log_regression: the truth is the mean of log(1 + label)
TaskKind = Literal["binary", "regression", "log_regression"]

IS_NEW = "_is_new"


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


class SplitBest:
    """The best possible on each task of a split: `best` of `dataset.json`.

    Where the split has a column FEATURE_is_new, 1 for an id that cannot occur in train, a binary
    task has `auc_FEATURE_cold` beside `auc`, over the examples with new ids, and `auc_FEATURE_warm`
    over the others.
    """

    def __init__(self, tasks: Mapping[str, TaskKind]) -> None:
        self.tasks = dict(tasks)
        self.whole = {task: best_of(kind) for task, kind in tasks.items()}
        self.parts: dict[tuple[str, str], BinaryBest] = {}  # by task and metric

    def add(self, table: pa.Table) -> None:
        """Counts a split's next examples, with columns TASK and truth_TASK for each task."""
        features = [name for name in table.column_names if name.endswith(IS_NEW)]
        for task, whole in self.whole.items():
            observed_N = table[task].is_valid().to_numpy()
            truth_N = table[f"truth_{task}"].to_numpy()[observed_N]
            labels_N = table[task].to_numpy()[observed_N]
            whole.add(truth=truth_N, labels=labels_N)
            for feature in features if self.tasks[task] == "binary" else ():
                is_new_N = table[feature].to_numpy()[observed_N] == 1
                for part, is_in_N in (("cold", is_new_N), ("warm", ~is_new_N)):
                    key = task, f"auc_{feature.removesuffix(IS_NEW)}_{part}"
                    scores = self.parts.setdefault(key, BinaryBest())
                    scores.add(truth=truth_N[is_in_N], labels=labels_N[is_in_N])

    def metrics(self) -> dict[str, dict[str, float]]:
        """Each task's metrics; those that are not defined are left out."""
        results = {task: scores.metrics() for task, scores in self.whole.items()}
        for (task, metric), scores in self.parts.items():
            if "auc" in (known := scores.metrics()):
                results[task][metric] = known["auc"]
        return results
