"""Tables of a task's own: planned, trained, reported and restored as those that tasks share."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torchrec.distributed.model_parallel import DistributedModelParallel

from data_loaders.storage import locate
from embeddings.planner import is_table
from tests.helpers.checkpoints import read_tensors
from tests.helpers.logs import toy_recipe, write_toy_log
from tests.helpers.ranks import run_ranks
from tests.helpers.runs import batches_of_rank
from trainer.build import build_sharded_model
from trainer.checkpoint import Checkpoints
from trainer.config import Recipe
from trainer.loop import train
from trainer.optimizer import build_optimizer
from trainer.recipe_file import RecipeError, build_recipe
from trainer.runtime import joined_ranks

TASKS = ("click", "purchase", "watch")
ATTENDED = {"history": {"encoder": "target_attention", "target": "item"}}
TOWERS = {"shared_tower": [16], "task_tower": [8], "interaction": "dcn"}


def make_recipe(
    log: Path | str, model: dict[str, Any], sharding: str = "auto", **changes: Any
) -> Recipe:
    tree = toy_recipe(log, model=model, sharding=sharding, **changes)
    if sharding == "row_wise":
        tree["embeddings"]["tables"]["tags"]["pooling"] = "sum"
    return build_recipe(tree, overrides=(), source="toy")


def build(recipe: Recipe) -> DistributedModelParallel:
    with joined_ranks() as runtime:
        return build_sharded_model(recipe, runtime=runtime)[0]


def outputs_of_steps(recipe: Recipe, model: DistributedModelParallel) -> Tensor:
    """Trains for some steps: the outputs of each, (steps, B, T)."""
    optimizer = build_optimizer(model, config=recipe.optimizer)
    found = []
    for batch in batches_of_rank(recipe, num_steps=5):
        optimizer.zero_grad()
        loss, output = model(batch)
        loss.backward()
        optimizer.step()
        found.append(output.outputs_BK)
    return torch.stack(found)


@torch.no_grad()
def begin(model: DistributedModelParallel, *, task: str | None = None) -> None:
    """Values that are the same beside other tasks and alone, wherever a shard lies.

    Args:
        task: of a model with one task; None for one of all.
    """
    for name, item in model.state_dict().items():
        if not is_table(name):
            continue
        table, _, owner = name.split(".")[-2].partition(":")
        phase = zlib.crc32(f"{table} {owner or task}".encode()) % 1000
        shards = [(item, [0, 0])]
        if isinstance(item, ShardedTensor):
            shards = [(one.tensor, one.metadata.shard_offsets) for one in item.local_shards()]
        for values, (row, column) in shards:
            rows = torch.arange(row, row + values.shape[0]).unsqueeze(1)
            columns = torch.arange(column, column + values.shape[1])
            values.copy_(0.1 * torch.sin(rows * 1.3 + columns * 7.1 + phase))
    for of_task in TASKS if task is None else (task,):
        torch.manual_seed(TASKS.index(of_task))
        kinds = ("towers", "own_interactions", "encoders")
        parts = [f".{kind}.{TASKS.index(of_task)}." for kind in kinds]
        for name, item in model.named_parameters():
            is_own = task is not None or any(part in name for part in parts)
            if is_own and not is_table(name):
                item.copy_(torch.randn(item.shape) * 0.3)


def distances(log: str, shardings: list[str], histories: dict[str, Any]) -> dict[str, float]:
    """The largest difference between the tasks' outputs alone and beside the others."""
    found = {}
    towers = TOWERS | {"histories": histories}
    for sharding in shardings:
        recipe = make_recipe(log, {"architecture": "single_task", **towers}, sharding)
        model = build(recipe)
        begin(model)
        together = outputs_of_steps(recipe, model)
        assert float((together[-1] - together[0]).abs().max()) > 0.01
        differences = []
        for index, task in enumerate(TASKS):
            kept = {task: toy_recipe(log)["data"]["tasks"][task]}
            recipe = make_recipe(log, towers, sharding, data={"tasks": kept})
            model = build(recipe)
            begin(model, task=task)
            differences.append(together[..., index] - outputs_of_steps(recipe, model)[..., 0])
        found[sharding] = float(torch.stack(differences).abs().max())
    return found


@pytest.mark.parametrize(
    ("world_size", "shardings", "histories"),
    [
        (1, ["auto", "row_wise"], {}),
        (2, ["auto", "row_wise", "column_wise", "data_parallel"], {}),
        (2, ["auto", "row_wise", "column_wise"], ATTENDED),
    ],
)
def test_single_tasks_side_by_side_are_runs_of_their_own(
    tmp_path: Path, world_size: int, shardings: list[str], histories: dict[str, Any]
) -> None:
    """Each task's outputs in every step are those of a run with this task alone."""
    log = write_toy_log(tmp_path / "log")
    arguments = {"log": str(log), "shardings": shardings, "histories": histories}
    for found in run_ranks(distances, world_size=world_size, arguments=arguments):
        assert max(found.values()) < 1e-5, found


@pytest.mark.parametrize("sharding", ["auto", "data_parallel"])
def test_a_run_with_tables_of_tasks_goes_on_at_another_number_of_ranks(
    tmp_path: Path, sharding: str
) -> None:
    """Shared and own tables are in the checkpoint, and in the plan by their names."""
    log = write_toy_log(tmp_path / "log")
    folders = {name: tmp_path / name for name in ("whole", "changed")}
    for name, legs in (("whole", [(1, 8)]), ("changed", [(2, 4), (1, 8)])):
        for world_size, num_steps in legs:
            recipe = make_recipe(
                log,
                {"architecture": "stem", "expert_tower": [8], "task_tower": [8]},
                sharding,
                run={"uri": str(folders[name]), "num_steps": num_steps},
            )
            run_ranks(train, world_size=world_size, arguments={"recipe": recipe})
    whole, changed = (
        read_tensors(newest[0])
        for folder in folders.values()
        if (newest := Checkpoints(locate(str(folder)), keep=1).newest()) is not None
    )
    assert whole.keys() == changed.keys()
    tables = {key for key in whole if key.endswith(".weight") and is_table(key)}
    assert len(tables) == 4 * (1 + len(TASKS))
    for key in tables:
        torch.testing.assert_close(changed[key], whole[key], rtol=1e-3, atol=1e-4)
    summary = json.loads((folders["whole"] / "summary.json").read_text())
    owners = [None, *TASKS]
    assert {item["table"] for item in summary["plan"]} == {
        table if owner is None else f"{table}:{owner}"
        for table in ("user", "item", "country", "tags")
        for owner in owners
    }


def test_a_single_task_has_its_tables_once() -> None:
    """With one task there is one owner, and TorchRec names the vectors by the features alone."""
    tasks = {"click": {"kind": "binary"}}
    recipe = make_recipe("log", {"architecture": "single_task"}, data={"tasks": tasks})
    assert recipe.table_owners() == ["click"]
    assert list(recipe.tables()) == ["user:click", "item:click", "country:click", "tags:click"]


def test_means_of_several_owners_are_not_cut_by_rows() -> None:
    """TorchRec divides their neighbours that pool by sum; `auto` keeps away from it by itself."""
    model = {"architecture": "stem"}
    tree = toy_recipe("log", model=model, sharding="row_wise")
    with pytest.raises(RecipeError) as error:
        build_recipe(tree, overrides=(), source="toy")
    assert str(error.value) == (
        "toy: embeddings.tables.tags.sharding: row_wise is not possible with pooling mean where "
        "tasks have tables of their own, as in model.architecture: stem; use auto"
    )
    tables = make_recipe("log", model).tables()
    assert {name for name, item in tables.items() if item.sharding == "table_wise"} == {
        "tags",
        *(f"tags:{task}" for task in TASKS),
    }
