"""Which rows of a table have had a gradient, whatever the encoding of its ids.

Shape legend: R rows of a table.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torchrec.optim.keyed import KeyedOptimizer

from embeddings.planner import is_table, readable_name


def trained_rows(
    optimizer: KeyedOptimizer, *, num_rows: Mapping[str, int], device: torch.device
) -> dict[str, Tensor]:
    """Rows whose sum of squared gradients, which row-wise Adagrad keeps, is above 0, also of tables
    that are frozen; 3 bytes for each row on every rank, and every rank must call.

    Args:
        optimizer: of the tables, fused or not; no table that is asked for may be cut by columns.
        num_rows: of each table that is asked for; of tables that belong to tasks, by their names in
            the recipe, rows that have had one in any task's.
        device: of the result, and of the collectives.

    Returns:
        For each table bool (R), the same on all ranks.
    """
    if not num_rows:
        return {}
    found = {
        name: torch.zeros(rows, dtype=torch.uint8, device=device) for name, rows in num_rows.items()
    }
    for parameter, state in optimizer.state_dict()["state"].items():
        table = readable_name(parameter).removeprefix("tables.").partition(":")[0]
        if not is_table(parameter) or table not in found:
            continue
        for name, value in state.items():
            # of tables that are cut, and of those that every rank has
            if name.endswith((".momentum1", "sum")):
                _mark(value, found[table])
    if dist.is_initialized():
        for is_trained_R in found.values():
            dist.all_reduce(is_trained_R, op=dist.ReduceOp.MAX)
    return {name: is_trained_R.bool() for name, is_trained_R in found.items()}


def _mark(sums: Tensor | ShardedTensor, is_trained_R: Tensor) -> None:
    """Adds what this rank holds of a table's sums."""
    if not isinstance(sums, ShardedTensor):
        is_trained_R |= (sums.flatten() > 0).to(is_trained_R)
        return
    for shard in sums.local_shards():
        first = shard.metadata.shard_offsets[0]
        rows = slice(first, first + len(shard.tensor))
        is_trained_R[rows] |= (shard.tensor.flatten() > 0).to(is_trained_R)
