"""Sharding plans, made without any rank being there."""

from __future__ import annotations

import math

import pytest
import torch.distributed as dist
from torch import nn
from torchrec.distributed.types import ShardingPlan

from data_loaders.errors import InputError
from embeddings.config import TableConfig
from embeddings.plan_report import placements
from embeddings.planner import is_table, plan_tables
from embeddings.tables import build_tables, module_name

SIZES = {"user": (1_000_003, 32), "item": (1003, 16), "tiny": (2, 4), "wide": (50, 128)}


class Tables(nn.Module):
    def __init__(self, tables: dict[str, TableConfig]) -> None:
        super().__init__()
        names = list(tables)
        self.tables = build_tables(tables, keys=names, table_of_feature={n: n for n in names})


def tables_of(sharding: str) -> dict[str, TableConfig]:
    return {
        name: TableConfig.model_validate({"num_rows": rows, "dim": dim, "sharding": sharding})
        for name, (rows, dim) in SIZES.items()
    }


def plan_for(
    tables: dict[str, TableConfig],
    *,
    world_size: int,
    device_type: str = "cpu",
    memory_bytes: int = 2**34,
) -> ShardingPlan:
    return plan_tables(
        Tables(tables),
        tables=tables,
        world_size=world_size,
        local_world_size=world_size,
        device_type=device_type,
        memory_bytes=memory_bytes,
        batch_size=64,
    )


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize(
    "sharding", ["auto", "table_wise", "row_wise", "column_wise", "data_parallel"]
)
def test_every_table_is_placed_whole_and_as_asked(
    sharding: str, world_size: int, device_type: str
) -> None:
    """Shards cover each table once; `auto` takes what restores onto any number of ranks."""
    tables = tables_of(sharding)
    plan = plan_for(tables, world_size=world_size, device_type=device_type)
    assert not dist.is_initialized()
    [parameters] = plan.plan.values()
    assert set(parameters) == {module_name(name) for name in SIZES}
    allowed = {"table_wise", "row_wise"} if sharding == "auto" else {sharding}
    for name, size in SIZES.items():
        parameter = parameters[module_name(name)]
        assert parameter.sharding_type in allowed
        assert set(parameter.ranks) <= set(range(world_size))
        if parameter.sharding_spec is None:
            assert parameter.sharding_type == "data_parallel"
            assert sorted(parameter.ranks) == list(range(world_size))
            continue
        shards = parameter.sharding_spec.shards
        cells = [math.prod(shard.shard_sizes) for shard in shards]
        filled = [shard for shard, count in zip(shards, cells, strict=True) if count]
        corners = {tuple(shard.shard_offsets) for shard in filled}
        assert sum(cells) == math.prod(size)
        assert len(corners) == len(filled)
        assert {str(shard.placement.device().type) for shard in shards} == {device_type}


def test_the_plan_is_the_same_whenever_it_is_made() -> None:
    """Every rank plans for itself."""
    tables = tables_of("auto")
    plans = [plan_for(tables, world_size=8, device_type="cuda") for _ in range(2)]
    first, second = (placements(plan, tables=tables) for plan in plans)
    assert first == second


def test_each_table_may_be_cut_in_its_own_way() -> None:
    """As a recipe asks for each."""
    shardings = dict(
        zip(SIZES, ["row_wise", "table_wise", "data_parallel", "column_wise"], strict=True)
    )
    tables = {name: tables_of(sharding)[name] for name, sharding in shardings.items()}
    plan = plan_for(tables, world_size=2, device_type="cpu")
    found = placements(plan, tables=tables)
    assert {item.table: item.sharding for item in found} == shardings


def test_the_report_counts_weights_and_momentum_of_the_largest_shard() -> None:
    """Four bytes each; one momentum per row of a shard; the largest table first."""
    tables = tables_of("row_wise")
    plan = plan_for(tables, world_size=2, device_type="cpu")
    found = placements(plan, tables=tables)
    assert [item.table for item in found] == ["user", "item", "wide", "tiny"]
    assert found[0].rank_bytes == math.ceil(1_000_003 / 2) * (32 + 1) * 4
    assert (found[0].num_rows, found[0].dim) == (1_000_003, 32)
    assert sorted(found[0].ranks) == [0, 1]


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
@pytest.mark.parametrize("sharding", ["auto", "table_wise", "row_wise", "column_wise"])
def test_tables_that_fit_nowhere_are_refused_in_one_line(sharding: str, device_type: str) -> None:
    """A mebibyte of rows is a typing error away from a tebibyte."""
    tables = {
        "huge": TableConfig.model_validate({"num_rows": 10**12, "dim": 128, "sharding": sharding})
    }
    with pytest.raises(InputError) as caught:
        plan_for(tables, world_size=2, device_type=device_type)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("embeddings.tables: no sharding plan fits 2 ")
    assert "smaller tables" in message


def test_tables_are_known_by_their_parameters_names() -> None:
    """Sharded, wrapped, or neither; towers are none."""
    tables = tables_of("auto")
    names = [name for name, _ in Tables(tables).named_parameters()]
    assert all(is_table(name) for name in names)
    assert is_table("_dmp_wrapped_module.tables.embedding_bags.user.weight")
    assert not is_table("module.shared_tower.0.weight")


def test_a_table_too_large_for_one_rank_is_cut_by_row() -> None:
    """`auto` finds a plan where no rank could hold the whole table, on several machines too."""
    large = TableConfig(num_rows=10_000_000, dim=64)
    tables = {"large": large, "small": tables_of("auto")["item"]}
    plan = plan_tables(
        Tables(tables),
        tables=tables,
        world_size=8,
        local_world_size=4,
        device_type="cuda",
        memory_bytes=2**30,
        batch_size=64,
    )
    found, _ = placements(plan, tables=tables)
    assert found.sharding == "row_wise"
    assert sorted(found.ranks) == list(range(8))
    assert found.rank_bytes < 2**30 < 10_000_000 * 64 * 4
    with pytest.raises(InputError, match="no sharding plan fits 2 cpu ranks"):
        plan_for(tables, world_size=2, memory_bytes=2**30)
