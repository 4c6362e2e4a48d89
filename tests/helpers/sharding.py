"""A model's tables cut over the CPU ranks of the process group."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import nn
from torchrec.distributed.model_parallel import DistributedModelParallel

from embeddings.config import TableConfig
from embeddings.planner import plan_tables, shard_model


def shard_on_cpu(
    model: nn.Module, *, tables: Mapping[str, TableConfig], learning_rate: float, eps: float
) -> DistributedModelParallel:
    """The model sharded by the plan for this many ranks on one machine, 1 GiB each."""
    world_size = dist.get_world_size()
    plan = plan_tables(
        model,
        tables=tables,
        world_size=world_size,
        local_world_size=world_size,
        device_type="cpu",
        memory_bytes=2**30,
        batch_size=16,
    )
    device = torch.device("cpu")
    return shard_model(model, plan=plan, device=device, learning_rate=learning_rate, eps=eps)
