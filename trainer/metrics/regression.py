"""Metrics of a number.

Shape legend: B examples on this rank, T regressions of one class, Q bins.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from data_loaders.config import fitted_number
from data_loaders.task_config import RegressionTask
from trainer.losses import TaskBatch, TaskLoss
from trainer.losses.regression import ZilnLoss
from trainer.losses.task_loss import ExampleLoss
from trainer.metrics.histogram import NUM_BINS, add_scores, area
from trainer.metrics.kind_metrics import KindMetrics, Result, ratio

_LOSS, _SQUARED_ERROR, _ABSOLUTE_ERROR, _LABEL, _SQUARED_LABEL, _WEIGHT, _COUNT = range(7)


class RegressionMetrics(KindMetrics):
    """`loss`; `mse` and `mae` in the units of `f(y)`: the label, or its log(1 + y) where the recipe
    says `log`; and `r2`, the share of the labels' variance that is explained.
    """

    def shapes(self) -> list[tuple[int, ...]]:
        return [(7, len(self.tasks))]

    def update(self, batches: Sequence[TaskBatch], *, sums_3T: Tensor) -> None:
        sums_7T = self.sums(self.state)[0]
        seen, losses, predictions = [], [], []
        for task, batch in zip(self.tasks, batches, strict=True):
            assert isinstance(task, ExampleLoss)
            seen.append(batch.masked(placeholder=task.placeholder))
            losses.append(task.losses(seen[-1].outputs_BK, seen[-1].labels_B))
            predictions.append(task.prediction(seen[-1].outputs_BK))
        labels_BT = torch.stack([batch.labels_B for batch in seen], dim=1)
        weights_BT = torch.stack([batch.weights_B for batch in seen], dim=1)
        errors_BT = torch.stack(predictions, dim=1) - labels_BT
        losses_BT = torch.stack(losses, dim=1)
        terms = [losses_BT, errors_BT.square(), errors_BT.abs(), labels_BT, labels_BT.square()]
        sums_7T[:_WEIGHT] += torch.stack([(term * weights_BT).sum(0) for term in terms])
        sums_7T[_WEIGHT] += weights_BT.sum(0)
        sums_7T[_COUNT] += torch.stack([batch.given_B.sum() for batch in seen])

    def results(self, state: Tensor) -> list[Result]:
        sums_7T = self.sums(state)[0]
        return [_result(sums, task) for sums, task in zip(sums_7T.T, self.tasks, strict=True)]


class AmountMetrics(RegressionMetrics):
    """Beside those of any regression `gini`, the Gini coefficient of labels in the order of their
    predictions over that in their own order: 1 for the right order, 0 for none. Of zero-inflated
    labels also `nonzero_auc`: how well those above 0 are told from 0.

    Source: Wang, Liu and Miao, 2019, normalised Gini coefficient.
    """

    def shapes(self) -> list[tuple[int, ...]]:
        return [*super().shapes(), (len(self.tasks), 3, 2, NUM_BINS)]

    def update(self, batches: Sequence[TaskBatch], *, sums_3T: Tensor) -> None:
        super().update(batches, sums_3T=sums_3T)
        histograms = self.sums(self.state)[1]
        for histogram_32Q, task, batch in zip(histograms, self.tasks, batches, strict=True):
            assert isinstance(task, ExampleLoss)
            seen = batch.masked(placeholder=task.placeholder)
            is_above_B = (seen.labels_B > 0) * seen.weights_B
            amounts_B = seen.labels_B * seen.weights_B
            chances_B = seen.outputs_BK[:, 0]
            # logarithms, of which that of 0 falls into the lowest bin
            scores = [task.prediction(seen.outputs_BK).log(), seen.labels_B.log(), chances_B]
            low = [seen.weights_B, seen.weights_B, seen.weights_B - is_above_B]
            add_scores(
                histogram_32Q,
                torch.stack(scores, dim=1),
                low_BH=torch.stack(low, dim=1),
                high_BH=torch.stack([amounts_B, amounts_B, is_above_B], dim=1),
            )

    def results(self, state: Tensor) -> list[Result]:
        found = super().results(state)
        for task, result, histogram_32Q in zip(self.tasks, found, self.sums(state)[1], strict=True):
            by_prediction, by_label, nonzero_auc = (area(item) for item in histogram_32Q)
            result["gini"] = None
            if by_prediction is not None and by_label is not None:
                result["gini"] = ratio(by_prediction - 0.5, by_label - 0.5)
            if isinstance(task, ZilnLoss):
                result["nonzero_auc"] = nonzero_auc
        return found


def _result(sums: Tensor, task: TaskLoss) -> Result:
    assert isinstance(task.config, RegressionTask)
    weight, std = float(sums[_WEIGHT]), fitted_number(task.config.std)
    mse, mae = ratio(sums[_SQUARED_ERROR], weight), ratio(sums[_ABSOLUTE_ERROR], weight)
    r2 = None
    if mse is not None:
        variance = float(sums[_SQUARED_LABEL]) / weight - (float(sums[_LABEL]) / weight) ** 2
        # of equal labels only rounding is left
        if variance > 1e-12 * float(sums[_SQUARED_LABEL]) / weight:
            r2 = 1 - mse / variance
    return {
        "loss": ratio(sums[_LOSS], weight),
        "mse": None if mse is None else mse * std**2,
        "mae": None if mae is None else mae * std,
        "r2": r2,
        "examples": float(sums[_COUNT]),
    }
