"""The accuracy table: runs that are not repeated, means over seeds, and a report that is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.accuracy import run_experiments
from benchmarks.accuracy_experiments import Experiment, Gap, read_experiments, with_variants
from benchmarks.accuracy_report import write_accuracy_report
from benchmarks.accuracy_results import write_results
from data_loaders.errors import InputError
from trainer.recipe_file import load_recipe

EXPERIMENT = Experiment.model_validate(
    {
        "title": "A toy",
        "recipe": "social",
        "generate": "social",
        "examples": 2000,
        "table_dim": 4,
        "overrides": ["run.num_epochs=1", "data.batch_size=256", "run.max_auc_gap=null"],
        "variants": {
            "shared_bottom": {"note": "the baseline"},
            "mmoe": {"overrides": ["model.architecture=mmoe"], "note": "more experts"},
        },
        "published": {"somebody": {"like": 0.7}},
    }
)


def result(values: dict[str, list[float]]) -> dict[str, Any]:
    variants = {name: {"like": seeds} for name, seeds in values.items()}
    valid = {"shared_bottom": [0.5, 0.7], "mmoe": [None]}
    return {"metric": "auc", "variants": variants, "valid": valid, "best": {"like": 0.8}}


def test_every_shipped_experiment_is_a_recipe_with_its_variants() -> None:
    """Each override names a key; a word that is none is answered with the nearest."""
    for experiment in read_experiments().values():
        for variant in experiment.variants.values():
            load_recipe(experiment.recipe, overrides=[*experiment.overrides, *variant.overrides])
    with pytest.raises(InputError, match="census-income-3: no such experiment; did you mean"):
        read_experiments(["census-income-3"])


@pytest.mark.slow
def test_runs_are_made_once(tmp_path: Path) -> None:
    """Their figures are those of their summaries, in the order of seeds; tables are as wide as the
    experiment says; other settings are told.
    """
    asked: dict[str, Any] = {"out": tmp_path, "source": tmp_path, "num_seeds": 1}
    found = run_experiments({"toy": EXPERIMENT}, **asked)["toy"]["variants"]
    for variant, tasks in found.items():
        summary = json.loads((tmp_path / "toy" / variant / "seed-0/summary.json").read_text())
        for task, (auc,) in tasks.items():
            assert auc == summary["tasks"][task]["auc"]
    recipe = load_recipe(str(tmp_path / "toy/mmoe/seed-0/recipe.yaml"))
    assert {table.dim for table in recipe.embeddings.tables.values()} == {4}
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert run_experiments({"toy": EXPERIMENT}, **asked)["toy"]["variants"] == found
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before

    changed = EXPERIMENT.model_copy(
        update={"overrides": (*EXPERIMENT.overrides, "optimizer.dense.learning_rate=0.5")}
    )
    with pytest.raises(
        InputError,
        match=r"seed-0: trained with optimizer.dense.learning_rate 0\.\d+, which is 0.5 now",
    ):
        run_experiments({"toy": changed}, **asked)
    (tmp_path / "toy/mmoe/seed-0/asked.yaml").unlink()
    with pytest.raises(InputError, match=r"seed-0: has no asked\.yaml, which tells with"):
        run_experiments({"toy": EXPERIMENT}, **asked)


def test_a_denser_log_is_a_data_set_of_its_own() -> None:
    """Not that of the usual density."""
    dense = EXPERIMENT.model_copy(update={"density": 8})
    assert (EXPERIMENT.data_name, dense.data_name) == ("social-2000", "social-2000-density-8")


def written_twice(results: dict[str, Any], *, experiment: Experiment, folder: Path) -> str:
    """The report's text; the same results give the same plot."""
    path, plots = folder / "accuracy.md", []
    for _ in range(2):
        write_accuracy_report(results, experiments={"toy": experiment}, path=path)
        plots.append((folder / "accuracy/toy.svg").read_bytes())
    assert plots[0] == plots[1]
    return path.read_text()


def test_the_report_has_means_spreads_and_the_best_in_bold(tmp_path: Path) -> None:
    """Beside what others published, the truth, and a plot; the same results give the same bytes."""
    results = {"toy": result({"shared_bottom": [0.70, 0.72], "mmoe": [0.74, 0.75]})}
    text = written_twice(results, experiment=EXPERIMENT, folder=tmp_path)
    assert "Recipe `social` with `run.num_epochs=1`, `data.batch_size=256`" in text
    assert "`dim: 4` of all tables; in each row also what differs.\n" in text
    assert "| shared_bottom | 0.7100 ± 0.0141 | 0.6000 | the baseline |" in text
    assert "| mmoe | **0.7450 ± 0.0071** |  | `model.architecture=mmoe`; more experts |" in text
    assert "| somebody | (0.7000) | | |" in text
    assert "| best possible | 0.8000 |" in text


def test_a_task_may_have_a_metric_of_its_own(tmp_path: Path) -> None:
    """The lowest mse is in bold; the distance is from the best possible to the best of ours."""
    experiment = EXPERIMENT.model_copy(update={"metrics": {"spend": "mse"}})
    found = result({"shared_bottom": [0.70], "mmoe": [0.78]})
    found["variants"]["shared_bottom"]["spend"] = [0.2]
    found["variants"]["mmoe"]["spend"] = [0.3]
    found["best"]["spend"] = 0.16
    path = tmp_path / "accuracy.md"
    write_accuracy_report({"toy": found}, experiments={"toy": experiment}, path=path)
    text = path.read_text()
    assert "`polytower bench accuracy toy --seeds 1`, 1 seed\n" in text
    assert "| auc | like | spend (mse) | on valid | what differs |" in text
    assert "| shared_bottom | 0.7000 | **0.2000** | 0.6000 | the baseline |" in text
    assert "| mmoe | **0.7800** | 0.3000 |" in text
    assert "| distance | 0.0200 | 0.0400 | | of the best of ours |" in text


CURVES = EXPERIMENT.model_copy(
    update={
        "recipe": "correlated",
        "generate": "correlated",
        "table_dim": None,
        "correlations": (0.5, 1.0),
        "metric": "mse",
        "gap": Gap(baseline="shared_bottom", stuck_from=0.6),
    }
)


def test_correlations_are_experiments_of_their_own() -> None:
    """Each has its data set, and differs in nothing else."""
    members = CURVES.members("toy")
    assert {name: item.data_name for name, item in members.items()} == {
        "toy-0.5": "correlated-2000-0.5",
        "toy-1": "correlated-2000-1",
    }
    assert {item.variants["mmoe"] for item in members.values()} == {CURVES.variants["mmoe"]}
    assert EXPERIMENT.members("toy") == {"toy": EXPERIMENT}


@pytest.mark.slow
def test_correlations_are_run_and_shown_together(tmp_path: Path) -> None:
    """One table of what was run, and one plot."""
    experiments = {"toy": with_variants(CURVES, ["mmoe"])}
    found = run_experiments(experiments, out=tmp_path, source=tmp_path, num_seeds=1)
    assert list(found) == ["toy-0.5", "toy-1"]
    write_accuracy_report(found, experiments={"toy": CURVES}, path=tmp_path / "accuracy.md")
    text = (tmp_path / "accuracy.md").read_text()
    for correlation in ("0.5", "1"):
        tasks = found[f"toy-{correlation}"]["variants"]["mmoe"]
        mean = (tasks["y1"][0] + tasks["y2"][0]) / 2
        assert f"| correlation {correlation} | **{mean:.4f}**, median {mean:.4f} | 0.0" in text
    assert [path.name for path in (tmp_path / "accuracy").iterdir()] == ["toy.svg"]


def test_spreads_over_the_correlation_are_of_the_mean_of_the_tasks(tmp_path: Path) -> None:
    """Not of one task, as medians are; the lowest mse is in bold; what was not run has no row. Gaps
    are of the means of those that have learned their task.
    """
    values = {"a": [0.1, 0.3], "b": [0.3, 0.3]}  # means of the tasks 0.2 and 0.3
    found = {"variants": {"mmoe": values, "shared_bottom": {"a": [0.5, 0.5], "b": [0.5, 0.7]}}}
    results = {"toy-1": found | {"metric": "mse", "best": {"a": 0.01, "b": 0.03}}}
    text = written_twice(results, experiment=CURVES, folder=tmp_path)
    assert "| correlation 1 | 0.5500 ± 0.0707, median 0.5000 | **0.2500 ± 0.0707**, median" in text
    assert "| what differs | the baseline | `model.architecture=mmoe`; more experts |" in text
    # 0.5 three times, and 0.7 left out; 0.1, 0.3, 0.3, 0.3, whose variance is 0.01
    assert "| gap | mmoe |" in text
    assert "| correlation 1 | 0.2500 ± 0.0500 (0 of 4) |" in text
    stuck = CURVES.model_copy(update={"gap": Gap(baseline="shared_bottom", stuck_from=0.2)})
    text = written_twice(results, experiment=stuck, folder=tmp_path)
    assert "| correlation 1 | nan (3 of 4) |" in text
    assert "correlation 0.5" not in text


def test_results_of_other_experiments_stay(tmp_path: Path) -> None:
    """What was not run again is not forgotten, neither tables nor their rows."""
    path = tmp_path / "accuracy.json"
    both = result({"shared_bottom": [0.7], "mmoe": [0.75]})
    write_results({"one": both, "two": both}, path)
    write_results({"two": result({"mmoe": [0.8]})}, path)
    assert json.loads(path.read_text()) == {
        "one": both,
        "two": result({"shared_bottom": [0.7], "mmoe": [0.8]}),
    }


def test_a_row_may_be_run_by_itself(tmp_path: Path) -> None:
    """With seeds of its own, which it then says; a word that is none is refused."""
    [row] = with_variants(EXPERIMENT, ["mmoe"]).variants
    assert row == "mmoe"
    results = {"toy": result({"shared_bottom": [0.70, 0.72], "mmoe": [0.74]})}
    text = written_twice(results, experiment=EXPERIMENT, folder=tmp_path)
    assert "| mmoe | **0.7400** |" in text
    assert "more experts; 1 of the seeds |" in text
    with pytest.raises(InputError, match="mmo: no such variant of 'A toy'; did you mean mmoe"):
        with_variants(EXPERIMENT, ["mmo"])
