"""Folders of runs, as training leaves them, with something for every section of a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.helpers.logs import toy_recipe
from trainer.recipe_file import build_recipe, dump_recipe

TASKS = ("click", "purchase", "watch")
STEPS = (10, 20, 30)
NAME = "toy <b>&amp; more"  # to be shown as it is


def result(step: int, *, task: str, split: str) -> dict[str, Any]:
    if task == "watch":
        return {"loss": 1 / step, "mse": 2 / step, "mae": 0.5, "r2": 0.25, "examples": 40.0}
    found = {"loss": 3 / step, "auc": 0.7 + step / 300, "examples": 64.0}
    if split == "train":
        return found
    slices = {
        f"{metric}_{feature}_{part}": value
        for feature in ("user", "item")
        for part, at in (("warm", 0.03), ("cold", -0.21))
        for metric, value in (("auc", 0.75 + at), ("examples", 32.0))
    }
    return {**found, "best_auc": 0.8765, **slices}


def line(step: int, *, split: str) -> dict[str, Any]:
    tasks = {task: result(step, task=task, split=split) for task in TASKS}
    head = {"split": split, "step": step, "examples": 32 * step, "seconds": step / 10}
    found: dict[str, Any] = {**head, "examples_per_second": 320.5, "skipped": 0, "tasks": tasks}
    if split == "valid":
        return {**found, "calibration_curves": curves()}
    cosines: dict[str, Any] = {
        "click": {"purchase": 0.31, "watch": -0.2},
        "purchase": {"watch": None},
    }
    norms = {"click": 0.1, "purchase": 0.2 / step, "watch": 0.0}
    gates = {
        task: {"weights": [0.75, 0.25 - step / 1000, step / 1000], "entropy": 0.6} for task in TASKS
    }
    return {
        **found,
        "gradients": {"norms": norms, "cosines": cosines, "factors": dict.fromkeys(TASKS, 1.0)},
        "loss_weights": {"click": 1.0, "purchase": step / 10, "watch": 0.5},
        "gates": gates,
    }


def curves() -> dict[str, Any]:
    curve = {"prediction": [0.1, 0.4, 0.8], "rate": [0.15, 0.35, 0.9], "examples": [20, 22, 22]}
    return {"click": curve, "purchase": curve}


def importance() -> dict[str, Any]:
    features = {"user": 0.125, "item": 0.0625, "age": -0.001}
    tasks = {
        task: {"metric": "loss" if task == "watch" else "auc", "value": 0.8, "features": features}
        for task in TASKS
    }
    found = {"checkpoint": "somewhere", "seed": 1, "tasks": tasks}
    return {"split": "valid", "step": STEPS[-1], "importance": found}


def summary() -> dict[str, Any]:
    plan = {"table": "user", "num_rows": 1003, "dim": 8, "sharding": "row_wise", "ranks": [0, 1]}
    return {
        "examples": 960,
        "skipped": 0,
        "steps": 30,
        "world_size": 2,
        "seconds": 3.0,
        "examples_per_second": 320.0,
        "data_wait_fraction": 0.0421,
        "evaluated_on": "test",
        "tasks": {task: result(30, task=task, split="valid") for task in TASKS},
        "calibration_curves": curves(),
        "checkpoint": "run/checkpoints/step-00000030",
        "plan": [{**plan, "rank_bytes": 65536}],
    }


def write_run(folder: Path, *, is_finished: bool = True) -> Path:
    """A run with reports, or one that has only begun."""
    folder.mkdir(parents=True)
    recipe = build_recipe(toy_recipe("log", run={"name": NAME}), overrides=[], source="toy")
    (folder / "recipe.yaml").write_text(dump_recipe(recipe))
    if not is_finished:
        return folder
    lines = [json.dumps(line(step, split=split)) for step in STEPS for split in ("train", "valid")]
    lines.append(json.dumps(importance()))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "summary.json").write_text(json.dumps(summary()))
    return folder
