"""Evaluation of a model on a split, over all ranks."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torchrec.distributed.model_parallel import DistributedModelParallel

from data_loaders.config import DataConfig
from data_loaders.dataset import SPLITS, Split, read_dataset_info
from data_loaders.errors import InputError
from data_loaders.loader import InteractionLoader
from data_loaders.row_groups import has_split, locate_root
from data_loaders.streams import Cursor
from trainer.config import Recipe
from trainer.metrics import TaskMetrics
from trainer.progress import Listener, Progress
from trainer.runtime import Runtime

TaskResults = dict[str, dict[str, float | None]]


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
    """Each task's metrics on a split, and beside them what the log's ground truth allows; every rank must call.

    Returns:
        As `TaskMetrics.reduce_and_reset`, with `best_METRIC` for each metric whose best value is known, and for a binary task
        `best_auc` in any case, None where it is unknown.
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
    raise InputError(f"{root.uri}: no *.parquet file in test/, valid/ or train/; give a data set's folder")


def selection_score(results: TaskResults) -> float:
    """One number to choose checkpoints by: the mean AUC of the binary tasks, or minus the mean loss without any."""
    aucs = [result["auc"] for result in results.values() if result.get("auc") is not None]
    values = aucs or [-(result["loss"] or 0.0) for result in results.values()]
    return sum(value for value in values if value is not None) / len(values)
