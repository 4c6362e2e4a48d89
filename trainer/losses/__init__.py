"""The kinds of tasks, what each wants of the model's outputs, and their losses over all ranks."""

from __future__ import annotations

from trainer.losses.normalisation import NonFiniteLossError, normalised_losses
from trainer.losses.task_loss import TaskBatch, TaskLoss, TaskSums
from trainer.losses.task_set import LOSSES, TaskSet

__all__ = [
    "LOSSES",
    "NonFiniteLossError",
    "TaskBatch",
    "TaskLoss",
    "TaskSet",
    "TaskSums",
    "normalised_losses",
]
