"""Metrics of each task, accumulated in bounded memory and summed over ranks.

A binary task's scores go into a histogram over logits, from which AUC, accuracy, precision, recall
and F1 follow; so the state is a tensor of fixed size however long the log is, and ranks add theirs
up. Scores in one bin count as tied: with 2^15 bins over logits of -16 to 16, a thousandth wide, the
AUC differs from the exact one by less than 1e-4 once logits spread over more than some tenths
(tests/trainer/test_metrics.py); of a model that has learned nothing yet it is coarser.

Shape legend: B examples on this rank, T tasks, K bins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from data_loaders.config import BinaryTask, RegressionTask, fitted_number
from trainer.model import StepOutput

NUM_BINS = 2**15
MAX_LOGIT = 16.0

# rows of the sums: what is added up over observed labels
_COUNT, _LABEL, _PREDICTION, _LOSS, _SQUARED_ERROR, _ABSOLUTE_ERROR = range(6)


class TaskMetrics:
    """Accumulates outputs of many steps.

    Args:
        tasks: by name, in the order of the batch's columns.
        device: of the outputs.
    """

    def __init__(
        self, tasks: Mapping[str, BinaryTask | RegressionTask], *, device: torch.device
    ) -> None:
        self._tasks = dict(tasks)
        num_tasks = len(self._tasks)
        self._is_binary_T = torch.tensor(
            [task.kind == "binary" for task in tasks.values()], device=device
        )
        self._sums = torch.zeros(6, num_tasks, dtype=torch.float64, device=device)
        # of each task, negatives and positives
        self._histogram = torch.zeros(num_tasks, 2, NUM_BINS, dtype=torch.float64, device=device)
        self._offsets_T = torch.arange(num_tasks, device=device) * 2 * NUM_BINS

    @torch.no_grad()
    def update(self, output: StepOutput) -> None:
        """Adds one step's outputs; waits for nothing."""
        outputs_BT = output.outputs_BT.double()
        weights_BT = torch.where(
            torch.isnan(output.labels_BT), 0.0, output.weights_B.unsqueeze(1)
        ).double()
        labels_BT = torch.nan_to_num(output.labels_BT, nan=0.0).double()
        predictions_BT = torch.where(self._is_binary_T, torch.sigmoid(outputs_BT), outputs_BT)
        errors_BT = predictions_BT - labels_BT
        losses_BT = torch.where(
            self._is_binary_T,
            functional.binary_cross_entropy_with_logits(outputs_BT, labels_BT, reduction="none"),
            errors_BT.square(),
        )
        ones_BT = torch.ones_like(errors_BT)
        terms = [ones_BT, labels_BT, predictions_BT, losses_BT, errors_BT.square(), errors_BT.abs()]
        self._sums += torch.stack([(term * weights_BT).sum(0) for term in terms])
        scaled = (outputs_BT + MAX_LOGIT) * (NUM_BINS / (2 * MAX_LOGIT))
        bins = scaled.clamp(0, NUM_BINS - 1).long() + self._offsets_T
        flat = self._histogram.view(-1)
        flat.scatter_add_(0, bins.view(-1), ((1 - labels_BT) * weights_BT).view(-1))
        flat.scatter_add_(0, bins.view(-1) + NUM_BINS, (labels_BT * weights_BT).view(-1))

    def reduce_and_reset(self) -> dict[str, dict[str, float | None]]:
        """Each task's metrics over all ranks since the last call; every rank must call.

        Returns:
            For a binary task `loss` (nats), `auc`, `normalized_entropy` (loss over the entropy of
            the base rate), `calibration` (mean prediction over mean label), and at a threshold of
            0.5 `accuracy`, `precision`, `recall`, `f1`. For a regression `loss` (squared standard
            deviations), `mse` and `mae`, in the units of `f(y)`: the label, or its log(1 + y) where
            the recipe says `log`. Beside them `examples`: the number of observed labels. None where
            a metric is not defined.
        """
        state = torch.cat([self._sums.view(-1), self._histogram.view(-1)])
        if dist.is_initialized():
            dist.all_reduce(state)
        state = state.cpu()
        sums = state[: self._sums.numel()].view_as(self._sums)
        histogram = state[self._sums.numel() :].view_as(self._histogram)
        self._sums.zero_()
        self._histogram.zero_()
        results = {}
        for index, (name, task) in enumerate(self._tasks.items()):
            if isinstance(task, BinaryTask):
                results[name] = _binary_metrics(sums[:, index], histogram[index])
            else:
                results[name] = _regression_metrics(sums[:, index], std=fitted_number(task.std))
        return results


def _binary_metrics(sums: Tensor, histogram: Tensor) -> dict[str, float | None]:
    count = float(sums[_COUNT])
    mean_loss, rate = _ratio(sums[_LOSS], count), _ratio(sums[_LABEL], count)
    negatives_K, positives_K = histogram
    is_yes = NUM_BINS // 2  # logit 0, a probability of 0.5
    true_positives, positives = float(positives_K[is_yes:].sum()), float(positives_K.sum())
    false_positives, negatives = float(negatives_K[is_yes:].sum()), float(negatives_K.sum())
    below_K = negatives_K.cumsum(0) - negatives_K
    wins = float((positives_K * (below_K + negatives_K / 2)).sum())
    return {
        "loss": mean_loss,
        "auc": _ratio(wins, positives * negatives),
        "normalized_entropy": _ratio(mean_loss, _entropy(rate)) if mean_loss is not None else None,
        "calibration": _ratio(sums[_PREDICTION], float(sums[_LABEL])),
        "accuracy": _ratio(true_positives + negatives - false_positives, count),
        "precision": _ratio(true_positives, true_positives + false_positives),
        "recall": _ratio(true_positives, positives),
        "f1": _ratio(2 * true_positives, true_positives + false_positives + positives),
        "examples": count,
    }


def _regression_metrics(sums: Tensor, *, std: float) -> dict[str, float | None]:
    count = float(sums[_COUNT])
    mse, mae = _ratio(sums[_SQUARED_ERROR], count), _ratio(sums[_ABSOLUTE_ERROR], count)
    return {
        "loss": mse,
        "mse": None if mse is None else mse * std**2,
        "mae": None if mae is None else mae * std,
        "examples": count,
    }


def _entropy(rate: float | None) -> float:
    """Of a coin with this rate, nats; 0 for a certain one."""
    if rate is None or not 0 < rate < 1:
        return 0.0
    return -rate * math.log(rate) - (1 - rate) * math.log(1 - rate)


def _ratio(numerator: Tensor | float, denominator: float) -> float | None:
    return float(numerator) / denominator if denominator else None
