"""What the metrics of a kind of tasks are: sums that ranks add up, and what follows from them.

Shape legend: B examples on this rank, T tasks of the kind.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.losses import TaskBatch, TaskLoss
from trainer.metrics.calibration import Curve

Result = dict[str, float | None]


class KindMetrics(ABC):
    """Metrics of all tasks of one kind, accumulated together.

    Args:
        tasks: T of them.
        device: of the outputs.

    Attributes:
        state: float64, all sums behind one another.
    """

    def __init__(self, tasks: Sequence[TaskLoss], *, device: torch.device) -> None:
        self.tasks = tuple(tasks)
        num_numbers = sum(math.prod(shape) for shape in self.shapes())
        self.state = torch.zeros(num_numbers, dtype=torch.float64, device=device)

    @abstractmethod
    def shapes(self) -> list[tuple[int, ...]]:
        """Of the sums."""

    @abstractmethod
    def update(self, batches: Sequence[TaskBatch], *, sums_3T: Tensor) -> None:
        """Adds one step; waits for nothing.

        Args:
            batches: of each task, float64.
            sums_3T: `TaskSums` of each task on this rank.
        """

    @abstractmethod
    def results(self, state: Tensor) -> list[Result]:
        """Each task's metrics, from the state of all ranks."""

    def curves(self, state: Tensor) -> list[Curve | None]:
        """Each task's calibration, of kinds that predict probabilities."""
        return [None for _ in self.tasks]

    def sums(self, state: Tensor) -> list[Tensor]:
        """Views of a state, in their shapes."""
        shapes = self.shapes()
        parts = state.split([math.prod(shape) for shape in shapes])
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def ratio(numerator: Tensor | float, denominator: Tensor | float) -> float | None:
    """None where it is not defined."""
    return float(numerator) / float(denominator) if denominator else None
