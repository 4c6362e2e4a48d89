"""Evaluation of a model on a split, over all ranks."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.optim.keyed import KeyedOptimizer

from data_loaders.config import DataConfig
from data_loaders.dataset import SPLITS, Split, read_dataset_info
from data_loaders.errors import InputError
from data_loaders.loader import InteractionLoader
from data_loaders.row_groups import has_split, locate_root
from data_loaders.storage import Location
from data_loaders.streams import Cursor
from trainer.averaging import DenseAverage
from trainer.build import build_sharded_model
from trainer.checkpoint import Checkpoints, restore
from trainer.cold_start import ColdStartMetrics, reads_optimizer
from trainer.config import Recipe
from trainer.log_files import check_ranks_agree
from trainer.losses import NonFiniteLossError
from trainer.manifest import MANIFEST, IncompleteCheckpointError, read_manifest
from trainer.metrics import Curve, Result, TaskMetrics
from trainer.optimizer import build_optimizer
from trainer.progress import Listener, Progress
from trainer.recipe_file import build_recipe
from trainer.runtime import Runtime, joined_ranks
from trainer.skip_report import SkipReport, Skips
from trainer.vocabularies import with_kept_vocabularies

TaskResults = dict[str, Result]


@dataclass(frozen=True)
class Evaluation:
    """A model's metrics on a split.

    Attributes:
        split: that it was evaluated on.
        tasks: each task's metrics, as `TaskMetrics.reduce_and_reset`, with `best_METRIC` for each
            metric whose best value is known, and beside `auc` a `best_auc` in any case, None where
            it is unknown; and those of `ColdStartMetrics`.
        examples_per_second: over all ranks.
        skips: what was left out under `data.on_error: skip`.
        curves: the calibration of each task that predicts probabilities.
    """

    split: Split
    tasks: TaskResults
    examples_per_second: float
    skips: SkipReport
    curves: dict[str, Curve]


def evaluate_checkpoint(
    location: Location, *, data_root: str | None, listener: Listener | None
) -> Evaluation:
    """Evaluates a stored model, whatever number of ranks wrote it.

    Args:
        location: of a checkpoint.
        data_root: another data set than the run's own.
        listener: told the progress.

    Raises:
        IncompleteCheckpointError: there is no complete checkpoint.
        InputError: the data set does not fit the checkpoint's recipe.
    """
    with opened_checkpoint(location, data_root=data_root, with_slices=True) as opened:
        return evaluate_split(
            opened.model,
            optimizer=opened.optimizer,
            recipe=opened.recipe,
            split=final_split(opened.recipe.data),
            runtime=opened.runtime,
            listener=listener,
        )


@dataclass(frozen=True)
class OpenedCheckpoint:
    """A stored model on this rank, and what it belongs to; of the optimizer's state there is what
    was asked for.
    """

    model: DistributedModelParallel
    optimizer: KeyedOptimizer
    recipe: Recipe
    runtime: Runtime


@contextmanager
def opened_checkpoint(
    location: Location, *, data_root: str | None, with_slices: bool
) -> Iterator[OpenedCheckpoint]:
    """A stored model, as it is to be evaluated; args and errors as of `evaluate_checkpoint`.

    Args:
        with_slices: what `run.slices` asks of the optimizer is read, too.
    """
    overrides = [] if data_root is None else [f"data.root={json.dumps(data_root)}"]
    tree = read_manifest(location).recipe
    recipe = build_recipe(tree, overrides=overrides, source=location.child(MANIFEST).uri)
    # the run's own, wherever its folder is by now
    recipe = with_kept_vocabularies(recipe, run=location.parent.parent)
    final_split(recipe.data)  # refuses a data set that is not there, before a model is built
    with joined_ranks() as runtime:
        model, _ = build_sharded_model(recipe, runtime=runtime)
        optimizer = build_optimizer(model, config=recipe.optimizer)
        average = DenseAverage(model, decay=recipe.optimizer.ema_decay)
        restore(
            location,
            model=model,
            optimizer=optimizer if with_slices and reads_optimizer(recipe) else None,
            average=average,
        )
        with average.in_place():
            yield OpenedCheckpoint(model=model, optimizer=optimizer, recipe=recipe, runtime=runtime)


def chosen_checkpoint(location: Location) -> Location:
    """A checkpoint itself, or of a run's folder the one that its summary would name.

    Raises:
        IncompleteCheckpointError: there is no complete one.
    """
    if location.child(MANIFEST).exists():
        return location
    checkpoints = Checkpoints(location, keep=1)
    newest = checkpoints.newest()
    if newest is None:
        raise IncompleteCheckpointError(
            f"{location.uri}: neither a run with a complete checkpoint nor a checkpoint"
            + ("" if location.exists() else "; there is nothing at this URI")
        )
    selects_best = newest[1].recipe["run"]["select"] == "best"
    best = checkpoints.best() if selects_best else None
    return (best or newest)[0]


def evaluation_loader(recipe: Recipe, *, split: Split, runtime: Runtime) -> InteractionLoader:
    """Reads a split in the log's order, the same files on all ranks."""
    loader = InteractionLoader(
        recipe.data,
        split=split,
        num_rows=recipe.num_rows_of_feature(),
        seed=None,
        rank=runtime.rank,
        world_size=runtime.world_size,
    )
    check_ranks_agree(loader.files, split=split)
    return loader


def evaluate_split(
    model: DistributedModelParallel,
    *,
    optimizer: KeyedOptimizer,
    recipe: Recipe,
    split: Split,
    runtime: Runtime,
    listener: Listener | None,
) -> Evaluation:
    """Reads a split once, in the log's order; every rank must call.

    Args:
        optimizer: in the state that belongs to the model; it knows which ids were trained.

    Raises:
        NonFiniteLossError: the model is broken, or the split holds extreme values.
    """
    loader = evaluation_loader(recipe, split=split, runtime=runtime)
    metrics = TaskMetrics(recipe.data, device=runtime.device)
    skips = Skips(recipe.data, device=runtime.device)
    cold_start = ColdStartMetrics(recipe, optimizer=optimizer, device=runtime.device)
    was_training = model.training
    model.eval()
    started, num_steps = time.monotonic(), loader.steps_per_epoch
    rate = 0.0
    for step, batch in enumerate(loader.batches(start=Cursor(), num_steps=num_steps), start=1):
        batch = batch.to(runtime.device, non_blocking=True)
        try:
            with torch.no_grad():
                _, output = model(batch)
        except NonFiniteLossError as error:
            raise NonFiniteLossError(f"evaluation on {split}, step {step}: {error}") from None
        metrics.update(output)
        skips.update(output)
        cold_start.update(output, ids=batch.ids)
        num_done = min(step * recipe.data.batch_size, loader.num_examples)
        rate = num_done / (time.monotonic() - started)
        if listener is not None:
            listener(Progress("evaluate", step, num_steps, rate, {}))
    model.train(was_training)
    tasks = with_best(metrics.reduce_and_reset(), config=recipe.data, split=split)
    for task, result in cold_start.reduce_and_reset().items():
        tasks[task].update(result)
    return Evaluation(
        split=split,
        tasks=tasks,
        examples_per_second=round(rate, 1),
        skips=skips.reduce_and_reset(),
        curves=metrics.curves,
    )


def with_best(results: TaskResults, *, config: DataConfig, split: Split) -> TaskResults:
    """Adds what `dataset.json` knows of the best possible values on this split, by a task's column.

    They are of each log row once: nothing is known where examples have weights, or where drawn
    items stand among them.
    """
    info = read_dataset_info(locate_root(config))
    best: Mapping[str, Mapping[str, float]] = {}
    if info is not None and split in info.splits and config.negatives is None:
        best = info.splits[split].best
    for name, result in results.items():
        task = config.tasks[name]
        known = best.get(task.column or name, {}) if task.example_weight is None else {}
        if "auc" in result:
            result["best_auc"] = None
        result.update({f"best_{metric}": value for metric, value in known.items()})
    return results


def final_split(config: DataConfig) -> Split:
    """The split that a run is judged by: test, or valid, or for lack of both train.

    Raises:
        InputError: the data set has none of them, or is incomplete.
    """
    root = locate_root(config)
    read_dataset_info(root)  # an incomplete data set may lack any split: it says so first
    for split in reversed(SPLITS):
        if has_split(config, split=split):
            return split
    raise InputError(
        f"{root.uri}: no *.parquet file in test/, valid/ or train/; give a data set's folder"
    )


def selection_score(results: TaskResults, *, tasks: Collection[str] | None = None) -> float | None:
    """One number to choose checkpoints by, the higher the better: the mean of the tasks' `quality`,
    or minus their mean loss where no task has one; None without any label.

    Args:
        results: of all tasks.
        tasks: that count; all by default.
    """
    counted = [result for name, result in results.items() if tasks is None or name in tasks]
    values = [value for result in counted if (value := quality(result)) is not None]
    values = values or [-loss for result in counted if (loss := result["loss"]) is not None]
    return sum(values) / len(values) if values else None


def quality(result: Result) -> float | None:
    """How well a task does, whatever its kind: from 0 to 1, some 0.5 for one that has learned
    nothing; None where its labels do not tell.

    The first that there is of: `group_auc`, `auc`, `macro_auc`, `gini` and `r2`, brought to that
    range, and the `accuracy` of very many classes.
    """
    for key in ("group_auc", "auc", "macro_auc"):
        if result.get(key) is not None:
            return result[key]
    if (gini := result.get("gini")) is not None:
        return (1 + gini) / 2
    if (r2 := result.get("r2")) is not None:
        return 1 / (2 - r2)  # labels' variance over its sum with the mean squared error
    # that of a binary task whose labels are all the same says nothing
    return None if "auc" in result or "macro_auc" in result else result.get("accuracy")
