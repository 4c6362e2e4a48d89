"""A run on a log that holds only positives."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_loaders.storage import locate
from tests.helpers.checkpoints import assert_equal, read_tensors
from tests.helpers.logs import write_groups
from tests.helpers.ranks import run_ranks
from tests.helpers.runs import train_on
from trainer.checkpoint import CheckpointMismatchError, Checkpoints
from trainer.config import Recipe
from trainer.evaluate import evaluate_checkpoint
from trainer.recipe_file import build_recipe

RECIPE_GUIDE = Path(__file__).parents[2] / "docs" / "recipe.md"
NUM_GROUPS = 4  # of users and of items: nine clicks of ten stay within one


def clicks(num_rows: int, *, seed: int) -> pa.Table:
    """Positives only: a user of group g clicks items of group g."""
    random = np.random.default_rng(seed)
    users = random.integers(0, 40, num_rows)
    groups = np.where(random.random(num_rows) < 0.9, users, random.integers(0, 40, num_rows))
    items = random.integers(0, 15, num_rows) * NUM_GROUPS + groups % NUM_GROUPS
    return pa.table(
        {
            "user_id": users,
            "item_id": pa.array([f"item-{item}" for item in items]),
            "category": items % 7,
            "price": items / 10.0,
            "click": np.ones(num_rows, np.int8),
        }
    )


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two splits, and the catalogue that the guide's lines of pandas write; read only."""
    folder = tmp_path_factory.mktemp("data")
    for split, sizes in {"train": (900, 1100), "test": (500,)}.items():
        tables = [clicks(size, seed=size) for size in sizes]
        write_groups(folder / "log", split=split, files=[tables])
    [lines] = re.findall(r"```python\n(import pandas.*?)```", RECIPE_GUIDE.read_text(), re.DOTALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(lines, {})
    return folder / "log"


def make_recipe(log: Path, run: Path, *overrides: str) -> Recipe:
    tree = {
        "data": {
            "root": str(log),
            "batch_size": 64,
            "num_streams": 4,
            "negatives": {"catalogue": "catalogue.parquet"},
            "features": {
                "user_id": {"kind": "id"},
                "item_id": {"kind": "id"},
                "category": {"kind": "id"},
                "price": {"kind": "dense", "mean": 3.0, "std": 2.0},
            },
            "tasks": {"click": {"kind": "binary"}},
        },
        "embeddings": {
            "tables": {
                name: {"num_rows": 1000, "dim": 8} for name in ("user_id", "item_id", "category")
            }
        },
        "optimizer": {"tables": {"learning_rate": 0.2}, "dense": {"learning_rate": 0.02}},
        "checkpoint": {"keep": 9},
        "run": {"uri": str(run), "num_epochs": 6, "log_interval_steps": 1},
    }
    return build_recipe(tree, overrides=overrides, source="clicks")


def evaluate_newest(run: str) -> dict[str, dict[str, float | None]]:
    newest = Checkpoints(locate(run), keep=1).newest()
    assert newest is not None
    return evaluate_checkpoint(newest[0], data_root=None, listener=None).tasks


@pytest.fixture(scope="module")
def trained(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    train_on(make_recipe(log, run), world_size=2)
    return run


def test_positives_alone_teach_what_is_clicked(log: Path, trained: Path) -> None:
    """On held-out positives among drawn items; evaluating again draws the same."""
    summary = json.loads((trained / "summary.json").read_text())
    click = summary["tasks"]["click"]
    assert summary["evaluated_on"] == "test"
    assert summary["examples"] == 6 * 2000  # of the log
    assert click["examples"] == 5 * 500  # with the drawn ones
    assert click["auc"] > 0.8
    [again] = run_ranks(evaluate_newest, world_size=1, arguments={"run": str(trained)})
    assert again["click"]["auc"] == pytest.approx(click["auc"], abs=1e-4)
    assert again["click"]["examples"] == click["examples"]


def test_a_resumed_run_draws_as_an_uninterrupted_one(log: Path, tmp_path: Path) -> None:
    """Mid-epoch, to the last bit."""
    tensors = []
    for name, stops in {"whole": [40], "broken": [11, 40]}.items():
        for steps in stops:
            recipe = make_recipe(log, tmp_path / name, f"run.num_steps={steps}")
            train_on(recipe, world_size=1)
        newest = Checkpoints(locate(str(tmp_path / name)), keep=1).newest()
        assert newest is not None
        tensors.append(read_tensors(newest[0]))
    assert_equal(*tensors)


def test_a_run_does_not_go_on_with_another_catalogue(log: Path, tmp_path: Path) -> None:
    """Nor with other draws from it; the same file elsewhere will do."""
    run, own = tmp_path / "run", tmp_path / "own.parquet"
    train_on(make_recipe(log, run, "run.num_steps=2"), world_size=1)
    own.write_bytes((log / "catalogue.parquet").read_bytes())
    override = f"data.negatives.catalogue={own}"
    train_on(make_recipe(log, run, "run.num_steps=3", override), world_size=1)
    other = make_recipe(log, run, "run.num_steps=4", "data.negatives.sampling=popularity")
    with pytest.raises(CheckpointMismatchError, match=r"data\.negatives\.sampling is 'uniform'"):
        train_on(other, world_size=1)
    pq.write_table(pq.read_table(own).slice(1), own)
    with pytest.raises(CheckpointMismatchError, match=r"its catalogue, or run\.seed, has"):
        train_on(make_recipe(log, run, "run.num_steps=4", override), world_size=1)
