"""Metrics of a yes or no.

Shape legend: B examples on this rank, T binary tasks, Q bins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from trainer.losses import TaskBatch
from trainer.losses.task_loss import ExampleLoss
from trainer.metrics.calibration import Curve, calibration_curve
from trainer.metrics.histogram import NUM_BINS, add_scores, area
from trainer.metrics.kind_metrics import KindMetrics, Result, ratio

_LABEL, _PREDICTION, _LOSS, _ENTROPY, _WEIGHT, _COUNT = range(6)


class BinaryMetrics(KindMetrics):
    """`loss`, `auc`, `normalized_entropy` (cross entropy over the entropy of the base rate),
    `calibration` (mean prediction over mean label), and at a threshold of 0.5 `accuracy`,
    `precision`, `recall`, `f1`.
    """

    def shapes(self) -> list[tuple[int, ...]]:
        return [(6, len(self.tasks)), (len(self.tasks), 2, NUM_BINS)]

    def update(self, batches: Sequence[TaskBatch], *, sums_3T: Tensor) -> None:
        sums_6T, histogram_T2Q = self.sums(self.state)
        seen = [batch.masked(placeholder=0.0) for batch in batches]
        logits_BT = torch.cat([batch.outputs_BK for batch in seen], dim=1)
        labels_BT = torch.stack([batch.labels_B for batch in seen], dim=1)
        weights_BT = torch.stack([batch.weights_B for batch in seen], dim=1)
        losses = []
        for task, batch in zip(self.tasks, seen, strict=True):
            assert isinstance(task, ExampleLoss)
            losses.append(task.losses(batch.outputs_BK, batch.labels_B))
        entropy_BT = functional.binary_cross_entropy_with_logits(
            logits_BT, labels_BT, reduction="none"
        )
        terms = [labels_BT, torch.sigmoid(logits_BT), torch.stack(losses, dim=1), entropy_BT]
        sums_6T[:_WEIGHT] += torch.stack([(term * weights_BT).sum(0) for term in terms])
        sums_6T[_WEIGHT] += weights_BT.sum(0)
        sums_6T[_COUNT] += torch.stack([batch.given_B.sum() for batch in seen])
        add_scores(
            histogram_T2Q,
            logits_BT,
            low_BH=(1 - labels_BT) * weights_BT,
            high_BH=labels_BT * weights_BT,
        )

    def results(self, state: Tensor) -> list[Result]:
        sums_6T, histogram_T2Q = self.sums(state)
        return [
            _result(sums_6, histogram_2Q)
            for sums_6, histogram_2Q in zip(sums_6T.T, histogram_T2Q, strict=True)
        ]

    def curves(self, state: Tensor) -> list[Curve | None]:
        _, histogram_T2Q = self.sums(state)
        return [calibration_curve(histogram_2Q) for histogram_2Q in histogram_T2Q]


def _result(sums: Tensor, histogram_2Q: Tensor) -> Result:
    weight = float(sums[_WEIGHT])
    mean_entropy, rate = ratio(sums[_ENTROPY], weight), ratio(sums[_LABEL], weight)
    negatives_Q, positives_Q = histogram_2Q
    is_yes = NUM_BINS // 2  # logit 0, a probability of 0.5
    true_positives, positives = float(positives_Q[is_yes:].sum()), float(positives_Q.sum())
    false_positives, negatives = float(negatives_Q[is_yes:].sum()), float(negatives_Q.sum())
    return {
        "loss": ratio(sums[_LOSS], weight),
        "auc": area(histogram_2Q),
        "normalized_entropy": None if mean_entropy is None else ratio(mean_entropy, _entropy(rate)),
        "calibration": ratio(sums[_PREDICTION], sums[_LABEL]),
        "accuracy": ratio(true_positives + negatives - false_positives, weight),
        "precision": ratio(true_positives, true_positives + false_positives),
        "recall": ratio(true_positives, positives),
        "f1": ratio(2 * true_positives, true_positives + false_positives + positives),
        "examples": float(sums[_COUNT]),
    }


def _entropy(rate: float | None) -> float:
    """Of a coin with this rate, nats; 0 for a certain one."""
    if rate is None or not 0 < rate < 1:
        return 0.0
    return -rate * math.log(rate) - (1 - rate) * math.log(1 - rate)
