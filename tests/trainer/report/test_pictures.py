"""The pictures of a report: what is drawn is what the run wrote."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from data_loaders.storage import locate
from tests.trainer.report.runs import STEPS, TASKS, importance, line, summary, write_run
from trainer.charts import Bars, Panel
from trainer.report import read_run, sections, task_sections
from trainer.report.page import SECTIONS


def over_steps(*path: str, split: str = "train") -> tuple[list[float], list[Any]]:
    """Steps, and the numbers of `metrics.jsonl` that the keys lead to."""
    return list(STEPS), [
        functools.reduce(operator.getitem, path, line(step, split=split)) for step in STEPS
    ]


def learning(task: str, metric: str) -> dict[str, tuple[list[float], list[Any]]]:
    """Lines of both splits, and of what is possible where that is known."""
    path, best = ("tasks", task, metric), summary()["tasks"][task].get(f"best_{metric}")
    lines = {split: over_steps(*path, split=split) for split in ("train", "valid")}
    return lines | ({"best possible on valid, dashed": ([10, 30], [best, best])} if best else {})


def numbers_of(diagram: Panel | Bars) -> Any:
    """Of each line, (xs, ys), a dashed one's apart; or bars, from the top."""
    if isinstance(diagram, Bars):
        return list(zip(diagram.labels, diagram.values, strict=True))
    return {
        f"{item.label}, dashed" if item.is_dashed else item.label: (list(item.xs), list(item.ys))
        for item in diagram.lines
    }


def drawn_in_sections(folder: Path, *, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """By section and title, the numbers that are handed to the functions that draw."""
    found: dict[str, Any] = {}

    def diagrams(panels: Sequence[Panel | Bars], *, alt: str) -> str:
        assert not {panel.title for panel in panels} & set(found[key])
        found[key] |= {panel.title: numbers_of(panel) for panel in panels}
        return ""

    def heat_map(values: Any, *, rows: Any, columns: Any, title: str, **_: object) -> str:
        found[key][title] = {
            row: dict(zip(columns, cells, strict=True))
            for row, cells in zip(rows, values, strict=True)
        }
        return ""

    monkeypatch.setattr(sections, "line_chart", diagrams)
    for name, draw in (("line_chart", diagrams), ("bar_chart", diagrams), ("heat_map", heat_map)):
        monkeypatch.setattr(task_sections, name, draw)
    run = read_run(locate(str(folder)))
    for key, (_, section) in SECTIONS.items():
        found[key] = {}
        section(run)
    return {key: titles for key, titles in found.items() if titles}


def test_pictures_show_the_numbers_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each task under its own name, and no others."""
    results, curves = summary()["tasks"], summary()["calibration_curves"]
    measured = importance()["importance"]["tasks"]
    experts = {f"expert {index}": index for index in range(3)}
    gates = {task: over_steps("gates", task, "weights")[1] for task in TASKS}
    expected = {
        "learning": {
            f"{task}: {title}": learning(task, metric)
            for task, title, metric in (
                *((task, "loss", "loss") for task in TASKS),
                *(("click", "AUC", "auc"), ("purchase", "AUC", "auc"), ("watch", "R²", "r2")),
            )
        },
        "gradients": {
            "cosine between the gradients of two tasks": {
                f"click, {task}": over_steps("gradients", "cosines", "click", task)
                for task in ("purchase", "watch")
            },
            "mean of the cosines over the steps": {
                "click": {"click": 1.0, "purchase": 0.5, "watch": -0.25},
                "purchase": {"click": 0.5, "purchase": 1.0, "watch": None},
                "watch": {"click": -0.25, "purchase": None, "watch": 1.0},
            },
            "norm of each task's gradient": {
                task: over_steps("gradients", "norms", task) for task in TASKS
            },
        },
        "weights": {
            "weight of each task": {task: over_steps("loss_weights", task) for task in TASKS}
        },
        "gates": {
            "mean weight of each expert at step 30": {
                task: {name: gates[task][-1][index] for name, index in experts.items()}
                for task in TASKS
            },
            "mean entropy of each task's gate, nats": {
                task: over_steps("gates", task, "entropy") for task in TASKS
            },
            **{
                f"{task}: mean weight of each expert": {
                    name: (list(STEPS), [weights[index] for weights in gates[task]])
                    for name, index in experts.items()
                }
                for task in TASKS
            },
        },
        "calibration": {
            task: {
                "observed": (curves[task]["prediction"], curves[task]["rate"]),
                "perfect, dashed": ([0, end], [0, end]),
            }
            for task, end in (("click", 0.9), ("purchase", 0.5))
        },
        "slices": {
            task: [
                (f"{feature}, {ids}", results[task][f"auc_{feature}_{part}"] - 0.5)
                for feature in ("user", "item")
                for part, ids in (("warm", "known"), ("cold", "rare or new"))
            ]
            for task in ("click", "purchase")
        },
        "importance": {
            task: [(name, measured[task]["features"][name]) for name in names]
            for task, names in (
                ("click", ("user", "item", "age")),
                ("purchase", ("item", "user", "age")),
                ("watch", ("item", "age", "user")),
            )
        },
        "speed": {"examples per second": {"train": over_steps("examples_per_second")}},
    }
    assert drawn_in_sections(write_run(tmp_path / "run"), monkeypatch=monkeypatch) == expected
