"""Metrics of all tasks of a recipe."""

from __future__ import annotations

import torch
import torch.distributed as dist

from data_loaders.config import DataConfig
from trainer.losses import TaskSet
from trainer.metrics.binary import BinaryMetrics
from trainer.metrics.calibration import Curve
from trainer.metrics.kind_metrics import KindMetrics, Result
from trainer.metrics.multiclass import MulticlassMetrics
from trainer.metrics.ranking import RankingMetrics
from trainer.metrics.regression import AmountMetrics, RegressionMetrics
from trainer.model import StepOutput

# by the word of a task's `loss`, or its `kind` where it has but one
METRICS: dict[str, type[KindMetrics]] = {
    "binary": BinaryMetrics,
    "multiclass": MulticlassMetrics,
    "squared": RegressionMetrics,
    "huber": RegressionMetrics,
    "lognormal": AmountMetrics,
    "ziln": AmountMetrics,
    "pairwise": RankingMetrics,
    "sampled_softmax": RankingMetrics,
}


class TaskMetrics:
    """Accumulates outputs of many steps.

    Args:
        config: the recipe's section `data`, fitted.
        device: of the outputs.

    Attributes:
        curves: of the last reduction, the calibration of each task that predicts probabilities.
    """

    def __init__(self, config: DataConfig, *, device: torch.device) -> None:
        self._tasks = TaskSet(config)
        places: dict[type[KindMetrics], list[int]] = {}
        for index, task in enumerate(config.tasks.values()):
            places.setdefault(METRICS[getattr(task, "loss", task.kind)], []).append(index)
        self._kinds = [
            (kind([self._tasks.losses[index] for index in indices], device=device), indices)
            for kind, indices in places.items()
        ]
        self.curves: dict[str, Curve] = {}

    @torch.no_grad()
    def update(self, output: StepOutput) -> None:
        """Adds one step's outputs; waits for nothing."""
        batches = self._tasks.batches(
            outputs_BK=output.outputs_BK.double(),
            labels_BT=output.labels_BT.double(),
            weights_B=output.weights_B.double(),
        )
        for kind, indices in self._kinds:
            kind.update(
                [batches[index] for index in indices], sums_3T=output.sums_3T[:, indices].double()
            )

    def reduce_and_reset(self) -> dict[str, Result]:
        """Each task's metrics over all ranks since the last call; every rank must call.

        Returns:
            What the classes of `METRICS` say, each label counting by its example's weight; beside
            that `examples`: the number of observed labels. None where a metric is not defined.
        """
        state = torch.cat([kind.state for kind, _ in self._kinds])
        if dist.is_initialized():
            dist.all_reduce(state)
        state = state.cpu()
        results: dict[int, Result] = {}
        curves: dict[int, Curve | None] = {}
        for (kind, indices), part in zip(
            self._kinds, state.split([len(kind.state) for kind, _ in self._kinds]), strict=True
        ):
            results |= zip(indices, kind.results(part), strict=True)
            curves |= zip(indices, kind.curves(part), strict=True)
            kind.state.zero_()
        self.curves = {
            name: curve
            for index, name in enumerate(self._tasks.names)
            if (curve := curves[index]) is not None
        }
        return {name: results[index] for index, name in enumerate(self._tasks.names)}
