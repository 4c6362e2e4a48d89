"""Runs that begin with another's values."""

from __future__ import annotations

import fnmatch
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from data_loaders.errors import InputError
from data_loaders.storage import locate
from tests.helpers.checkpoints import read_tensors
from tests.helpers.logs import write_toy_log
from tests.helpers.ranks import run_ranks
from tests.helpers.runs import (
    interrupt_after,
    make_recipe,
    newest_tensors,
    reports,
    train_each,
    train_on,
)
from trainer.config import Recipe
from trainer.evaluate import chosen_checkpoint
from trainer.loop import train

SHARED = ["tables.user", "tables.item", "towers.architecture.bottom.*"]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy log, read only."""
    return write_toy_log(tmp_path_factory.mktemp("log"))


@pytest.fixture(scope="module")
def first(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on one rank with a moving average; its checkpoint that is evaluated is the last."""
    run = tmp_path_factory.mktemp("first")
    train_on(first_recipe(log, run), world_size=1)
    return run


def first_recipe(log: Path, run: Path) -> Recipe:
    optimizer = {"ema_decay": 0.5, "dense": {"learning_rate": 0.05}}
    return make_recipe(log, run, "run.select=last", optimizer=optimizer, sharding="table_wise")


def second_recipe(log: Path, run: Path, *overrides: str, first: Path, **changes: Any) -> Recipe:
    """Of other towers for the tasks, and tables cut by rows."""
    section = {"run": str(first), "parameters": SHARED}
    sections = {"sharding": "row_wise", "init_from": section, **changes}
    options = ["model.task_tower=[4]", "run.seed=7", *overrides]
    return make_recipe(log, run, *options, **sections)


def weights(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Of the model, by the names that patterns are written for."""
    return {
        f"tables.{key.split('.')[-2].removeprefix('table_')}"
        if ".embedding_bags." in key
        else key.removeprefix("/model/"): item
        for key, item in tensors.items()
        if key.startswith("/model/")
    }


def is_shared(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in SHARED)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["row_wise", "data_parallel"])
def test_frozen_values_are_those_of_the_other_run_to_the_end(
    log: Path, first: Path, tmp_path: Path, sharding: str
) -> None:
    """Bit by bit, on 2 ranks and other cuts, the dense ones averaged; all others train."""
    section = {"run": str(first), "parameters": SHARED, "freeze": True}
    options = {"tables": {"l2": 0.1}, "dense": {"weight_decay": 0.1, "max_gradient_norm": 1.0}}
    frozen = second_recipe(
        log, tmp_path / "run", first=first, init_from=section, sharding=sharding, optimizer=options
    )
    short = second_recipe(log, tmp_path / "short", "run.num_steps=1", first=first)
    run_ranks(train_each, world_size=2, arguments={"recipes": [short, frozen]})
    theirs = read_tensors(chosen_checkpoint(locate(str(first))))
    found, begun = (weights(newest_tensors(tmp_path / name)) for name in ("run", "short"))
    num_averaged = 0
    for name, item in weights(theirs).items():
        average = theirs.get(f"/average/values/{name}")
        if average is not None and is_shared(name):
            item = average / float(theirs["/average/weight"])
            num_averaged += 1
        assert found[name].shape == item.shape or not is_shared(name)
        if found[name].shape == item.shape:
            assert torch.equal(found[name], item) == is_shared(name), name
    assert num_averaged == 2  # weight and bias of one layer
    assert not torch.equal(begun["tables.user"], found["tables.user"])  # without freeze they train


@pytest.mark.slow
def test_a_resumed_run_does_not_need_the_other_any_more(
    log: Path, first: Path, tmp_path: Path
) -> None:
    """It goes on from its own checkpoint, and ends as if it had not been interrupted."""
    other = tmp_path / "other"
    shutil.copytree(first, other)
    section = {"run": str(other), "parameters": SHARED, "freeze": True}
    options = {"checkpoint": {"interval_steps": 2, "keep": 9}, "init_from": section}
    recipe = second_recipe(log, tmp_path / "run", first=other, **options)
    train_on(recipe, world_size=1)
    whole = newest_tensors(tmp_path / "run")
    shutil.rmtree(other)
    interrupt_after(tmp_path / "run", step=2)
    train_on(recipe, world_size=1)
    again = newest_tensors(tmp_path / "run")
    assert all(torch.equal(again[key], item) for key, item in whole.items())


@pytest.mark.slow
def test_what_balances_the_tasks_begins_anew(log: Path, first: Path, tmp_path: Path) -> None:
    """Whatever the other run's method was; of the same one, what it knew of its own losses."""
    sections: dict[str, Any] = {"balance": {"method": "gradnorm"}, "sharding": "row_wise"}
    second, third = tmp_path / "second", tmp_path / "third"
    recipes = [
        make_recipe(log, run, "run.num_steps=1", init_from={"run": str(other)}, **sections)
        for run, other in ((second, first), (third, second))
    ]
    run_ranks(train_each, world_size=1, arguments={"recipes": recipes})
    losses = "towers.fan_out.balancer.first_losses_T"
    known = [weights(newest_tensors(run))[losses] for run in (second, third)]
    for run, losses_T in zip((second, third), known, strict=True):
        report = reports(run)[0]["tasks"].values()
        torch.testing.assert_close(losses_T.tolist(), [task["loss"] for task in report])
    assert not torch.equal(*known)


def refusals(recipes: list[Recipe]) -> list[str]:
    found = []
    for recipe in recipes:
        with pytest.raises(InputError) as caught:
            train(recipe)
        found.append(str(caught.value))
    return found


def test_what_does_not_fit_is_refused_in_one_line(log: Path, first: Path, tmp_path: Path) -> None:
    """By the names of a recipe, with the shapes here and there."""

    def recipe(*overrides: str, **section: Any) -> Recipe:
        run = tmp_path / str(len(recipes))
        section = {"run": str(first), **section}
        return second_recipe(log, run, *overrides, first=first, init_from=section)

    recipes: list[Recipe] = []
    recipes.append(recipe())
    recipes.append(recipe(parameters=["tables.usr"]))
    recipes.append(
        recipe("balance.method=uncertainty", parameters=["towers.architecture.*"], freeze=True)
    )
    recipes.append(recipe("data.features.country.encoding=hash", parameters=["tables.*"]))
    recipes.append(recipe(run=str(tmp_path / "nowhere")))
    shape, name, all_frozen, meaning, nowhere = run_ranks(
        refusals, world_size=1, arguments={"recipes": recipes}
    )[0]
    layer = "towers.architecture.towers.0.0.bias is [8] there, [4] here"
    assert f"{layer} and 8 more do not fit; leave them out" in shape
    assert "init_from.parameters: tables.usr names nothing" in name
    assert "did you mean tables.user?" in name
    assert "init_from.freeze: no dense parameter is left to train" in all_frozen
    assert "the rows of table country are other ids there" in meaning
    assert "there is nothing at this URI" in nowhere
    for text in (shape, name, all_frozen, meaning, nowhere):
        assert "\n" not in text
