"""The accuracy table: runs that are not repeated, means over seeds, and a report that is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.accuracy import Experiment, read_experiments, run_experiments, write_results
from benchmarks.accuracy_report import write_accuracy_report
from data_loaders.errors import InputError
from trainer.recipe_file import load_recipe

EXPERIMENT = Experiment.model_validate(
    {
        "title": "A toy",
        "recipe": "social",
        "generate": "social",
        "examples": 2000,
        "overrides": ["run.num_epochs=1", "data.batch_size=256", "run.max_auc_gap=null"],
        "variants": {
            "shared_bottom": {"note": "the baseline"},
            "mmoe": {"overrides": ["model.architecture=mmoe"]},
        },
        "published": {"somebody": {"like": 0.7}},
    }
)


def result(values: dict[str, list[float]]) -> dict[str, Any]:
    variants = {name: {"like": seeds} for name, seeds in values.items()}
    return {"metric": "auc", "variants": variants, "best": {"like": 0.8}}


def test_every_shipped_experiment_is_a_recipe_with_its_variants() -> None:
    """Each override names a key; a word that is none is answered with the nearest."""
    for experiment in read_experiments().values():
        for variant in experiment.variants.values():
            load_recipe(experiment.recipe, overrides=[*experiment.overrides, *variant.overrides])
    with pytest.raises(InputError, match="census-income-3: no such experiment; did you mean"):
        read_experiments(["census-income-3"])


@pytest.mark.slow
def test_runs_are_made_once(tmp_path: Path) -> None:
    """Their figures are those of their summaries, in the order of seeds."""
    asked: dict[str, Any] = {"out": tmp_path, "source": tmp_path, "num_seeds": 1}
    found = run_experiments({"toy": EXPERIMENT}, **asked)["toy"]["variants"]
    for variant, tasks in found.items():
        summary = json.loads((tmp_path / "toy" / variant / "seed-0/summary.json").read_text())
        for task, (auc,) in tasks.items():
            assert auc == summary["tasks"][task]["auc"]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert run_experiments({"toy": EXPERIMENT}, **asked)["toy"]["variants"] == found
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_report_has_means_spreads_and_the_best_in_bold(tmp_path: Path) -> None:
    """Beside what others published, the truth, and a plot; the same results give the same bytes."""
    results = {"toy": result({"shared_bottom": [0.70, 0.72], "mmoe": [0.74, 0.75]})}
    path = tmp_path / "accuracy.md"
    for _ in range(2):
        write_accuracy_report(results, experiments={"toy": EXPERIMENT}, path=path)
        plot = (tmp_path / "accuracy/toy.svg").read_bytes()
    text = path.read_text()
    assert "| shared_bottom | 0.7100 ± 0.0141 | the baseline |" in text
    assert "| mmoe | **0.7450 ± 0.0071** | `model.architecture=mmoe` |" in text
    assert "| somebody | (0.7000) | |" in text
    assert "| best possible | 0.8000 |" in text
    write_accuracy_report(results, experiments={"toy": EXPERIMENT}, path=path)
    assert (tmp_path / "accuracy/toy.svg").read_bytes() == plot


def test_results_of_other_experiments_stay(tmp_path: Path) -> None:
    """What was not run again is not forgotten."""
    path = tmp_path / "accuracy.json"
    write_results({"one": {"a": 1}, "two": {"a": 1}}, path)
    write_results({"two": {"a": 2}}, path)
    assert json.loads(path.read_text()) == {"one": {"a": 1}, "two": {"a": 2}}
