"""Evaluation of a model on a split, over all ranks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torchrec.distributed.model_parallel import DistributedModelParallel

from data_loaders.config import DataConfig
from data_loaders.dataset import SPLITS, Split, read_dataset_info
from data_loaders.errors import InputError
from data_loaders.loader import InteractionLoader
from data_loaders.row_groups import has_split, locate_root
from data_loaders.storage import Location, locate
from data_loaders.streams import Cursor
from trainer.build import build_sharded_model
from trainer.checkpoint import (
    MANIFEST,
    Checkpoints,
    IncompleteCheckpointError,
    read_manifest,
    restore,
)
from trainer.config import Recipe
from trainer.metrics import TaskMetrics
from trainer.progress import Listener, Progress
from trainer.runtime import Runtime, joined_ranks

TaskResults = dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate_checkpoint` found.

    Attributes:
        checkpoint: its URI.
        split: that it was evaluated on.
        tasks: each task's metrics.
    """

    checkpoint: str
    split: Split
    tasks: TaskResults


def evaluate_checkpoint(
    uri: str, *, data_root: str | None, listener: Listener | None
) -> Evaluation:
    """Evaluates a stored model, whatever number of ranks wrote it.

    Args:
        uri: a checkpoint, or a run's folder: then the checkpoint that its summary would name.
        data_root: another data set than the run's own.
        listener: told the progress.

    Raises:
        IncompleteCheckpointError: there is no complete checkpoint.
        InputError: the data set does not fit the checkpoint's recipe.
    """
    location = _chosen_checkpoint(locate(uri))
    recipe = Recipe.model_validate(read_manifest(location).recipe)
    if data_root is not None:
        data = recipe.data.model_copy(update={"root": data_root})
        recipe = recipe.model_copy(update={"data": data})
    split = final_split(recipe.data)
    with joined_ranks() as runtime:
        device = runtime.device
        loader = evaluation_loader(recipe, split=split, runtime=runtime)
        model, _ = build_sharded_model(recipe, runtime=runtime)
        restore(location, model=model)
        tasks = evaluate(
            model, loader=loader, config=recipe.data, split=split, device=device, listener=listener
        )
    return Evaluation(checkpoint=location.uri, split=split, tasks=tasks)


def _chosen_checkpoint(location: Location) -> Location:
    if location.child(MANIFEST).exists():
        return location
    checkpoints = Checkpoints(location, keep=1)
    newest = checkpoints.newest()
    if newest is None:
        raise IncompleteCheckpointError(
            f"{location.uri}: neither a run with a complete checkpoint nor a checkpoint"
            + ("" if location.exists() else "; there is nothing at this URI")
        )
    selects_best = Recipe.model_validate(newest[1].recipe).run.select == "best"
    best = checkpoints.best() if selects_best else None
    return (best or newest)[0]


def evaluation_loader(recipe: Recipe, *, split: Split, runtime: Runtime) -> InteractionLoader:
    """Reads a split once, in the log's order."""
    return InteractionLoader(
        recipe.data,
        split=split,
        num_rows=recipe.num_rows_of_feature(),
        seed=None,
        rank=runtime.rank,
        world_size=runtime.world_size,
    )


def evaluate(
    model: DistributedModelParallel,
    *,
    loader: InteractionLoader,
    config: DataConfig,
    split: Split,
    device: torch.device,
    listener: Listener | None,
) -> TaskResults:
    """Each task's metrics on a split, and beside them what the log's ground truth allows; every
    rank must call.

    Returns:
        As `TaskMetrics.reduce_and_reset`, with `best_METRIC` for each metric whose best value is
        known, and for a binary task `best_auc` in any case, None where it is unknown.
    """
    metrics = TaskMetrics(config.tasks, device=device)
    was_training = model.training
    model.eval()
    started, num_steps = time.monotonic(), loader.steps_per_epoch
    for step, batch in enumerate(loader.batches(start=Cursor(), num_steps=num_steps), start=1):
        with torch.no_grad():
            _, output = model(batch.to(device, non_blocking=True))
        metrics.update(output)
        if listener is not None:
            rate = step * config.batch_size / (time.monotonic() - started)
            listener(Progress("evaluate", step, num_steps, rate, {}))
    model.train(was_training)
    return with_best(metrics.reduce_and_reset(), config=config, split=split)


def with_best(results: TaskResults, *, config: DataConfig, split: Split) -> TaskResults:
    """Adds what `dataset.json` knows of the best possible values on this split."""
    info = read_dataset_info(locate_root(config))
    best: Mapping[str, Mapping[str, float]] = {}
    if info is not None and split in info.splits:
        best = info.splits[split].best
    for name, result in results.items():
        if "auc" in result:
            result["best_auc"] = None
        result.update({f"best_{metric}": value for metric, value in best.get(name, {}).items()})
    return results


def final_split(config: DataConfig) -> Split:
    """The split that a run is judged by: test, or valid, or for lack of both train.

    Raises:
        InputError: the data set has none of them.
    """
    for split in reversed(SPLITS):
        if has_split(config, split=split):
            return split
    root = locate_root(config)
    raise InputError(
        f"{root.uri}: no *.parquet file in test/, valid/ or train/; give a data set's folder"
    )


def selection_score(results: TaskResults) -> float:
    """One number to choose checkpoints by: the mean AUC of the binary tasks, or minus the mean
    loss without any.
    """
    aucs = [result["auc"] for result in results.values() if result.get("auc") is not None]
    values = aucs or [-(result["loss"] or 0.0) for result in results.values()]
    return sum(value for value in values if value is not None) / len(values)
