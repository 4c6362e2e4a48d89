"""Runs with `model.histories`: on any number of ranks, interrupted, and what they learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import JaggedTensor, KeyedTensor

from data_loaders.batch import InteractionBatch, id_feature_names
from data_loaders.loader import InteractionLoader
from data_loaders.storage import locate
from data_loaders.streams import Cursor
from embeddings.tables import initialise_tables, module_name
from tests.helpers.checkpoints import assert_equal
from tests.helpers.logs import SPLITS, write_groups, write_toy_log
from tests.helpers.ranks import run_ranks
from tests.helpers.runs import (
    interrupt_after,
    losses,
    make_recipe,
    newest_tensors,
    summary,
    train_each,
    train_on,
)
from trainer.build import TABLE_INIT_STD, build_model
from trainer.config import Recipe
from trainer.evaluate import chosen_checkpoint
from trainer.importance import measure_importance
from trainer.recipe_file import build_recipe

ATTENTION = {"encoder": "target_attention", "target": "item", "hidden": [6]}
BOTH = {"history": ATTENTION, "tags": {"encoder": "transformer", "num_layers": 2}}
SUM_TAGS = "embeddings.tables.tags.pooling=sum"
NUM_ITEMS = 50
# a pooled list in the table of an encoded one and of a single id
AGAIN = "data.features.again={kind: id_list, column: history, table: item, max_length: 3}"
CASES: dict[str, list[str]] = {
    "means": [SUM_TAGS, AGAIN, "embeddings.tables.item.pooling=mean", "optimizer.tables.l2=0.3"],
    "weights": [SUM_TAGS, AGAIN, "data.features.again.weights_sum_to_one=true"],
    "nothing_pooled": [SUM_TAGS, AGAIN],
}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy log, read only; it is evaluated on what it is trained on."""
    return write_toy_log(tmp_path_factory.mktemp("log"), splits={"train": SPLITS["train"]})


def make(log: Path, run: Path, *overrides: str, **sections: Any) -> Recipe:
    model = {"shared_tower": [16], "task_tower": [8], "histories": BOTH}
    return make_recipe(log, run, SUM_TAGS, *overrides, **{"model": model, **sections})


def make_case(log: Path, run: Path, case: str, *, sharding: str) -> Recipe:
    recipe = make(log, run, *CASES[case], sharding=sharding)
    if case != "nothing_pooled":
        return recipe
    tree = recipe.model_dump(mode="json")
    for name in ("user", "country"):
        del tree["data"]["features"][name], tree["embeddings"]["tables"][name]
    return Recipe.model_validate(tree)


class NaiveRun:
    """The whole model on one rank, with dense tables whose rows are stepped once a step.

    What lies behind the tables is the project's own, and tested elsewhere.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.towers = recipe, build_model(recipe).towers
        self.tables = {
            name: torch.empty(table.num_rows, table.dim, requires_grad=True)
            for name, table in recipe.embeddings.tables.items()
        }
        named = {f"any.{module_name(name)}.weight": item for name, item in self.tables.items()}
        initialise_tables(named, seed=recipe.run.seed, std=TABLE_INIT_STD)
        self.sums = {name: torch.zeros(len(item)) for name, item in self.tables.items()}
        rate = recipe.optimizer.dense.learning_rate
        self.optimizer = torch.optim.AdamW(self.towers.parameters(), lr=rate, weight_decay=0.0)

    def train(self) -> dict[str, Tensor]:
        """All steps; tables and towers by the names of a checkpoint."""
        recipe = self.recipe
        num_rows = recipe.num_rows_of_feature()
        loader = InteractionLoader(recipe.data, split="train", num_rows=num_rows, seed=1)
        for batch in loader.batches(start=Cursor(), num_steps=recipe.run.num_steps or 0):
            self.step(batch)
        towers = {f"towers.{name}": item for name, item in self.towers.named_parameters()}
        return {key: item.detach() for key, item in (self.tables | towers).items()}

    def step(self, batch: InteractionBatch) -> None:
        unpooled, used = self.recipe.unpooled_tables(), self.recipe.table_of_feature()
        keys = id_feature_names(self.recipe.data)
        sequences = {
            key: JaggedTensor(
                values=self.tables[used[key]][batch.ids[key].values()],
                lengths=batch.ids[key].lengths(),
            )
            for key in keys
            if used[key] in unpooled
        }
        bags = [key for key in keys if key not in sequences]
        pooled = [self.bags(batch, key, table=self.tables[used[key]]) for key in bags]
        vectors = KeyedTensor.from_tensor_list(bags, pooled) if bags else None
        loss, _ = self.towers(vectors, batch, [sequences])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        config = self.recipe.optimizer.tables
        for name, item in self.tables.items():
            assert item.grad is not None
            self.sums[name] += item.grad.square().mean(1)
            roots_R = self.sums[name].sqrt() + config.eps
            with torch.no_grad():
                item -= config.learning_rate * item.grad / roots_R.unsqueeze(1)
            item.grad = None

    def bags(self, batch: InteractionBatch, key: str, *, table: Tensor) -> Tensor:
        """Sums of rows, example by example."""
        return torch.stack([table[rows].sum(0) for rows in batch.ids[key].to_dense()])


def naive_runs(recipes: list[Recipe]) -> list[dict[str, Tensor]]:
    return [NaiveRun(recipe).train() for recipe in recipes]


def weights_of(run: Path) -> dict[str, Tensor]:
    """Tables and towers by their names."""
    return {
        key.split(".")[-2].removeprefix("table_")
        if ".table_" in key
        else key[len("/model/") :]: item
        for key, item in newest_tensors(run).items()
        if key.startswith("/model/")
    }


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [1, 2])
def test_a_run_is_that_of_plain_tables(log: Path, tmp_path: Path, world_size: int) -> None:
    """A table with an encoded list, a pooled one and a single id has one update of a row a step,
    with the gradients of all three on all ranks; however it is cut.
    """
    recipes = {
        (case, sharding): make_case(log, tmp_path / case / sharding, case, sharding=sharding)
        for case in CASES
        for sharding in ("table_wise", "row_wise")
    }
    arguments = {"recipes": list(recipes.values())}
    run_ranks(train_each, world_size=world_size, arguments=arguments)
    [naive] = run_ranks(naive_runs, world_size=1, arguments=arguments)
    for (case, sharding), expected in zip(recipes, naive, strict=True):
        found = weights_of(tmp_path / case / sharding)
        assert set(expected) <= set(found)
        for name, item in expected.items():
            torch.testing.assert_close(
                found[name], item, rtol=1e-3, atol=1e-5, msg=f"{case} {name}"
            )


@pytest.mark.slow
def test_a_run_with_histories_goes_on_where_it_was(log: Path, tmp_path: Path) -> None:
    """Bit by bit on the same ranks, and at another number of them."""
    options = {"checkpoint": {"interval_steps": 2, "keep": 9}, "optimizer": {"ema_decay": 0.5}}
    folders = [tmp_path / name for name in ("one", "other")]
    for folder, worlds in zip(folders, ([2, 2], [2, 1]), strict=True):
        recipe = make(log, folder, AGAIN, **options)
        train_on(recipe, world_size=worlds[0])
        whole = newest_tensors(folder)
        interrupt_after(folder, step=2)
        train_on(recipe, world_size=worlds[1])
        if worlds == [2, 2]:
            assert_equal(newest_tensors(folder), whole)
    np.testing.assert_allclose(losses(folders[1]), losses(folders[0]), rtol=1e-4)
    assert {item["table"] for item in summary(folders[0])["plan"]} == set(recipe.tables())


def in_history(num_rows: int, *, seed: int) -> pa.Table:
    """Labels are mostly 1 where the item is in the history, and mostly 0 elsewhere; neither item
    nor history alone tells anything.
    """
    random = np.random.default_rng(seed)
    orders = [random.permutation(NUM_ITEMS) for _ in range(num_rows)]
    lengths, is_in = random.integers(6, 13, num_rows), random.random(num_rows) < 0.5
    items = [
        order[random.integers(length)] if inside else order[-1]
        for order, length, inside in zip(orders, lengths, is_in, strict=True)
    ]
    label = random.random(num_rows) < np.where(is_in, 0.9, 0.1)
    histories = [order[:length].tolist() for order, length in zip(orders, lengths, strict=True)]
    return pa.table({"item": items, "history": histories, "label": label.astype(np.int8)})


def recipe_in_history(root: Path, run: Path, *, histories: dict[str, Any]) -> Recipe:
    table = {"table": "item", "encoding": "direct"}
    tree = {
        "data": {
            "root": str(root),
            "batch_size": 256,
            "num_streams": 4,
            "features": {"item": {"kind": "id"} | table, "history": {"kind": "id_list"} | table},
            "tasks": {"label": {"kind": "binary"}},
        },
        "embeddings": {"tables": {"item": {"num_rows": NUM_ITEMS, "dim": 8}}},
        "model": {"shared_tower": [32], "histories": histories},
        "optimizer": {"tables": {"learning_rate": 0.1}, "dense": {"learning_rate": 0.01}},
        "run": {"uri": str(run), "num_epochs": 6, "log_interval_steps": 1000},
    }
    return build_recipe(tree, overrides=[], source="toy")


def train_and_permute(recipes: list[Recipe]) -> dict[str, float]:
    """What the features of the first one are worth."""
    train_each(recipes)
    checkpoint = chosen_checkpoint(locate(recipes[0].run.uri or ""))
    line = measure_importance(checkpoint, listener=None)
    found: dict[str, float] = line["importance"]["tasks"]["label"]["features"]
    return found


@pytest.mark.slow
def test_target_attention_learns_what_pooling_does_not(tmp_path: Path) -> None:
    """Whether an item is in a history; the best possible AUC is 0.9."""
    root = tmp_path / "log"
    write_groups(root, split="train", files=[[in_history(2000, seed=seed)] for seed in range(4)])
    write_groups(root, split="test", files=[[in_history(2000, seed=9)]])
    attention = {"history": {"encoder": "target_attention", "target": "item"}}
    recipes = [
        recipe_in_history(root, tmp_path / name, histories=histories)
        for name, histories in (("attended", attention), ("pooled", {}))
    ]
    [worth] = run_ranks(train_and_permute, world_size=1, arguments={"recipes": recipes})
    attended, pooled = (
        summary(tmp_path / name)["tasks"]["label"]["auc"] for name in ("attended", "pooled")
    )
    assert attended > 0.87
    assert pooled < 0.72
    assert min(worth["item"], worth["history"]) > 0.3


@pytest.mark.slow
def test_a_run_with_histories_begins_with_tables_that_were_pooled(
    log: Path, tmp_path: Path
) -> None:
    """And the other way round; frozen, they keep their values."""
    folders = [tmp_path / name for name in ("first", "second", "third")]
    section = {"parameters": ["tables.*"], "freeze": True}
    pooled = {"shared_tower": [16], "task_tower": [8]}
    recipes = [
        make(log, folders[0], model=pooled),
        make(log, folders[1], init_from={"run": str(folders[0]), **section}),
        make(log, folders[2], model=pooled, init_from={"run": str(folders[1]), **section}),
    ]
    run_ranks(train_each, world_size=2, arguments={"recipes": recipes})
    first, *others = (weights_of(folder) for folder in folders)
    for table in recipes[0].tables():
        for found in others:
            assert torch.equal(found[table], first[table])
