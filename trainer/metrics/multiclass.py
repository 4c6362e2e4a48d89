"""Metrics of one of several classes.

Shape legend: B examples on this rank, C classes, Q bins.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from data_loaders.task_config import MulticlassTask
from trainer.losses import TaskBatch, TaskLoss
from trainer.losses.task_loss import ExampleLoss
from trainer.metrics.histogram import add_scores, area
from trainer.metrics.kind_metrics import KindMetrics, Result, ratio

# A histogram for each class: of more classes than these there is no AUC, and its bins are wider
# than those of binary tasks, 0.008.
MAX_AUC_CLASSES = 64
NUM_CLASS_BINS = 2**12

_LOSS, _TOP_1, _TOP_K, _WEIGHT, _COUNT = range(5)


class MulticlassMetrics(KindMetrics):
    """`loss`, `accuracy`, `top_K_accuracy` of more classes than K, and up to `MAX_AUC_CLASSES` of
    them `macro_auc`: the mean AUC of each class against the rest, over classes that occur.
    """

    def shapes(self) -> list[tuple[int, ...]]:
        num_histograms = [
            task.num_outputs if task.num_outputs <= MAX_AUC_CLASSES else 0 for task in self.tasks
        ]
        return [(5, len(self.tasks)), *((num, 2, NUM_CLASS_BINS) for num in num_histograms)]

    def update(self, batches: Sequence[TaskBatch], *, sums_3T: Tensor) -> None:
        sums_5T, *histograms = self.sums(self.state)
        for index, (task, batch) in enumerate(zip(self.tasks, batches, strict=True)):
            seen = batch.masked(placeholder=0.0)
            assert isinstance(task, ExampleLoss)
            rank_B = _rank_of_label(seen.outputs_BK, seen.labels_B.long())
            terms = [
                task.losses(seen.outputs_BK, seen.labels_B),
                (rank_B < 1).double(),
                (rank_B < _config(task).top_k).double(),
            ]
            sums_5T[:_WEIGHT, index] += torch.stack([(t * seen.weights_B).sum() for t in terms])
            sums_5T[_WEIGHT, index] += seen.weights_B.sum()
            sums_5T[_COUNT, index] += seen.given_B.sum()
            if len(histograms[index]):
                _add_classes(histograms[index], seen)

    def results(self, state: Tensor) -> list[Result]:
        sums_5T, *histograms = self.sums(state)
        found = []
        for task, sums_5, histogram_C2Q in zip(self.tasks, sums_5T.T, histograms, strict=True):
            top_k, weight = _config(task).top_k, sums_5[_WEIGHT]
            result: Result = {
                "loss": ratio(sums_5[_LOSS], weight),
                "accuracy": ratio(sums_5[_TOP_1], weight),
            }
            if top_k < task.num_outputs:
                result[f"top_{top_k}_accuracy"] = ratio(sums_5[_TOP_K], weight)
            if len(histogram_C2Q):
                areas = [area(histogram_2Q) for histogram_2Q in histogram_C2Q]
                defined = [value for value in areas if value is not None]
                result["macro_auc"] = ratio(sum(defined), len(defined))
            found.append(result | {"examples": float(sums_5[_COUNT])})
        return found


def _config(task: TaskLoss) -> MulticlassTask:
    assert isinstance(task.config, MulticlassTask)
    return task.config


def _rank_of_label(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    """How many classes are before the label's, those with the same logit by their number."""
    own_B1 = logits_BC.gather(1, labels_B.unsqueeze(1))
    classes_C = torch.arange(logits_BC.shape[1], device=logits_BC.device)
    is_tied_before_BC = (logits_BC == own_B1) & (classes_C < labels_B.unsqueeze(1))
    return ((logits_BC > own_B1) | is_tied_before_BC).sum(1)


def _add_classes(histogram_C2Q: Tensor, batch: TaskBatch) -> None:
    """Each class against the rest, by the log-odds of its probability."""
    log_BC = batch.outputs_BK.log_softmax(dim=1)
    log_odds_BC = log_BC - torch.log1p(-log_BC.exp())
    classes_C = torch.arange(log_BC.shape[1], device=log_BC.device)
    is_class_BC = (batch.labels_B.unsqueeze(1) == classes_C).double()
    weights_B1 = batch.weights_B.unsqueeze(1)
    add_scores(
        histogram_C2Q,
        log_odds_BC,
        low_BH=(1 - is_class_BC) * weights_B1,
        high_BH=is_class_BC * weights_B1,
    )
