"""The tasks of a recipe, and what each of them sees of a step.

Shape legend: B examples on this rank, T tasks, in `labels_BT` all of `LabelColumns`, K outputs of
all tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from data_loaders.config import DataConfig
from data_loaders.label_columns import LabelColumns
from trainer.losses.binary import BinaryLoss
from trainer.losses.multiclass import MulticlassLoss
from trainer.losses.ranking import PairwiseLoss, SampledSoftmaxLoss
from trainer.losses.regression import HuberLoss, LognormalLoss, SquaredLoss, ZilnLoss
from trainer.losses.task_loss import TaskBatch, TaskLoss

# by the word of a task's `loss`, or its `kind` where it has but one
LOSSES: dict[str, type[TaskLoss]] = {
    "binary": BinaryLoss,
    "multiclass": MulticlassLoss,
    "squared": SquaredLoss,
    "huber": HuberLoss,
    "lognormal": LognormalLoss,
    "ziln": ZilnLoss,
    "pairwise": PairwiseLoss,
    "sampled_softmax": SampledSoftmaxLoss,
}


class TaskSet:
    """T tasks, in the order of the batch's columns.

    Args:
        config: the recipe's section `data`.

    Attributes:
        losses: of each task.
        groups: id features that some tasks compare within.
    """

    def __init__(self, config: DataConfig) -> None:
        self.losses = tuple(
            LOSSES[getattr(task, "loss", task.kind)](task, name=name, data=config)
            for name, task in config.tasks.items()
        )
        self.groups = tuple({loss.group: None for loss in self.losses if loss.group is not None})
        self._columns = LabelColumns.of(config)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(loss.name for loss in self.losses)

    @property
    def num_outputs(self) -> tuple[int, ...]:
        """Of each task."""
        return tuple(loss.num_outputs for loss in self.losses)

    def batches(
        self,
        *,
        outputs_BK: Tensor,
        labels_BT: Tensor,
        weights_B: Tensor,
        groups: Mapping[str, Tensor] | None = None,
    ) -> list[TaskBatch]:
        """What each task sees.

        Args:
            outputs_BK: the tasks' outputs side by side.
            labels_BT: as in a batch.
            weights_B: 1 for an example, 0 for padding.
            groups: `TaskBatch.groups_B` of each of `self.groups`; none is needed for metrics.
        """
        of_tasks = outputs_BK.split(self.num_outputs, dim=1)
        is_given_B = weights_B > 0
        log_q_B = None if self._columns.log_q is None else labels_BT[:, self._columns.log_q]
        found = []
        for index, (loss, outputs) in enumerate(zip(self.losses, of_tasks, strict=True)):
            column = self._columns.weight_of_task[index]
            found.append(
                TaskBatch(
                    outputs_BK=outputs,
                    labels_B=labels_BT[:, index],
                    given_B=weights_B,
                    weights_B=weights_B
                    if column is None
                    else torch.where(is_given_B, labels_BT[:, column], 0.0) * weights_B,
                    groups_B=groups[loss.group] if groups and loss.group else None,
                    log_q_B=log_q_B,
                )
            )
        return found

    def summed(self, batches: Sequence[TaskBatch]) -> Tensor:
        """float32 (3, T): each task's `TaskSums` on this rank, the first with gradient, 0 for what
        it does not have; every rank must call.
        """
        columns = []
        for loss, batch in zip(self.losses, batches, strict=True):
            sums = loss.summed(batch)
            num_right = torch.zeros_like(sums.count) if sums.num_right is None else sums.num_right
            columns.append(torch.stack([sums.total, sums.count, num_right]))
        return torch.stack(columns, dim=1)

    def summed_extra(self, extra_BT: Tensor, *, batches: Sequence[TaskBatch]) -> Tensor:
        """float32 (2, T): an architecture's extra losses over this rank's observed labels, with
        gradient, and the weights of these.
        """
        observed_BT = torch.stack([batch.observed_B for batch in batches], dim=1)
        weights_BT = torch.stack([batch.weights_B for batch in batches], dim=1)
        weights_BT = torch.where(observed_BT, weights_BT, 0.0)
        return torch.stack(
            [torch.where(observed_BT, extra_BT * weights_BT, 0.0).sum(0), weights_BT.sum(0)]
        )
