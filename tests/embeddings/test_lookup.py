"""The sharded lookup and its fused row-wise Adagrad, against PyTorch and a loop in float64."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from embeddings.config import TableConfig
from embeddings.lookup import pooled_in_order
from embeddings.tables import build_tables, initialise_tables, module_name
from tests.helpers.ranks import run_ranks
from tests.helpers.sharding import shard_on_cpu
from trainer.optimizer import build_optimizer
from trainer.optimizer_config import (
    DenseOptimizerConfig,
    OptimizerConfig,
    ScheduleConfig,
    TableOptimizerConfig,
)
from trainer.schedule import Schedule

LEARNING_RATE, EPS = 0.1, 1e-6
BATCH_SIZE, NUM_STEPS = 9, 3
FEATURES = {"user": "user", "first": "item", "second": "item", "tiny": "tiny"}
# pooling; whether ids have weights, which TorchRec only knows with a sum; and whether the learning
# rate changes from step to step
FORMS = [("sum", False, False), ("mean", False, False), ("sum", True, False), ("sum", False, True)]
RATE_FACTORS = [1.0, 5 / 8, 1 / 4]
FALLING = ScheduleConfig(decay="linear", final_fraction=0.25)
SHARDINGS = ["table_wise", "row_wise", "column_wise", "data_parallel", "auto"]

Case = tuple[str, str, bool, bool]  # sharding, and a form


def make_tables(sharding: str, *, pooling: str) -> dict[str, TableConfig]:
    """Sizes that no number of ranks divides, one table of two features, and one of two rows."""
    sizes = {"user": (1003, 8), "item": (37, 16), "tiny": (2, 4)}
    return {
        name: TableConfig.model_validate(
            {"num_rows": num_rows, "dim": dim, "pooling": pooling, "sharding": sharding}
        )
        for name, (num_rows, dim) in sizes.items()
    }


@dataclass(frozen=True)
class Step:
    """One rank's inputs of a step: a bag of ids per feature and example, a weight per id, and the
    gradient E.
    """

    bags: dict[str, list[list[int]]]
    weights: dict[str, list[list[float]]]
    gradient_BE: Tensor


def make_step(*, rank: int, step: int, is_weighted: bool) -> Step:
    """Ids twice in a bag and in a batch, a fifth of the bags empty, first and last rows; with
    weights those of one feature are any numbers, and all others 1.
    """
    random = np.random.default_rng((rank, step))
    bags = {}
    for feature, table in FEATURES.items():
        num_rows = make_tables("auto", pooling="sum")[table].num_rows
        often = [0, num_rows - 1, num_rows // 2]
        bags[feature] = [
            []
            if random.random() < 0.2
            else random.choice([*often, random.integers(num_rows)], random.integers(1, 6)).tolist()
            for _ in range(BATCH_SIZE)
        ]
    gradient_BE = random.normal(size=(BATCH_SIZE, 8 + 16 + 16 + 4)).astype(np.float32)
    weights = {
        feature: [
            random.choice([-1.5, 0.0, 0.25, 1.0, 3.0], len(bag)).tolist()
            if is_weighted and feature == "first"
            else [1.0] * len(bag)
            for bag in bags[feature]
        ]
        for feature in FEATURES
    }
    return Step(bags, weights, torch.from_numpy(gradient_BE))


def jagged(step: Step, *, is_weighted: bool) -> KeyedJaggedTensor:
    bags = [bag for feature in FEATURES for bag in step.bags[feature]]
    weights = [bag for feature in FEATURES for bag in step.weights[feature]]
    return KeyedJaggedTensor(
        keys=list(FEATURES),
        values=torch.tensor([row for bag in bags for row in bag], dtype=torch.int64),
        lengths=torch.tensor([len(bag) for bag in bags], dtype=torch.int32),
        weights=torch.tensor([weight for bag in weights for weight in bag])
        if is_weighted
        else None,
    )


class Lookup(nn.Module):
    """The tables, and one number of a dense part, without which there is no dense optimizer."""

    def __init__(self, tables: dict[str, TableConfig], *, is_weighted: bool) -> None:
        super().__init__()
        self.tables = build_tables(
            tables, keys=list(FEATURES), table_of_feature=FEATURES, is_weighted=is_weighted
        )
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, ids: KeyedJaggedTensor) -> Tensor:
        return pooled_in_order(self.tables(ids), list(FEATURES)) * self.one


def train_lookup(
    sharding: str, pooling: str, is_weighted: bool, is_scheduled: bool
) -> dict[str, Any]:
    """On every rank: what each step looked up, and this rank's pieces of the tables at the end."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    tables = make_tables(sharding, pooling=pooling)
    model = Lookup(tables, is_weighted=is_weighted)
    sharded = shard_on_cpu(model, tables=tables, learning_rate=LEARNING_RATE, eps=EPS)
    weights = {key: item for key, item in sharded.state_dict().items() if key.endswith(".weight")}
    initialise_tables(weights, seed=5, std=0.3)
    optimizer = build_optimizer(
        sharded,
        config=OptimizerConfig(
            tables=TableOptimizerConfig(learning_rate=LEARNING_RATE, eps=EPS),
            dense=DenseOptimizerConfig(learning_rate=1e-30),
        ),
    )
    config = FALLING if is_scheduled else ScheduleConfig()
    schedule = Schedule(config, optimizer=optimizer, num_steps=NUM_STEPS - 1)
    looked_up = []
    for index in range(NUM_STEPS):
        step = make_step(rank=rank, step=index, is_weighted=is_weighted)
        schedule.apply(step=index)
        optimizer.zero_grad()
        pooled_BE = sharded(jagged(step, is_weighted=is_weighted))
        # both DDP and TorchRec divide gradients by the world size
        (pooled_BE * step.gradient_BE).sum().mul(world_size).backward()
        optimizer.step()
        looked_up.append(pooled_BE.detach())
    pieces = {}
    table_of = {module_name(name): name for name in tables}
    for key, parameter in sharded.state_dict().items():
        if key.endswith(".weight"):
            table = table_of[key.split(".")[-2]]
            if isinstance(parameter, ShardedTensor):
                pieces[table] = [
                    (shard.metadata.shard_offsets, shard.tensor)
                    for shard in parameter.local_shards()
                ]
            else:
                pieces[table] = [([0, 0], parameter)]
    return {"looked_up": looked_up, "pieces": pieces}


def train_lookups(cases: list[Case]) -> dict[Case, dict[str, Any]]:
    """On every rank: `train_lookup` for each case, in one process, because ranks start slowly."""
    return {case: train_lookup(*case) for case in cases}


@functools.cache
def results_of(world_size: int) -> list[dict[Case, dict[str, Any]]]:
    """By rank and case."""
    cases = [(sharding, *form) for sharding, form in itertools.product(SHARDINGS, FORMS)]
    return run_ranks(train_lookups, world_size=world_size, arguments={"cases": cases})


@functools.cache
def initial_tables(pooling: str) -> dict[str, np.ndarray]:
    """The whole tables before training."""
    tables = make_tables("auto", pooling=pooling)
    weights = {
        f"tables.embedding_bags.{module_name(name)}.weight": torch.empty(table.num_rows, table.dim)
        for name, table in tables.items()
    }
    initialise_tables(weights, seed=5, std=0.3)
    return {name: weight.numpy() for name, weight in zip(tables, weights.values(), strict=True)}


def naive_step(
    tables: dict[str, np.ndarray],
    momenta: dict[str, np.ndarray],
    steps: list[Step],
    *,
    pooling: str,
    cuts: dict[str, list[int]],
    learning_rate: float,
) -> None:
    """Row-wise Adagrad, row by row: one update per row with the gradients of all ranks' bags.

    A row has one sum of squares for each of the column shards that begin at `cuts`.

    Source: Duchi, Hazan and Singer, JMLR 2011; one sum per row as in Mudigere et al., ISCA 2022.
    """
    gradients: dict[tuple[str, int], np.ndarray] = {}
    for step in steps:
        column = 0
        for feature in FEATURES:
            table = FEATURES[feature]
            dim = tables[table].shape[1]
            bags = zip(step.bags[feature], step.weights[feature], step.gradient_BE, strict=True)
            for bag, weights, gradient in bags:
                part = gradient[column : column + dim].double().numpy()
                for row, weight in zip(bag, weights, strict=True):
                    share = weight * part / (len(bag) if pooling == "mean" else 1)
                    gradients[table, row] = gradients.get((table, row), 0) + share
            column += dim
    for (table, row), gradient in gradients.items():
        bounds = [*cuts[table], len(gradient)]
        for columns in itertools.starmap(slice, itertools.pairwise(bounds)):
            momentum = momenta[table][row, columns]
            momentum += np.mean(gradient[columns] ** 2)
            step_size = learning_rate / (np.sqrt(momentum) + EPS)
            tables[table][row, columns] -= step_size * gradient[columns]


def torch_lookup(tables: dict[str, np.ndarray], step: Step, *, pooling: str) -> Tensor:
    """`torch.nn.EmbeddingBag` for each feature, side by side; it knows weights only with a sum."""
    parts = []
    for feature in FEATURES:
        bags = step.bags[feature]
        offsets = np.concatenate([[0], np.cumsum([len(bag) for bag in bags])[:-1]])
        weight = torch.from_numpy(tables[FEATURES[feature]]).float()
        embedding = nn.EmbeddingBag.from_pretrained(weight, mode=pooling)
        ids = torch.tensor([row for bag in bags for row in bag], dtype=torch.int64)
        weights = torch.tensor([item for bag in step.weights[feature] for item in bag])
        parts.append(
            embedding(
                ids,
                torch.from_numpy(offsets),
                per_sample_weights=weights if pooling == "sum" else None,
            )
        )
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize(("pooling", "is_weighted", "is_scheduled"), FORMS)
@pytest.mark.parametrize("sharding", SHARDINGS)
def test_lookup_and_update_are_those_of_plain_tables(
    sharding: str, pooling: str, is_weighted: bool, is_scheduled: bool, world_size: int
) -> None:
    """At every step, on every rank; and every row of every table at the end."""
    case = (sharding, pooling, is_weighted, is_scheduled)
    results = [by_case[case] for by_case in results_of(world_size)]
    tables = {name: table.astype(np.float64) for name, table in initial_tables(pooling).items()}
    momenta = {name: np.zeros(table.shape) for name, table in tables.items()}
    cuts = {
        name: sorted(
            {offsets[1] for result in results for offsets, _ in result["pieces"].get(name, [])}
        )
        for name in tables
    }
    for index in range(NUM_STEPS):
        steps = [
            make_step(rank=rank, step=index, is_weighted=is_weighted) for rank in range(world_size)
        ]
        for result, step in zip(results, steps, strict=True):
            expected = torch_lookup(tables, step, pooling=pooling)
            torch.testing.assert_close(result["looked_up"][index], expected, rtol=1e-4, atol=1e-5)
        naive_step(
            tables,
            momenta,
            steps,
            pooling=pooling,
            cuts=cuts,
            learning_rate=LEARNING_RATE * (RATE_FACTORS[index] if is_scheduled else 1),
        )
    for name, table in tables.items():
        seen = np.zeros(table.shape, bool)
        for result in results:
            for (row, column), piece in result["pieces"].get(name, []):
                rows, columns = slice(row, row + len(piece)), slice(column, column + piece.shape[1])
                seen[rows, columns] = True
                np.testing.assert_allclose(piece, table[rows, columns], rtol=1e-4, atol=1e-5)
        assert seen.all()


def test_untouched_rows_keep_their_values_bit_by_bit() -> None:
    """Row-wise Adagrad has no decay: a row that no example names does not move."""
    used = {
        row
        for index in range(NUM_STEPS)
        for bag in make_step(rank=0, step=index, is_weighted=False).bags["user"]
        for row in bag
    }
    others = [row for row in range(1003) if row not in used]
    for sharding in ("table_wise", "data_parallel"):
        [by_case] = results_of(1)
        result = by_case[sharding, "sum", False, False]
        [(_, weight)] = result["pieces"]["user"]
        np.testing.assert_array_equal(weight[others], initial_tables("sum")["user"][others])
