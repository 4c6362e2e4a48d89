"""What a kind of task is: how many outputs it reads, its loss, and its prediction.

Shape legend: B examples on this rank, K outputs of the task.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from data_loaders.config import AnyTask, DataConfig


@dataclass(frozen=True)
class TaskBatch:
    """What one task sees of a step.

    Attributes:
        outputs_BK: float32 or float64.
        labels_B: of the same type, in the units of the loss; NaN where not observed.
        given_B: 1 for an example, 0 for padding.
        weights_B: how often each example counts; 0 for padding.
        groups_B: int64, row of the id that a ranking task compares within; -1 in padding.
        log_q_B: how often each example's item is drawn, nats and up to a constant.
    """

    outputs_BK: Tensor
    labels_B: Tensor
    given_B: Tensor
    weights_B: Tensor
    groups_B: Tensor | None = None
    log_q_B: Tensor | None = None

    @property
    def observed_B(self) -> Tensor:
        """bool; whether there is a label."""
        return ~torch.isnan(self.labels_B) & (self.given_B > 0)

    def masked(self, *, placeholder: float) -> TaskBatch:
        """With outputs of 0, labels of `placeholder` and weights of 0 where there is no label, so
        that nothing there can spoil a loss or its gradient.
        """
        observed_B = self.observed_B
        return TaskBatch(
            outputs_BK=torch.where(observed_B.unsqueeze(1), self.outputs_BK, 0.0),
            labels_B=torch.where(observed_B, self.labels_B, placeholder),
            given_B=torch.where(observed_B, self.given_B, 0.0),
            weights_B=torch.where(observed_B, self.weights_B, 0.0),
        )


@dataclass(frozen=True)
class TaskSums:
    """A task's loss on this rank.

    Attributes:
        total: weighted sum, with gradient: that of the sum over all ranks.
        count: sum of the weights.
        num_right: of a ranking task, weighted number of pairs in the right order, ties as half.
    """

    total: Tensor
    count: Tensor
    num_right: Tensor | None = None


class TaskLoss(ABC):
    """A task of some kind.

    Args:
        config: of the task.
        name: of the task.
        data: the recipe's section `data`.
    """

    def __init__(self, config: AnyTask, *, name: str, data: DataConfig) -> None:
        self.name = name
        self.config = config
        self.weight = config.weight

    @property
    def num_outputs(self) -> int:
        """K."""
        return 1

    @property
    def group(self) -> str | None:
        """The id feature that `TaskBatch.groups_B` is of."""
        return None

    @abstractmethod
    def summed(self, batch: TaskBatch) -> TaskSums:
        """The loss on this rank; every rank must call."""

    @abstractmethod
    def prediction(self, outputs_BK: Tensor) -> Tensor:
        """What the outputs say of the label, (B,) or of several classes (B, K)."""


class ExampleLoss(TaskLoss):
    """A task whose loss is a sum over examples."""

    # a label that the loss can be taken of
    placeholder = 0.0

    @abstractmethod
    def losses(self, outputs_BK: Tensor, labels_B: Tensor) -> Tensor:
        """Each example's, (B,).

        Args:
            outputs_BK: finite.
            labels_B: observed.
        """

    def summed(self, batch: TaskBatch) -> TaskSums:
        seen = batch.masked(placeholder=self.placeholder)
        losses_B = self.losses(seen.outputs_BK, seen.labels_B)
        return TaskSums(total=(losses_B * seen.weights_B).sum(), count=seen.weights_B.sum())
