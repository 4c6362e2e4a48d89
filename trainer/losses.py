"""Losses over observed labels, normalised across ranks.

Shape legend: B examples on this rank, T tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from data_loaders.errors import InputError


class NonFiniteLossError(InputError):
    """A task's loss is infinite or NaN; raised on all ranks, before any weight changed."""


@dataclass(frozen=True)
class TaskLoss:
    """What a loss needs to know of one task."""

    name: str
    is_binary: bool
    weight: float


def summed_task_losses(
    *, outputs_BT: Tensor, labels_BT: Tensor, weights_B: Tensor, tasks: tuple[TaskLoss, ...]
) -> tuple[Tensor, Tensor]:
    """Each task's loss summed over this rank's observed labels, and their number.

    Binary cross-entropy of logits in nats; squared error for regression.

    Args:
        outputs_BT: float32; a logit, or a standardised prediction.
        labels_BT: float32; NaN marks "not observed" and adds nothing.
        weights_B: float32; 0 for padding.
        tasks: in the order of the columns.

    Returns:
        float32 (T,) sums, and float32 (T,) weights of the observed labels.
    """
    observed_BT = ~torch.isnan(labels_BT) & (weights_B > 0).unsqueeze(1)
    targets_BT = torch.where(observed_BT, labels_BT, 0.0)
    columns = []
    for index, task in enumerate(tasks):
        outputs_B, targets_B = outputs_BT[:, index], targets_BT[:, index]
        loss = (
            functional.binary_cross_entropy_with_logits if task.is_binary else functional.mse_loss
        )
        columns.append(loss(outputs_B, targets_B, reduction="none"))
    weighted_BT = torch.where(observed_BT, torch.stack(columns, dim=1), 0.0) * weights_B.unsqueeze(
        1
    )
    return weighted_BT.sum(0), (observed_BT * weights_B.unsqueeze(1)).sum(0)


def summed_extra_losses(extra_BT: Tensor, *, labels_BT: Tensor, weights_B: Tensor) -> Tensor:
    """An architecture's extra losses summed over this rank's observed labels: float32 (T,)."""
    observed_BT = ~torch.isnan(labels_BT) & (weights_B > 0).unsqueeze(1)
    return (torch.where(observed_BT, extra_BT, 0.0) * weights_B.unsqueeze(1)).sum(0)


def normalised_losses(
    *, sums_T: Tensor, counts_T: Tensor, tasks: tuple[TaskLoss, ...]
) -> tuple[Tensor, Tensor]:
    """Each task's loss to differentiate, and its mean over all ranks.

    A task's loss is divided by the number of its labels on ALL ranks, so that the gradient is the
    same on 1 rank and on N. Both DistributedDataParallel and TorchRec divide gradients by the world
    size; the loss is multiplied by it in return.

    Args:
        sums_T: float32, this rank's, with gradient.
        counts_T: float32, this rank's.
        tasks: their names.

    Returns:
        float32 (T,) with gradient, and float32 (T,) means, 0 for a task that no rank observed.

    Raises:
        NonFiniteLossError: on every rank, naming the tasks.
    """
    totals = torch.stack([sums_T.detach(), counts_T])
    world_size = 1
    if dist.is_initialized():
        world_size = dist.get_world_size()
        dist.all_reduce(totals)
    totals_T, global_counts_T = totals[0], totals[1].clamp(min=1.0)
    means_T = totals_T / global_counts_T
    # One look at T numbers before backward: the fused optimizers would write NaN into the tables
    # during it.
    if not bool(torch.isfinite(means_T).all()):
        wrong = [
            f"{task.name} is {value}"
            for task, value in zip(tasks, means_T.tolist(), strict=True)
            if not torch.isfinite(torch.tensor(value))
        ]
        raise NonFiniteLossError(f"the loss of task {', of task '.join(wrong)}")
    return sums_T / global_counts_T * world_size, means_T
