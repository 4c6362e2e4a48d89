"""Whole runs on the toy log, and what they left in their folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from data_loaders.batch import InteractionBatch
from data_loaders.loader import InteractionLoader
from data_loaders.storage import locate
from data_loaders.streams import Cursor
from tests.helpers.checkpoints import read_tensors
from tests.helpers.logs import toy_recipe
from tests.helpers.ranks import run_ranks
from trainer.checkpoint import Checkpoints
from trainer.config import Recipe
from trainer.loop import train
from trainer.progress import Progress
from trainer.recipe_file import build_recipe


def make_recipe(log: Path, folder: Path, *overrides: str, **changes: Any) -> Recipe:
    tree = toy_recipe(log, **changes)
    tree["run"]["uri"] = str(folder)
    return build_recipe(tree, overrides=overrides, source="toy")


def batches_of_rank(recipe: Recipe, *, num_steps: int) -> Iterator[InteractionBatch]:
    """This rank's part of the first steps of the log."""
    loader = InteractionLoader(
        recipe.data,
        split="train",
        num_rows=recipe.num_rows_of_feature(),
        seed=0,
        rank=dist.get_rank(),
        world_size=dist.get_world_size(),
    )
    return loader.batches(start=Cursor(), num_steps=num_steps)


def train_each(recipes: list[Recipe]) -> None:
    """One after another, in the same processes, because ranks start slowly."""
    for recipe in recipes:
        train(recipe)


def train_on(recipe: Recipe, *, world_size: int) -> None:
    run_ranks(train, world_size=world_size, arguments={"recipe": recipe})


def notes_of(recipe: Recipe) -> list[str]:
    """Trains, and gives back what a person is told beside the progress."""
    told: list[Progress] = []
    train(recipe, listener=told.append)
    return [progress.note for progress in told if progress.note]


def reports(run: Path, *, split: str = "train") -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["split"] == split]


def losses(run: Path) -> np.ndarray:
    """Each step's mean loss of each task."""
    return np.array([[task["loss"] for task in line["tasks"].values()] for line in reports(run)])


def summary(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return found


def newest_tensors(run: Path) -> dict[str, torch.Tensor]:
    newest = Checkpoints(locate(str(run)), keep=1).newest()
    assert newest is not None
    return read_tensors(newest[0])


def assert_close(
    found: dict[str, dict[str, Any]], expected: dict[str, dict[str, Any]], *, tolerance: float
) -> None:
    """The metrics of all tasks, some of them None."""
    assert list(found) == list(expected)
    for task, metrics in expected.items():
        assert found[task].keys() == metrics.keys()
        for name, value in metrics.items():
            near = value if value is None else pytest.approx(value, rel=tolerance, abs=tolerance)
            assert found[task][name] == near, (task, name)


def interrupt_after(run: Path, *, step: int) -> None:
    """Leaves the run as a crash after the checkpoint of `step` would."""
    for folder in (run / "checkpoints").iterdir():
        if int(folder.name.removeprefix("step-")) > step:
            shutil.rmtree(folder)
    (run / "summary.json").unlink()
