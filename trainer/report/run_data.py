"""What a run has left in its folder so far, read back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import yaml

from data_loaders.errors import InputError
from data_loaders.storage import Location
from trainer.run_folder import METRICS, RECIPE, SUMMARY

# of what is reported of a task, the first that there is says best how well it does
QUALITIES = ("group_auc", "auc", "macro_auc", "gini", "r2", "accuracy", "mse", "loss")
# metrics that evaluations give apart for known and for rare ids
SLICED = ("auc", "mse", "accuracy")


@dataclass(frozen=True)
class RunData:
    """A run, finished or not.

    Attributes:
        uri: of its folder.
        recipe_text: `recipe.yaml`.
        train: lines of `metrics.jsonl`, in the order of their steps.
        valid: the same, of validations.
        summary: None before the run's end.
        importance: the line of `metrics.jsonl` that holds it, if it was measured.
    """

    uri: str
    recipe_text: str
    train: list[dict[str, Any]] = field(default_factory=list)
    valid: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] | None = None
    importance: dict[str, Any] | None = None

    @property
    def recipe(self) -> dict[str, Any]:
        """As a tree."""
        tree: dict[str, Any] = yaml.safe_load(self.recipe_text)
        return tree

    @property
    def tasks(self) -> list[str]:
        """Names, in the recipe's order."""
        return list(self.recipe["data"]["tasks"])

    @property
    def judged(self) -> tuple[str, dict[str, Any]] | None:
        """The final evaluation, or the newest validation, and what of the run it is of."""
        if self.summary is not None:
            return f"the final evaluation, on {self.summary['evaluated_on']}", self.summary
        if self.valid:
            return f"the newest validation, at step {self.valid[-1]['step']:,}", self.valid[-1]
        return None


def read_run(location: Location) -> RunData:
    """Reads a run's folder, finished or not.

    Raises:
        InputError: no run has begun there, or one of its files is broken.
    """
    recipe = location.child(RECIPE)
    if not recipe.exists():
        raise InputError(
            f"{location.uri}: no run: expected a {RECIPE}, found none; "
            "give the folder (run.uri) of a run that has begun"
        )
    metrics, summary = location.child(METRICS), location.child(SUMMARY)
    lines = _parsed(metrics, metrics.read_text().splitlines()) if metrics.exists() else []
    reports = [line for line in lines if "tasks" in line]
    measured = [line for line in lines if "importance" in line]
    data = RunData(
        uri=location.uri,
        recipe_text=recipe.read_text(),
        train=[line for line in reports if line["split"] == "train"],
        valid=[line for line in reports if line["split"] == "valid"],
        summary=_read_object(summary),
        importance=measured[-1] if measured else None,
    )
    try:
        assert data.tasks
    except (AssertionError, KeyError, TypeError, yaml.YAMLError) as error:
        raise InputError(
            f"{recipe.uri}: expected a run's resolved recipe, found other content; "
            "give the folder of a run"
        ) from error
    return data


def _read_object(file: Location) -> dict[str, Any] | None:
    if not file.exists():
        return None
    [found] = _parsed(file, [file.read_text()])
    return found


def _parsed(file: Location, texts: list[str]) -> list[dict[str, Any]]:
    try:
        return [json.loads(text) for text in texts]
    except json.JSONDecodeError as error:
        raise InputError(
            f"{file.uri}: expected JSON, found a broken text ({error.msg}); restore the file"
        ) from error
