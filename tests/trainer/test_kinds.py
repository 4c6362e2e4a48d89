"""Runs whose recipe mixes tasks of all kinds."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from cluster import display
from data_loaders.errors import SchemaError
from tests.helpers.logs import toy_recipe, toy_table, write_groups
from tests.helpers.ranks import run_ranks
from tests.helpers.runs import reports, summary
from trainer.evaluate import selection_score
from trainer.loop import train
from trainer.recipe_file import build_recipe

SIZES = {"train": (90, 41), "valid": (60,), "test": (77,)}
WEIGHT = {"example_weight": "importance"}
TASKS: dict[str, dict[str, Any]] = {
    "click": {"kind": "binary", "focal_gamma": 1.0, "label_smoothing": 0.05, **WEIGHT},
    "purchase": {"kind": "binary", "where": "click", "positive_weight": 3.0},
    "aisle": {"kind": "multiclass", "num_classes": 7, "label_smoothing": 0.1, **WEIGHT},
    "watch": {"kind": "regression", "loss": "huber", "log": True, "mean": 1.5},
    "dwell": {"kind": "regression", "loss": "lognormal", "std": 10.0, "weight": 0.5},
    "spent": {"kind": "regression", "loss": "ziln", "std": 10.0, **WEIGHT},
    "likes": {"kind": "ranking", "column": "grade", "group": "country", **WEIGHT},
    "before": {"kind": "ranking", "column": "click"},
    "choice": {"kind": "ranking", "column": "click", "loss": "sampled_softmax", **WEIGHT},
}
KEYS = {
    "click": {"auc", "best_auc", "normalized_entropy", "f1"},
    "aisle": {"accuracy", "top_5_accuracy", "macro_auc"},
    "watch": {"mse", "mae", "r2"},
    "dwell": {"mse", "mae", "r2", "gini"},
    "spent": {"mse", "mae", "r2", "gini", "nonzero_auc"},
    "likes": {"auc", "group_auc"},
    "choice": {"auc", "group_auc"},
}


def table(num_rows: int, *, seed: int) -> pa.Table:
    random, toy = np.random.default_rng(seed), toy_table(num_rows, seed=seed)
    ages = np.nan_to_num(toy["age"].to_numpy())
    amounts = random.lognormal(2 + ages / 50, 0.5)
    importance = random.choice([0.0, 0.5, 1.0, 3.0], num_rows)
    more = {
        "aisle": pa.array((ages // 13).astype(np.int16)),
        "dwell": pa.array(amounts),
        "spent": pa.array(np.where(random.random(num_rows) < ages / 90, amounts, 0)),
        "grade": pa.array(random.integers(0, 5, num_rows) / 4),
        "importance": pa.array(importance, mask=random.random(num_rows) < 0.2),
    }
    for name, column in more.items():
        toy = toy.append_column(name, column)
    return toy


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three splits and a catalogue; read only."""
    root, seed = tmp_path_factory.mktemp("log"), 0
    for split, sizes in SIZES.items():
        tables = [table(size, seed=(seed := seed + 1)) for size in sizes]
        write_groups(root, split=split, files=[tables])
    items = {"item": [f"item-{i}" for i in range(1, 50)], "count": list(range(1, 50))}
    pq.write_table(pa.table(items), root / "items.parquet")
    return root


def tree_of(log: Path | str, **tasks: Any) -> dict[str, Any]:
    negatives = {
        "catalogue": "items.parquet",
        "per_example": 2,
        "sampling": "popularity",
        "item": "item",
    }
    return toy_recipe(log, data={"tasks": tasks or TASKS, "negatives": negatives})


def train_on(log: str, folder: str) -> None:
    tree = tree_of(log)
    tree["run"]["uri"] = folder
    overrides = ["run.num_steps=7", "run.eval_interval_steps=4"]
    train(build_recipe(tree, overrides=overrides, source="toy"))


@pytest.fixture(scope="module")
def runs(log: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """On 1 rank and on 2."""
    folders = [tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")]
    for world_size, folder in enumerate(folders, start=1):
        arguments = {"log": str(log), "folder": str(folder)}
        run_ranks(train_on, world_size=world_size, arguments=arguments)
    return folders


@pytest.mark.slow
def test_two_ranks_train_as_one(runs: list[Path]) -> None:
    """Every metric of every step, in all kinds at once, and those of the final model whose pairs do
    not depend on how an evaluation cuts the log into steps.
    """
    one, two = (reports(run, split="train") for run in runs)
    assert len(one) == len(two) == 7
    for first, second in zip(one, two, strict=True):
        assert_close(second["tasks"], first["tasks"], names=TASKS)
    last, again = (summary(run)["tasks"] for run in runs)
    names = [name for name in TASKS if name not in ("likes", "before")]
    assert_close(again, last, names=names)


def assert_close(found: Any, expected: Any, *, names: Iterable[str]) -> None:
    assert list(found) == list(expected) == list(TASKS)
    for name in names:
        assert found[name].keys() == expected[name].keys()
        for metric, value in expected[name].items():
            # scores that differ in the last digit may fall into neighbouring bins
            tolerance = 0.02 if metric.endswith("auc") else 1e-4
            near = value if value is None else pytest.approx(value, rel=1e-4, abs=tolerance)
            assert found[name][metric] == near, (name, metric)


@pytest.mark.slow
def test_every_kind_has_its_metrics_from_the_log_to_the_summary(runs: list[Path]) -> None:
    """And a finite loss, another one in every step."""
    steps = [line["tasks"] for line in reports(runs[0], split="train")]
    tasks = summary(runs[0])["tasks"]
    for name, keys in KEYS.items():
        assert keys | {"loss", "examples"} <= tasks[name].keys()
    for name in TASKS:
        losses = [step[name]["loss"] for step in steps]
        assert np.isfinite(losses).all()
        assert len(set(losses)) == len(losses)
    assert tasks["click"]["examples"] == 3 * 77  # with drawn ones
    assert tasks["aisle"]["examples"] == tasks["dwell"]["examples"] == 77
    manifests = sorted(runs[0].glob("checkpoints/*/manifest.json"))
    scores = [json.loads(path.read_text())["score"] for path in manifests]
    valid = [selection_score(line["tasks"]) for line in reports(runs[0], split="valid")]
    assert scores == pytest.approx(valid)
    assert all(0 < score < 1 for score in scores)


@pytest.mark.slow
def test_the_final_tables_show_every_kind(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each task stands in one table, with the measure of its kind."""
    written = io.StringIO()
    monkeypatch.setattr(display, "console", Console(file=written, width=100))
    display.print_summary(summary(runs[0]), run_uri="run")
    lines = [line.split() for line in written.getvalue().splitlines()]
    for name, metric in {
        "click": "auc",
        "aisle": "accuracy",
        "watch": "r2",
        "dwell": "gini",
        "spent": "nonzero_auc",
        "likes": "group_auc",
    }.items():
        [line] = [line for line in lines if line[:1] == [name]]
        assert f"{summary(runs[0])['tasks'][name][metric]:.4f}" in line


def refusal_to_train(tree: dict[str, Any]) -> str:
    with pytest.raises(SchemaError) as caught:
        train(build_recipe(tree, overrides=[], source="toy"))
    return str(caught.value)


def test_a_file_without_the_column_of_weights_is_refused(log: Path, tmp_path: Path) -> None:
    """By the name of the task that asks for it."""
    tree = tree_of(log, click={"kind": "binary", "example_weight": "importanc"})
    tree["run"]["uri"] = str(tmp_path)
    [message] = run_ranks(refusal_to_train, world_size=1, arguments={"tree": tree})
    assert "no column importanc (example_weight of task click)" in message
    assert "did you mean importance?" in message
