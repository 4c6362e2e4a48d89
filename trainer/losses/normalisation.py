"""Losses of all tasks, normalised across ranks.

Shape legend: T tasks, S = 2 losses of each where there are extra ones, else 1.
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
    *, sums_T: Tensor, counts_T: Tensor, names: Sequence[str], extra_2T: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Each task's loss to differentiate, and its mean over all ranks.

    A task's loss is divided by the weight of its labels on ALL ranks, so that the gradient is the
    same on 1 rank and on N. Both DistributedDataParallel and TorchRec divide gradients by the world
    size; the loss is multiplied by it in return.

    Args:
        sums_T: float32, this rank's, with gradient: that of the sum over all ranks.
        counts_T: float32, this rank's.
        names: of the tasks.
        extra_2T: as `TaskSet.summed_extra`, of losses beside these, which count by weights of their
            own; without part in the step where a task has no labels.

    Returns:
        float32 (T,) with gradient, and float32 (T,) means, 0 for a task that no rank observed.

    Raises:
        NonFiniteLossError: on every rank, naming the tasks.
    """
    own_2T = torch.stack([sums_T, counts_T])
    sums_S2T = torch.stack([own_2T] if extra_2T is None else [own_2T, extra_2T])
    totals_S2T = sums_S2T.detach().clone()
    world_size = 1
    if dist.is_initialized():
        world_size = dist.get_world_size()
        dist.all_reduce(totals_S2T)
    weights_ST = totals_S2T[:, 1]
    global_counts_ST = torch.where(weights_ST > 0, weights_ST, 1.0)
    is_observed_T = weights_ST[0] > 0
    means_T = ((totals_S2T[:, 0] / global_counts_ST) * is_observed_T).sum(0)
    # One look at T numbers before backward: the fused optimizers would write NaN into the tables
    # during it.
    if not bool(torch.isfinite(means_T).all()):
        wrong = [
            f"{name} is {value}"
            for name, value in zip(names, means_T.tolist(), strict=True)
            if not torch.isfinite(torch.tensor(value))
        ]
        raise NonFiniteLossError(f"the loss of task {', of task '.join(wrong)}")
    losses_T = ((sums_S2T[:, 0] / global_counts_ST) * is_observed_T).sum(0)
    return losses_T * world_size, means_T
