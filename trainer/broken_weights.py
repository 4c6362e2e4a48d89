"""Weights that are no longer finite, found before they are saved."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn

from embeddings.planner import is_table
from trainer.losses import NonFiniteLossError


def refuse_broken(model: nn.Module, *, step: int) -> None:
    """A finite loss may still have left NaN behind: a run could not go on from that.

    Raises:
        NonFiniteLossError: on every rank.
    """
    towers = (item for name, item in model.named_parameters() if not is_table(name))
    finite = torch.stack([torch.isfinite(item).all() for item in towers]).all().float()
    dist.all_reduce(finite, op=dist.ReduceOp.MIN)
    if not finite:
        raise NonFiniteLossError(
            f"step {step}: the towers' weights are no longer finite; no checkpoint "
            "was written; lower optimizer.*.learning_rate, or look for extreme values"
        )
