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
# images in those sections of its report that have any
FIGURES = {
    "learning": 3,
    "gradients": 3,
    "weights": 1,
    "gates": 3,
    "calibration": 1,
    "slices": 1,
    "importance": 1,
    "speed": 1,
}


def result(step: int, *, task: str, split: str) -> dict[str, Any]:
    """Numbers that no other task, split or slice has."""
    fit = 0.05 if split == "train" else 0.0
    if task == "watch":
        r2 = step / 120 + fit
        return {"loss": (1 - fit) / step, "mse": 2 / step, "mae": 0.5, "r2": r2, "examples": 40.0}
    lower = TASKS.index(task) / 10
    auc = 0.7 + step / 300 - lower + fit
    found = {"loss": (3 + lower - fit) / step, "auc": auc, "examples": 64.0}
    if split == "train":
        return found
    slices = {
        f"{metric}_{feature}_{part}": value
        for feature, less in (("user", 0.0), ("item", 0.02))
        for part, at, examples in (("warm", 0.03, 40.0), ("cold", -0.21, 24.0))
        for metric, value in (("auc", 0.75 + at - less - lower), ("examples", examples))
    }
    return {**found, "best_auc": 0.8765 - lower, **slices}


def line(step: int, *, split: str) -> dict[str, Any]:
    tasks = {task: result(step, task=task, split=split) for task in TASKS}
    head = {"split": split, "step": step, "examples": 32 * step, "seconds": step / 10}
    found: dict[str, Any] = {
        **head,
        "examples_per_second": 300.5 + step,
        "skipped": 0,
        "tasks": tasks,
    }
    if split == "valid":
        return {**found, "calibration_curves": curves()}
    cosines: dict[str, Any] = {
        "click": {"purchase": step / 40, "watch": -step / 80},
        "purchase": {"watch": None},
    }
    norms = {"click": 0.1, "purchase": 0.2 / step, "watch": 0.0}
    shifts = {task: (10 * index + step) / 1000 for index, task in enumerate(TASKS)}
    gates = {
        task: {"weights": [0.75, 0.25 - shift, shift], "entropy": 0.6 + shift}
        for task, shift in shifts.items()
    }
    return {
        **found,
        "gradients": {"norms": norms, "cosines": cosines, "factors": dict.fromkeys(TASKS, 1.0)},
        "loss_weights": {"click": 1.0, "purchase": step / 10, "watch": 0.5},
        "gates": gates,
    }


def curves() -> dict[str, Any]:
    examples = [20, 22, 22]
    return {
        "click": {"prediction": [0.1, 0.4, 0.8], "rate": [0.15, 0.35, 0.9], "examples": examples},
        "purchase": {"prediction": [0.05, 0.2, 0.5], "rate": [0, 0.25, 0.4], "examples": examples},
    }


def importance() -> dict[str, Any]:
    tasks = {
        task: {
            "metric": "loss" if task == "watch" else "auc",
            "value": 0.8,
            "features": {"user": 0.125 - index / 10, "item": 0.0625 + index / 10, "age": -0.001},
        }
        for index, task in enumerate(TASKS)
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
