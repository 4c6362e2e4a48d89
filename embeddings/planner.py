"""Chooses how each table is cut over the ranks, and builds the sharded model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import PlannerError
from torchrec.distributed.types import (
    BoundsCheckMode,
    ModuleSharder,
    ShardingEnv,
    ShardingPlan,
    ShardingType,
)
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from data_loaders.errors import InputError
from embeddings.config import TableConfig
from embeddings.tables import module_name

# Both keep one momentum value per row, whole, so that their checkpoints restore onto each other at
# any number of ranks.
AUTO_SHARDING = [ShardingType.TABLE_WISE.value, ShardingType.ROW_WISE.value]

# Of a rank's memory: for the towers, activations and batches, which the planner does not place.
RESERVED_FRACTION = 0.15


class TableSharder(EmbeddingBagCollectionSharder):
    """TorchRec's sharder with every sharding type that also works on the CPU, where it lists no
    row-wise ones.

    Tried with gloo on 2 and 3 ranks; see tests/embeddings/test_lookup.py.
    """

    def sharding_types(self, compute_device_type: str) -> list[str]:
        return [
            ShardingType.DATA_PARALLEL.value,
            ShardingType.TABLE_WISE.value,
            ShardingType.COLUMN_WISE.value,
            ShardingType.ROW_WISE.value,
        ]


def plan_tables(
    model: nn.Module,
    *,
    tables: Mapping[str, TableConfig],
    world_size: int,
    local_world_size: int,
    device_type: str,
    memory_bytes: int,
    batch_size: int,
) -> ShardingPlan:
    """Plans without a process group; a pure function, so every rank that calls it finds the same
    plan.

    Args:
        model: holds the tables on the meta device.
        tables: by name.
        world_size: ranks to plan for.
        local_world_size: ranks on one machine.
        device_type: cpu or cuda.
        memory_bytes: that a rank may use, on its GPU or of its machine.
        batch_size: examples per rank and step, for the planner's estimates.

    Raises:
        InputError: no plan fits the devices' memory.
    """
    planner = EmbeddingShardingPlanner(
        topology=Topology(
            world_size=world_size,
            local_world_size=local_world_size,
            compute_device=device_type,
            hbm_cap=memory_bytes if device_type == "cuda" else None,
            ddr_cap=memory_bytes if device_type == "cpu" else None,
        ),
        batch_size=batch_size,
        storage_reservation=FixedPercentageStorageReservation(percentage=RESERVED_FRACTION),
        constraints={
            module_name(name): _constraints(table, world_size) for name, table in tables.items()
        },
        debug=False,
    )
    try:
        return planner.plan(model, _sharders())
    except PlannerError as error:
        raise InputError(
            f"embeddings.tables: no sharding plan fits {world_size} {device_type} ranks "
            f"({str(error).splitlines()[0]}); use more ranks, smaller tables, or sharding: auto"
        ) from error


def shard_model(
    model: nn.Module,
    *,
    plan: ShardingPlan,
    device: torch.device,
    learning_rate: float,
    eps: float,
    frozen: Collection[str] = (),
) -> DistributedModelParallel:
    """Cuts the tables by the plan and copies the rest to every rank.

    The tables' row-wise Adagrad steps inside their backward: one update per row and step. Tables
    that are data-parallel have no fused optimizer; `trainer.optimizer` steps them by the same rule.

    Source: https://docs.pytorch.org/torchrec/model-parallel-api-reference.html

    Args:
        model: its tables are on the meta device.
        plan: of `plan_tables`.
        device: of this rank.
        learning_rate: of the tables.
        eps: of row-wise Adagrad.
        frozen: readable names of tables that keep their values: their rate is 0.
    """
    for name, parameter in model.named_parameters():
        if is_table(name):
            rate = 0.0 if readable_name(name) in frozen else learning_rate
            apply_optimizer_in_backward(RowWiseAdagrad, [parameter], {"lr": rate, "eps": eps})
    assert dist.group.WORLD is not None
    return DistributedModelParallel(
        model,
        device=device,
        plan=plan,
        env=ShardingEnv.from_process_group(dist.group.WORLD),
        sharders=_sharders(),
    )


def is_table(parameter_name: str) -> bool:
    """Whether a parameter of a model, sharded or not, is an embedding table."""
    return ".embedding_bags." in parameter_name or ".embeddings." in parameter_name


def readable_name(parameter_name: str) -> str:
    """`tables.NAME` of a table, and the name itself of anything else."""
    if not is_table(parameter_name):
        return parameter_name
    return f"tables.{parameter_name.split('.')[-2].removeprefix(module_name(''))}"


def _sharders() -> list[ModuleSharder[Any]]:
    return [TableSharder(), EmbeddingCollectionSharder()]


def _constraints(table: TableConfig, world_size: int) -> ParameterConstraints:
    words: dict[str, Any] = {"auto": AUTO_SHARDING}
    return ParameterConstraints(
        sharding_types=words.get(table.sharding, [table.sharding]),
        # the planner's own minimum of 32 columns a shard would refuse to cut a narrow table
        min_partition=max(4, table.dim // world_size // 4 * 4),
        # the loader has brought every id into its table's range; looking again takes a tenth of a
        # forward on CPU
        bounds_check_mode=BoundsCheckMode.NONE,
    )
