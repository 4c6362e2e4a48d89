"""The tables' first values: the same however the tables are cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor import ShardedTensor

from embeddings.config import TableConfig, owned_tables
from embeddings.tables import build_tables, initialise_tables, module_name, pooled_names
from tests.helpers.ranks import run_ranks
from tests.helpers.sharding import shard_on_cpu

# the large table spans several runs of rows with a seed of their own; shards begin within one
SIZES = {"large": (150_001, 8), "narrow": (1003, 4), "wide": (64, 24)}


class Tables(nn.Module):
    def __init__(self, tables: dict[str, TableConfig]) -> None:
        super().__init__()
        names = list(tables)
        self.tables = build_tables(tables, keys=names, table_of_feature={n: n for n in names})


def whole_tables(*, seed: int) -> dict[str, Tensor]:
    weights = {
        f"tables.embedding_bags.{module_name(name)}.weight": torch.empty(size)
        for name, size in SIZES.items()
    }
    initialise_tables(weights, seed=seed, std=0.5)
    return dict(zip(SIZES, weights.values(), strict=True))


def pieces_that_differ(shardings: list[str]) -> dict[str, int]:
    """On every rank: the number of values that each sharding's shards hold, if all are right."""
    expected = {module_name(name): whole for name, whole in whole_tables(seed=3).items()}
    counts = {}
    for sharding in shardings:
        tables = {
            name: TableConfig.model_validate({"num_rows": rows, "dim": dim, "sharding": sharding})
            for name, (rows, dim) in SIZES.items()
        }
        model = Tables(tables)
        sharded = shard_on_cpu(model, tables=tables, learning_rate=0.1, eps=1e-8)
        parameters: dict[str, Any] = dict(sharded.state_dict())
        initialise_tables(parameters, seed=3, std=0.5)
        counts[sharding] = 0
        for key, parameter in parameters.items():
            whole = expected[key.split(".")[-2]]
            shards = [([0, 0], parameter)]
            if isinstance(parameter, ShardedTensor):
                shards = [
                    (shard.metadata.shard_offsets, shard.tensor)
                    for shard in parameter.local_shards()
                ]
            for (row, column), piece in shards:
                wanted = whole[row : row + len(piece), column : column + piece.shape[1]]
                assert torch.equal(piece, wanted), (sharding, key, row, column)
                counts[sharding] += piece.numel()
    return counts


@pytest.mark.parametrize("world_size", [1, 3])
def test_first_values_are_the_same_for_every_cut(world_size: int) -> None:
    """Bit by bit, for all shardings and ranks, so that runs on other machines start alike."""
    shardings = ["table_wise", "row_wise", "column_wise", "data_parallel", "auto"]
    results = run_ranks(
        pieces_that_differ, world_size=world_size, arguments={"shardings": shardings}
    )
    total = sum(rows * dim for rows, dim in SIZES.values())
    for sharding in shardings:
        copies = world_size if sharding == "data_parallel" else 1
        assert sum(counts[sharding] for counts in results) == copies * total


def test_first_values_are_normal_and_independent() -> None:
    """Mean, deviation, and no run of rows, table or seed that repeats another."""
    tables, others = whole_tables(seed=3), whole_tables(seed=4)
    large = tables["large"].numpy()
    count = large.size
    assert abs(large.mean()) < 5 * 0.5 / np.sqrt(count)
    assert large.std() == pytest.approx(0.5, rel=5 / np.sqrt(2 * count))
    assert len(np.unique(large[:, 0])) > 0.99 * len(large)
    assert not np.isin(large[:1000, 0], large[65536:]).all()
    firsts = [weight[0, :4].tolist() for weight in (*tables.values(), *others.values())]
    assert len({tuple(first) for first in firsts}) == len(firsts)


def test_every_seed_that_a_recipe_may_have_is_a_seed() -> None:
    """A date as a seed, or the largest: what generators take ends at 64 bits."""
    values = {float(whole_tables(seed=seed)["wide"][0, 0]) for seed in (0, 20_261_121, 2**63 - 1)}
    assert len(values) == 3


def test_declared_tables_take_no_memory() -> None:
    """A table of a trillion rows can be declared, with its features in their order."""
    huge, other = TableConfig(num_rows=10**12, dim=128), TableConfig(num_rows=2, dim=4)
    declared = build_tables(
        {"huge": huge, "other": other},
        keys=["b", "a", "c"],
        table_of_feature={"b": "huge", "a": "other", "c": "huge"},
    )
    assert all(parameter.device.type == "meta" for parameter in declared.parameters())
    features = {config.name: config.feature_names for config in declared.embedding_bag_configs()}
    assert features == {module_name("huge"): ["b", "c"], module_name("other"): ["a"]}


def test_owners_have_tables_of_the_same_size() -> None:
    """Each looked up by the same features, whose vectors are told apart by the table."""
    tables = {"one": TableConfig(num_rows=9, dim=4), "two": TableConfig(num_rows=5, dim=8)}
    table_of_feature, owners = {"a": "one", "b": "two", "c": "one"}, [None, "x"]
    declared = build_tables(
        tables, keys=["a", "b", "c"], table_of_feature=table_of_feature, owners=owners
    )
    assert list(owned_tables(tables, owners=owners)) == ["one", "two", "one:x", "two:x"]
    found = {config.name: config for config in declared.embedding_bag_configs()}
    for name, table in owned_tables(tables, owners=owners).items():
        config = found[module_name(name)]
        assert (config.num_embeddings, config.embedding_dim) == (table.num_rows, table.dim)
        assert config.feature_names == (["b"] if name.startswith("two") else ["a", "c"])
    names = pooled_names(["a", "b", "c"], table_of_feature=table_of_feature, owners=owners)
    assert names == [
        *("a@table_one", "b@table_two", "c@table_one"),
        *("a@table_one:x", "b@table_two:x", "c@table_one:x"),
    ]
    alone = pooled_names(["a", "b"], table_of_feature=table_of_feature, owners=["x"])
    assert alone == ["a", "b"]


@pytest.mark.parametrize("name", ["items", "keys", "forward", "training", "weight", "a_b"])
def test_a_table_may_have_any_name_that_a_recipe_may_give(name: str) -> None:
    """Also one that PyTorch's modules use for something else."""
    declared = build_tables(
        {name: TableConfig(num_rows=10, dim=4)}, keys=[name], table_of_feature={name: name}
    )
    assert [parameter.shape for parameter in declared.parameters()] == [(10, 4)]
