"""`polytower bench accuracy`: the accuracy table, from raw logs to means over seeds.

    accuracy.yaml -> runs: experiment x variant x seed -> OUT/EXPERIMENT/VARIANT/seed-N
                  -> OUT/accuracy.json -> docs/accuracy.md and its plots (`accuracy_report`)

Every run is an ordinary training run: its checkpoint is chosen on valid, and test is read once, at
its end. Called again, it goes on: runs that are complete are not repeated, and none is taken for
one with other settings.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from data_loaders.config import Section
from data_loaders.errors import InputError, did_you_mean
from data_loaders.public.datasets import prepare
from data_loaders.storage import Location, locate
from data_loaders.synthetic import generate
from trainer.config import Recipe
from trainer.manifest import read_manifest
from trainer.recipe_file import dump_recipe, flat_keys, load_recipe
from trainer.run_folder import read_summary

# in a run's folder: the recipe before the log has told what is to be fitted
ASKED = "asked.yaml"

# told a phase, what is done of it and what there is in all
ProgressCallback = Callable[[str, int, int], None]


class Variant(Section):
    """One row of a table: a way to train.

    Attributes:
        overrides: of the recipe, behind those of the experiment.
        note: for the table.
    """

    overrides: tuple[str, ...] = ()
    note: str = ""


class Gap(Section):
    """How far variants are below one of them, over the tasks that were learned.

    Attributes:
        baseline: that variant.
        stuck_from: the metric from which on a task has learned next to nothing.
    """

    baseline: str
    stuck_from: float


class Experiment(Section):
    """One table.

    Attributes:
        title: of the table.
        text: below it, in Markdown.
        recipe: that all variants train.
        prepare: the public data set that it is trained on; its raw files lie in `source`.
        source: folder below `--source`.
        generate: the scenario that it is trained on instead.
        examples: to generate.
        density: of the ids in them, as `polytower generate` takes it.
        correlation: of the scenario `correlated`.
        correlations: of its data sets: one experiment each, shown together.
        overrides: of the recipe, for all variants.
        table_dim: of all its tables, instead of the recipe's.
        metric: of each task.
        metrics: of a task that has no such metric.
        variants: by name.
        published: what others reached, by their name and task.
        goals: by task.
        gap: of `correlations`, what is shown beside the metric itself.
    """

    title: str
    text: str = ""
    recipe: str
    prepare: str | None = None
    source: str | None = None
    generate: str | None = None
    examples: int = 1_000_000
    density: int = 1
    correlation: float | None = None
    correlations: tuple[float, ...] = ()
    overrides: tuple[str, ...] = ()
    table_dim: int | None = None
    metric: str = "auc"
    metrics: dict[str, str] = Field(default_factory=dict)
    variants: dict[str, Variant] = Field(min_length=1)
    published: dict[str, dict[str, float]] = Field(default_factory=dict)
    goals: dict[str, float] = Field(default_factory=dict)
    gap: Gap | None = None

    @model_validator(mode="after")
    def _check(self) -> Experiment:
        if (self.prepare is None) == (self.generate is None):
            raise ValueError("give either prepare or generate")
        return self

    @property
    def data_name(self) -> str:
        """Of the folder that its data set lies in; experiments may share one."""
        if self.generate is None:
            return str(self.prepare)
        ends = "" if self.correlation is None else f"-{self.correlation:g}"
        dense = "" if self.density == 1 else f"-density-{self.density}"
        return f"{self.generate}-{self.examples}{dense}{ends}"

    def members(self, name: str) -> dict[str, Experiment]:
        """What is run and kept under names of its own: one experiment for each correlation."""
        if not self.correlations:
            return {name: self}
        return {
            f"{name}-{value:g}": self.model_copy(update={"correlation": value, "correlations": ()})
            for value in self.correlations
        }

    def metric_of(self, task: str) -> str:
        return self.metrics.get(task, self.metric)


@dataclass(frozen=True)
class Run:
    """One training run of the table."""

    experiment: str
    variant: str
    seed: int
    recipe: str
    overrides: tuple[str, ...]
    folder: str


def read_experiments(names: Sequence[str] = ()) -> dict[str, Experiment]:
    """The experiments of `accuracy.yaml`, or those that are named.

    Raises:
        InputError: there is none of that name.
    """
    text = resources.files("benchmarks").joinpath("accuracy.yaml").read_text()
    try:
        found = {
            name: Experiment.model_validate(tree) for name, tree in yaml.safe_load(text).items()
        }
    except ValidationError as error:
        raise InputError(f"accuracy.yaml: {error.errors()[0]}") from error
    for name in names:
        if name not in found:
            raise InputError(f"{name}: no such experiment; {did_you_mean(name, found)}")
    return {name: item for name, item in found.items() if not names or name in names}


def with_variants(experiment: Experiment, names: Collection[str]) -> Experiment:
    """Only those rows of the table.

    Raises:
        InputError: there is none of that name.
    """
    if not names:
        return experiment
    for name in names:
        if name not in experiment.variants:
            known = did_you_mean(name, experiment.variants)
            raise InputError(f"{name}: no such variant of {experiment.title!r}; {known}")
    chosen = {name: item for name, item in experiment.variants.items() if name in names}
    return experiment.model_copy(update={"variants": chosen})


def run_experiments(
    experiments: Mapping[str, Experiment],
    *,
    out: Path,
    source: Path,
    num_seeds: int,
    num_parallel: int | None = None,
    on_progress: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Trains what is missing, one process and one thread a run, and gathers all results.

    Args:
        out: folder of data sets, runs and results.
        source: folder that holds the folders of raw files.
        num_seeds: 0 to num_seeds - 1 of each variant.
        num_parallel: runs at once; one per core by default.

    Returns:
        what `accuracy.json` holds: for each experiment, variant and task its metric on test, by
        seed, and `valid`: for each variant the scores that chose the checkpoints.

    Raises:
        InputError: raw files are missing, or a run failed; what is complete stays.
    """
    tell = on_progress or (lambda phase, done, total: None)
    experiments = {
        member: item
        for name, experiment in experiments.items()
        for member, item in experiment.members(name).items()
    }
    for index, experiment in enumerate(experiments.values()):
        tell("preparing data", index, len(experiments))
        _make_data(experiment, out=out, source=source)
    runs = list(_runs(experiments, out=out, num_seeds=num_seeds))
    missing = [run for run in runs if not Path(run.folder, "summary.json").exists()]
    num_parallel = num_parallel or len(os.sched_getaffinity(0))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_parallel, mp_context=spawn, max_tasks_per_child=1) as pool:
        futures = [pool.submit(_train, run) for run in missing]
        tell("training", len(runs) - len(missing), len(runs))
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                tell("training", len(runs) - len(missing) + done, len(runs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return {name: _gathered(item, runs=runs, name=name) for name, item in experiments.items()}


def _make_data(experiment: Experiment, *, out: Path, source: Path) -> None:
    root = out / "data" / experiment.data_name
    if (root / "dataset.json").exists():
        return
    if experiment.prepare is not None:
        prepare(experiment.prepare, source=str(source / (experiment.source or "")), out=str(root))
    else:
        assert experiment.generate is not None, "checked when it was read"
        generate(
            experiment.generate,
            out=str(root),
            examples=experiment.examples,
            density=experiment.density,
            correlation=experiment.correlation,
        )


def _runs(experiments: Mapping[str, Experiment], *, out: Path, num_seeds: int) -> Iterator[Run]:
    for name, experiment in experiments.items():
        root = out / "data" / experiment.data_name
        common = _common_overrides(experiment)
        for variant, item in experiment.variants.items():
            for seed in range(num_seeds):
                folder = str(out / name / variant / f"seed-{seed}")
                own = (f"data.root={root}", f"run.uri={folder}", f"run.seed={seed}")
                overrides = (*common, *item.overrides, *own)
                recipe = load_recipe(experiment.recipe, overrides=overrides)
                _check_settings(Path(folder), recipe)  # before hours are spent
                yield Run(name, variant, seed, experiment.recipe, overrides, folder)


def _check_settings(folder: Path, recipe: Recipe) -> None:
    """Raises InputError where the folder's run was begun with others; both folders may move."""
    if not folder.exists():
        return
    if not (folder / ASKED).exists():
        raise InputError(
            f"{folder}: has no {ASKED}, which tells with what it was trained; delete this folder, "
            "or choose another --out"
        )
    asked = load_recipe(str(folder / ASKED))
    then, now = (flat_keys(item.model_dump(mode="json")) for item in (asked, recipe))
    for key in dict.fromkeys([*then, *now]):
        if key not in ("data.root", "run.uri") and then.get(key) != now.get(key):
            raise InputError(
                f"{folder}: trained with {key} {then.get(key)!r:.60}, which is "
                f"{now.get(key)!r:.60} now; delete this folder, or choose another --out"
            )


def _common_overrides(experiment: Experiment) -> tuple[str, ...]:
    """Of all variants."""
    if experiment.table_dim is None:
        return experiment.overrides
    tables = load_recipe(experiment.recipe, overrides=experiment.overrides).embeddings.tables
    dims = (f"embeddings.tables.{name}.dim={experiment.table_dim}" for name in tables)
    return (*experiment.overrides, *dims)


def _train(run: Run) -> None:
    """In a process of its own."""
    from trainer.runtime import prepare_environment, quiet_libraries

    prepare_environment()
    quiet_libraries()
    import torch

    from trainer.loop import train

    torch.set_num_threads(1)
    recipe = load_recipe(run.recipe, overrides=run.overrides)
    Path(run.folder).mkdir(parents=True, exist_ok=True)
    Path(run.folder, ASKED).write_text(dump_recipe(recipe))
    train(recipe)


def _gathered(experiment: Experiment, *, runs: Sequence[Run], name: str) -> dict[str, Any]:
    """Each variant's metric on test, by task, and score on valid, in the order of seeds."""
    variants: dict[str, dict[str, list[float]]] = {}
    valid: dict[str, list[float | None]] = {}
    best: dict[str, float] = {}
    for run in runs:
        if run.experiment != name:
            continue
        folder = locate(run.folder)
        summary = read_summary(folder)
        valid.setdefault(run.variant, []).append(_score(folder, summary["checkpoint"]))
        for task, metrics in summary["tasks"].items():
            metric = experiment.metric_of(task)
            if metrics.get(metric) is None:
                continue
            variants.setdefault(run.variant, {}).setdefault(task, []).append(metrics[metric])
            if metrics.get(f"best_{metric}") is not None:
                best[task] = metrics[f"best_{metric}"]
    return {"metric": experiment.metric, "variants": variants, "valid": valid, "best": best}


def _score(run: Location, checkpoint: str) -> float | None:
    """On valid, of a run's checkpoint, wherever the run lies by now."""
    name = checkpoint.rpartition("/")[2]
    return read_manifest(run.child("checkpoints").child(name)).score


def write_results(results: Mapping[str, Any], path: Path) -> None:
    """Writes them as JSON; results of experiments and variants that were not run stay."""
    known = json.loads(path.read_text()) if path.exists() else {}
    for name, result in results.items():
        before = known.get(name, {})
        known[name] = result | {
            key: before.get(key, {}) | result[key] for key in ("variants", "valid", "best")
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(known, indent=1) + "\n")
