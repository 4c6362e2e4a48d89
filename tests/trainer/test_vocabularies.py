"""A run's folder is all that its checkpoints need, whatever becomes of the data set."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from data_loaders.errors import SchemaError, StorageError
from data_loaders.id_vocabulary import digest_of
from data_loaders.storage import locate
from tests.helpers.checkpoints import assert_equal, read_tensors
from tests.helpers.logs import toy_recipe, write_toy_log
from tests.helpers.ranks import run_ranks
from tests.helpers.runs import train_on
from tests.helpers.statistics import write_statistics
from trainer.checkpoint import Checkpoints
from trainer.config import Recipe
from trainer.evaluate import chosen_checkpoint, evaluate_checkpoint
from trainer.fitting import fitted_recipe
from trainer.loop import train
from trainer.recipe_file import build_recipe


def write_log(root: Path) -> Path:
    write_statistics(write_toy_log(root), {"user": "id", "item": "id", "age": "number"})
    return root


def make_recipe(log: Path, run: str | Path, *overrides: str) -> Recipe:
    tree = toy_recipe(log, run={"uri": str(run)}, checkpoint={"keep": 9})
    features = tree["data"]["features"]
    for name in ("user", "item", "history"):
        features[name]["encoding"] = "vocabulary"
    features["age"] |= {"mean": "fit", "std": "fit", "log": False}
    return build_recipe(tree, overrides=overrides, source="toy")


def evaluate_here(run: str, data_root: str | None) -> dict[str, Any]:
    checkpoint = chosen_checkpoint(locate(run))
    return evaluate_checkpoint(checkpoint, data_root=data_root, listener=None).tasks


def evaluated(run: str | Path, *, data_root: Path | None = None) -> dict[str, Any]:
    arguments = {"run": str(run), "data_root": None if data_root is None else str(data_root)}
    [found] = run_ranks(evaluate_here, world_size=1, arguments=arguments)
    tasks: dict[str, Any] = found
    return tasks


def newest_tensors(run: Path) -> dict[str, Any]:
    newest = Checkpoints(locate(str(run)), keep=1).newest()
    assert newest is not None
    return read_tensors(newest[0])


def stored_vocabularies(run: Path) -> dict[str, tuple[str, str]]:
    """URI and digest by feature, as the run's recipe says."""
    recipe = build_recipe(
        yaml.safe_load((run / "recipe.yaml").read_text()), overrides=[], source=""
    )
    features = {name: recipe.data.features[name] for name in ("user", "item", "history")}
    return {
        name: (str(feature.vocabulary), str(feature.vocabulary_digest))  # type: ignore[union-attr]
        for name, feature in features.items()
    }


def test_a_run_is_evaluated_without_the_data_set_that_it_was_trained_on(tmp_path: Path) -> None:
    """On another one, from where the run was written, and from where it was moved to."""
    log, run = write_log(tmp_path / "log"), tmp_path / "run"
    train_on(make_recipe(log, run), world_size=2)
    stored = stored_vocabularies(run)
    for name, table in {"user": "user", "item": "item", "history": "item"}.items():
        uri, digest = stored[name]
        assert uri == str(run / "vocabularies" / f"{table}-{digest}.parquet")
        assert digest == digest_of(uri) == digest_of(str(log / f"vocabularies/{table}.parquet"))
    assert len(list((run / "vocabularies").iterdir())) == 2
    before = evaluated(run)
    other = tmp_path / "other"
    shutil.copytree(log / "test", other / "test")
    shutil.rmtree(log)
    assert evaluated(run, data_root=other) == before
    moved = run.rename(tmp_path / "moved")
    assert evaluated(moved, data_root=other) == before


def test_a_run_goes_on_without_the_vocabularies_of_its_data_set(tmp_path: Path) -> None:
    """With the recipe as written, to the same weights; a run that has not begun is refused."""
    log = write_log(tmp_path / "log")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train_on(make_recipe(log, whole, "run.num_steps=9"), world_size=1)
    train_on(make_recipe(log, broken, "run.num_steps=4"), world_size=1)
    shutil.rmtree(log / "vocabularies")
    train_on(make_recipe(log, broken, "run.num_steps=9"), world_size=1)
    assert_equal(newest_tensors(broken), newest_tensors(whole))
    with pytest.raises(StorageError, match=r"user\.parquet: no such file"):
        fitted_recipe(make_recipe(log, tmp_path / "new"))
    (log / "dataset.json").unlink()  # what else it was fitted with is not in the copies
    with pytest.raises(SchemaError, match=r"no statistics of the column age"):
        fitted_recipe(make_recipe(log, broken))


def test_a_copy_that_was_changed_is_refused(tmp_path: Path) -> None:
    """By its digest; a checkpoint that was copied alone reads those of its run."""
    log, run = write_log(tmp_path / "log"), tmp_path / "run"
    train_on(make_recipe(log, run), world_size=1)
    before = evaluated(run)
    alone = tmp_path / "elsewhere"
    shutil.copytree(chosen_checkpoint(locate(str(run))).path, alone)
    assert evaluated(alone) == before
    [copy] = (run / "vocabularies").glob("item-*.parquet")
    pq.write_table(pq.read_table(copy).slice(3), copy)
    with pytest.raises(SchemaError, match=rf"{copy.name}: this vocabulary is not the one"):
        evaluated(run)


def train_and_evaluate(recipe: Recipe, env: dict[str, str]) -> dict[str, Any]:
    """On object storage, whose environment ranks of a test do not inherit."""
    os.environ.update(env)
    train(recipe)
    assert recipe.run.uri is not None
    return evaluate_here(recipe.run.uri, None)


@pytest.mark.s3
def test_copies_lie_on_object_storage_with_the_run(
    tmp_path: Path, s3_root: str, s3_env: dict[str, str]
) -> None:
    """Written there by rank 0, read from there by all."""
    recipe = make_recipe(write_log(tmp_path / "log"), f"{s3_root}/run")
    run_ranks(train_and_evaluate, world_size=2, arguments={"recipe": recipe, "env": s3_env})
    [item, user] = locate(f"{s3_root}/run/vocabularies").children()
    assert item.read_bytes() == (tmp_path / "log/vocabularies/item.parquet").read_bytes()
    stored = locate(f"{s3_root}/run/recipe.yaml").read_text()
    assert f"vocabulary: {item.uri}" in stored
    assert f"vocabulary: {user.uri}" in stored
