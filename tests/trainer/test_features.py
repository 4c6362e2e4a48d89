"""Runs with every kind of feature at once, fitted on their training split."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from data_loaders.storage import locate
from tests.helpers.checkpoints import assert_equal, read_tensors
from tests.helpers.logs import SPLITS, toy_recipe, toy_table, write_groups
from tests.helpers.ranks import run_ranks
from tests.helpers.runs import losses, summary, train_on
from tests.helpers.statistics import write_statistics
from trainer.checkpoint import CheckpointMismatchError, Checkpoints
from trainer.config import Recipe
from trainer.evaluate import evaluate_checkpoint
from trainer.fitting import fitted_recipe
from trainer.recipe_file import build_recipe
from trainer.vocabularies import with_kept_vocabularies

COLUMNS: dict[str, Any] = {
    "user": "id",
    "item": "id",
    "age": "number",
    "price": "number",
    "watch": "number",
}
FEATURES = {
    "user": {"kind": "id", "encoding": "vocabulary", "min_count": 2, "dropout": 0.1},
    "item": {"kind": "id", "encoding": "vocabulary", "fill": "item-1"},
    "history": {
        "kind": "id_list",
        "encoding": "vocabulary",
        "table": "item",
        "max_length": 4,
        "weights": "history_weights",
        "dropout": 0.2,
    },
    "country": {"kind": "id", "encoding": "direct"},
    "age_range": {"kind": "id", "encoding": "quantiles", "column": "age"},
    "tags": {"kind": "id_list", "weights_sum_to_one": True},
    "age": {"kind": "dense", "log": True, "mean": "fit", "std": "fit"},
    "price": {"kind": "dense", "clip": [0, 9], "fill": 5, "mean": "fit", "std": "fit"},
    "look": {"kind": "dense_vector", "length": 3},
}
TABLES = {
    "user": {"num_rows": 150, "dim": 8},
    "item": {"num_rows": 40, "dim": 4},
    "country": {"num_rows": 7, "dim": 4},
    "age_range": {"num_rows": 9, "dim": 4},
    "tags": {"num_rows": 53, "dim": 8},
}


def full_table(num_rows: int, *, seed: int) -> pa.Table:
    """The toy log with weights of the histories and a vector."""
    table = toy_table(num_rows, seed=seed)
    random = np.random.default_rng(seed)
    weights = [
        None if items is None else random.random(len(items)).round(2).tolist()
        for items in table["history"].to_pylist()
    ]
    looks = [None if random.random() < 0.1 else random.normal(size=3) for _ in range(num_rows)]
    table = table.append_column("history_weights", pa.array(weights, pa.list_(pa.float32())))
    return table.append_column("look", pa.array(looks, pa.list_(pa.float32(), 3)))


def write_log(root: Path, *, seed: int = 0) -> Path:
    for split, sizes in SPLITS.items():
        files = []
        for file in sizes:
            seed += len(file)
            files.append([full_table(rows, seed=seed + at) for at, rows in enumerate(file)])
        write_groups(root, split=split, files=files)
    write_statistics(root, COLUMNS)
    return root


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with every kind of column, and its statistics; read only."""
    return write_log(tmp_path_factory.mktemp("log"))


def make_recipe(log: Path, run: Path, *overrides: str, sharding: str = "auto") -> Recipe:
    tree = toy_recipe(log, run={"uri": str(run)})
    tree["data"]["features"] = FEATURES
    tree["data"]["tasks"]["watch"] |= {"mean": "fit", "std": "fit"}
    tree["embeddings"]["tables"] = {
        name: table | {"sharding": sharding} for name, table in TABLES.items()
    }
    return build_recipe(tree, overrides=overrides, source="toy")


@pytest.fixture(scope="module")
def trained(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 12 steps on one rank."""
    run = tmp_path_factory.mktemp("run")
    train_on(make_recipe(log, run, "run.num_steps=12"), world_size=1)
    return run


@pytest.mark.parametrize("sharding", ["table_wise", "row_wise", "data_parallel"])
def test_two_ranks_train_as_one(log: Path, trained: Path, tmp_path: Path, sharding: str) -> None:
    """With weighted lists, however the tables are cut, over the end of the epoch."""
    train_on(make_recipe(log, tmp_path, "run.num_steps=12", sharding=sharding), world_size=2)
    one, two = losses(trained), losses(tmp_path)
    assert one.shape == (12, 3)
    assert len(np.unique(one[:, 0])) == 12
    np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-5)


def test_a_run_keeps_what_it_was_fitted_with(log: Path, trained: Path) -> None:
    """Its recipe says everything: nothing is left to fit."""
    text = (trained / "recipe.yaml").read_text()
    recipe = build_recipe(yaml.safe_load(text), overrides=[], source="stored")
    assert "fit\n" not in text
    fitted = fitted_recipe(make_recipe(log, trained, "run.num_steps=12"))
    assert recipe == with_kept_vocabularies(fitted, run=locate(str(trained))) != fitted
    assert recipe == fitted_recipe(recipe)
    [newest, *_] = reversed(Checkpoints(locate(str(trained)), keep=1).complete())
    assert newest[1].recipe == recipe.model_dump(mode="json")


def test_known_and_rare_ids_are_told_apart_in_the_evaluation(log: Path, trained: Path) -> None:
    """As many of each as the log has, counted by hand."""

    def users(split: str) -> list[int | None]:
        files = sorted((log / split).iterdir())
        return [user for file in files for user in pq.read_table(file)["user"].to_pylist()]

    counts = collections.Counter(user for user in users("train") if user is not None)
    ranked = sorted(counts, key=lambda user: (-counts[user], user))
    known = {user for user in ranked[:148] if counts[user] >= 2}
    tested = [user for user in users("test") if user is not None]
    click = summary(trained)["tasks"]["click"]
    assert click["examples_user_warm"] == sum(user in known for user in tested)
    assert click["examples_user_cold"] == sum(user not in known for user in tested) > 0
    assert 0 < click["auc_user_warm"] < 1


def test_a_run_that_is_fitted_anew_goes_on(log: Path, trained: Path, tmp_path: Path) -> None:
    """With the recipe as written, from another folder of the same files, to the same weights."""
    for name in ("metrics.jsonl", "recipe.yaml"):
        assert (trained / name).exists()
    train_on(make_recipe(log, tmp_path, "run.num_steps=5"), world_size=1)
    moved = tmp_path.with_name("moved")
    moved.symlink_to(log)
    train_on(make_recipe(moved, tmp_path, "run.num_steps=12"), world_size=1)
    tensors = []
    for run in (tmp_path, trained):
        newest = Checkpoints(locate(str(run)), keep=1).newest()
        assert newest is not None
        tensors.append(read_tensors(newest[0]))
    assert_equal(*tensors)


def test_a_run_does_not_go_on_with_other_statistics(log: Path, tmp_path: Path) -> None:
    """Its rows and numbers would mean something else; the first key that differs is named, and the
    run's own vocabularies stay.
    """
    copy = write_log(tmp_path / "log")
    run = tmp_path / "run"
    train_on(make_recipe(copy, run, "run.num_steps=2"), world_size=1)
    other = make_recipe(copy, run, "run.num_steps=4", "data.features.age.mean=3.25")
    with pytest.raises(CheckpointMismatchError, match=r"data\.features\.age\.mean is .* and 3\.25"):
        train_on(other, world_size=1)
    vocabulary = copy / "vocabularies" / "user.parquet"
    vocabulary.write_bytes((copy / "vocabularies" / "item.parquet").read_bytes())
    with pytest.raises(CheckpointMismatchError, match=r"data\.features\.user\.vocabulary_digest"):
        train_on(make_recipe(copy, run, "run.num_steps=4"), world_size=1)
    arguments = {"run": str(run), "data_root": None}
    [found] = run_ranks(evaluate_here, world_size=1, arguments=arguments)
    assert found == summary(run)["tasks"]


def evaluate_here(run: str, data_root: str | None) -> dict[str, Any]:
    newest = Checkpoints(locate(run), keep=1).newest()
    assert newest is not None
    return evaluate_checkpoint(newest[0], data_root=data_root, listener=None).tasks


def test_other_data_are_evaluated_with_the_statistics_of_training(
    log: Path, trained: Path, tmp_path: Path
) -> None:
    """The same test split beside another training split gives the same metrics."""
    other = write_log(tmp_path / "other", seed=77)
    (other / "test").rename(tmp_path / "test")
    (other / "test").symlink_to(log / "test")
    (other / "dataset.json").unlink()
    [found] = run_ranks(
        evaluate_here, world_size=1, arguments={"run": str(trained), "data_root": str(other)}
    )
    assert found == summary(trained)["tasks"]
