"""`polytower bench accuracy`: the accuracy table, from raw logs to means over seeds.

    accuracy.yaml -> runs: experiment x variant x seed -> OUT/EXPERIMENT/VARIANT/seed-N
                  -> OUT/accuracy.json -> docs/accuracy.md and its plots (`accuracy_report`)

Every run is an ordinary training run: its checkpoint is chosen on valid, and test is read once, at
its end. Called again, it goes on: runs that are complete are not repeated, and none is taken for
one with other settings.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.accuracy_experiments import Experiment
from data_loaders.errors import InputError
from data_loaders.public.datasets import prepare
from data_loaders.storage import Location, locate
from data_loaders.synthetic import generate
from trainer.config import Recipe
from trainer.manifest import read_manifest
from trainer.recipe_file import differing_keys, dump_recipe, flat_keys, load_recipe
from trainer.run_folder import read_summary

# in a run's folder: the recipe before the log has told what is to be fitted
ASKED = "asked.yaml"

# told a phase, what is done of it and what there is in all
ProgressCallback = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Run:
    """One training run of the table."""

    experiment: str
    variant: str
    recipe: Recipe
    folder: str


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
                yield Run(name, variant, recipe, folder)


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
    for key in differing_keys(then, now):
        if key not in ("data.root", "run.uri"):
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
    Path(run.folder).mkdir(parents=True, exist_ok=True)
    Path(run.folder, ASKED).write_text(dump_recipe(run.recipe))
    train(run.recipe)


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
