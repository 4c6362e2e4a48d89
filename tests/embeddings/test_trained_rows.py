"""Which rows training has updated, told by the optimizer, against the ids that it was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from embeddings.trained_rows import trained_rows
from tests.helpers.logs import write_toy_log
from tests.helpers.ranks import run_ranks
from tests.helpers.runs import batches_of_rank, make_recipe
from trainer.build import build_sharded_model
from trainer.config import Recipe
from trainer.optimizer import build_optimizer
from trainer.runtime import joined_ranks

FEATURES = {"user": ["user"], "item": ["item", "history"]}


def train_and_tell(recipes: list[Recipe]) -> list[dict[str, Any]]:
    """Of each recipe and table, rows that any rank saw, and those that are told to be trained."""
    found = []
    for recipe in recipes:
        with joined_ranks() as runtime:
            model, _ = build_sharded_model(recipe, runtime=runtime)
        optimizer = build_optimizer(
            model, config=recipe.optimizer, is_frozen=lambda name: "user" in name
        )
        seen: dict[str, set[int]] = {table: set() for table in FEATURES}
        for batch in batches_of_rank(recipe, num_steps=2):
            optimizer.zero_grad()
            loss, _ = model(batch)
            loss.backward()
            optimizer.step()
            for table, features in FEATURES.items():
                for feature in features:
                    seen[table] |= set(batch.ids[feature].values().tolist())
        by_rank: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(by_rank, seen)
        tables = recipe.embeddings.tables
        told = trained_rows(
            optimizer,
            num_rows={table: tables[table].num_rows for table in FEATURES},
            device=torch.device("cpu"),
        )
        for table, is_trained_R in told.items():
            found.append(
                {
                    "seen": set().union(*(rank[table] for rank in by_rank)),
                    "told": set(is_trained_R.nonzero().flatten().tolist()),
                    "num_rows": (len(is_trained_R), tables[table].num_rows),
                }
            )
    return found


@pytest.mark.parametrize("world_size", [1, 2])
def test_trained_rows_are_those_of_the_ids_that_were_read(tmp_path: Path, world_size: int) -> None:
    """However tables' rows are cut, over all ranks, where each task has tables of its own, and in
    tables that are frozen.
    """
    log = write_toy_log(tmp_path / "log")
    cuts = ["row_wise", "table_wise", "data_parallel"]
    recipes = [make_recipe(log, tmp_path / cut, sharding=cut) for cut in cuts]
    recipes.append(make_recipe(log, tmp_path / "own", "model.architecture=single_task"))
    for found in run_ranks(train_and_tell, world_size=world_size, arguments={"recipes": recipes}):
        for item in found:
            assert item["told"] == item["seen"]
            found_rows, num_rows = item["num_rows"]
            assert found_rows == num_rows > len(item["told"]) > 0
