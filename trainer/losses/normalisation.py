"""Losses of all tasks, normalised across ranks.

Shape legend: T tasks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from data_loaders.errors import InputError


class NonFiniteLossError(InputError):
    """A task's loss is infinite or NaN; raised on all ranks, before any weight changed."""


def normalised_losses(
    *, sums_T: Tensor, counts_T: Tensor, names: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Each task's loss to differentiate, and its mean over all ranks.

    A task's loss is divided by the weight of its labels on ALL ranks, so that the gradient is the
    same on 1 rank and on N. Both DistributedDataParallel and TorchRec divide gradients by the world
    size; the loss is multiplied by it in return.

    Args:
        sums_T: float32, this rank's, with gradient: that of the sum over all ranks.
        counts_T: float32, this rank's.
        names: of the tasks.

    Returns:
        float32 (T,) with gradient, and float32 (T,) means, 0 for a task that no rank observed.

    Raises:
        NonFiniteLossError: on every rank, naming the tasks.
    """
    totals = torch.stack([sums_T, counts_T]).detach()
    world_size = 1
    if dist.is_initialized():
        world_size = dist.get_world_size()
        dist.all_reduce(totals)
    totals_T, global_counts_T = totals[0], torch.where(totals[1] > 0, totals[1], 1.0)
    means_T = totals_T / global_counts_T
    # One look at T numbers before backward: the fused optimizers would write NaN into the tables
    # during it.
    if not bool(torch.isfinite(means_T).all()):
        wrong = [
            f"{name} is {value}"
            for name, value in zip(names, means_T.tolist(), strict=True)
            if not torch.isfinite(torch.tensor(value))
        ]
        raise NonFiniteLossError(f"the loss of task {', of task '.join(wrong)}")
    return sums_T / global_counts_T * world_size, means_T
