"""What each task loses when a feature tells it nothing: importance by permutation.

A feature's values are dealt out anew among the examples of each batch, so what they say of an
example is lost, and how they are distributed is not. Features that say the same stand in for each
other, and share what they are worth.

Source: Breiman, "Random forests", Machine Learning 45, 2001, section 10; for models of any kind
    Fisher, Rudin and Dominici, "All models are wrong, but many are useful", JMLR 20, 2019,
    section 3.

Shape legend: B examples on this rank, D dense features.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from data_loaders.batch import InteractionBatch
from data_loaders.config import DataConfig
from data_loaders.dataset import Split
from data_loaders.row_groups import has_split
from data_loaders.storage import Location
from data_loaders.streams import Cursor
from trainer.config import Recipe
from trainer.evaluate import evaluation_loader, final_split, opened_checkpoint
from trainer.manifest import read_manifest, state_of
from trainer.metrics import Result, TaskMetrics
from trainer.progress import Listener, Progress
from trainer.runtime import Runtime


def measure_importance(location: Location, *, listener: Listener | None) -> dict[str, Any]:
    """Reads valid once, or for lack of it what the run was judged by.

    All of a batch's permutations are done while it is here. Metrics take half a megabyte for each
    feature and task.

    Args:
        location: of a checkpoint.
        listener: told the progress.

    Returns:
        A line for `metrics.jsonl`: `split`, `step`, and `importance` with `checkpoint`, `seed`, and
        `tasks`: of each the `metric` (auc, or loss where there is none), its `value` as it is, and
        `features`: by how much it gets worse without each, the AUC's drop or the loss's rise. The
        same at every call: the recipe's seed decides.

    Raises:
        IncompleteCheckpointError: there is no complete checkpoint.
        InputError: the data set does not fit the checkpoint's recipe.
    """
    with opened_checkpoint(location, data_root=None, with_slices=False) as opened:
        recipe = opened.recipe
        is_valid = has_split(recipe.data, split="valid")
        split: Split = "valid" if is_valid else final_split(recipe.data)
        metrics = _measure(
            opened.model, recipe=recipe, split=split, runtime=opened.runtime, listener=listener
        )
        found = {name: item.reduce_and_reset() for name, item in metrics.items()}
    base = found.pop("")
    tasks = {
        task: _compared(result, {name: item[task] for name, item in found.items()})
        for task, result in base.items()
    }
    return {
        "split": split,
        "step": state_of(read_manifest(location)).step,
        "importance": {"checkpoint": location.uri, "seed": recipe.run.seed, "tasks": tasks},
    }


def _measure(
    model: nn.Module, *, recipe: Recipe, split: Split, runtime: Runtime, listener: Listener | None
) -> dict[str, TaskMetrics]:
    """Metrics without each feature, and under no name with all."""
    loader = evaluation_loader(recipe, split=split, runtime=runtime)
    names = ["", *recipe.data.features]
    metrics = {name: TaskMetrics(recipe.data, device=runtime.device) for name in names}
    model.eval()
    started, num_steps = time.monotonic(), loader.steps_per_epoch
    for step, batch in enumerate(loader.batches(start=Cursor(), num_steps=num_steps)):
        batch = batch.to(runtime.device, non_blocking=True)
        seed = (recipe.run.seed * 1_000_003 + step) * 1_000_003 + runtime.rank
        variants = permuted_batches(batch, config=recipe.data, seed=seed % 2**63)
        for done, (name, variant) in enumerate(variants, start=1):
            with torch.no_grad():
                _, output = model(variant)
            metrics[name].update(output)
            if listener is not None:
                total = step * len(names) + done
                rate = total * recipe.data.batch_size / (time.monotonic() - started)
                listener(Progress("evaluate", total, num_steps * len(names), rate, {}))
    return metrics


def permuted_batches(
    batch: InteractionBatch, *, config: DataConfig, seed: int
) -> Iterator[tuple[str, InteractionBatch]]:
    """The batch as it is, under no name, and with each feature's values permuted among examples.

    Args:
        batch: padding in it stays where it is.
        config: that the batch was read by.
        seed: of the permutations.
    """
    yield "", batch
    generator = torch.Generator().manual_seed(seed)
    num_given = int((batch.weights_B > 0).sum())  # padding comes last
    columns: dict[str, slice] = {}
    start = 0
    for name, width in config.dense_widths.items():
        columns[name] = slice(start, start := start + width)
    for name in config.features:
        order_B = torch.arange(len(batch.weights_B))
        order_B[:num_given] = torch.randperm(num_given, generator=generator)
        order_B = order_B.to(batch.weights_B.device)
        if name in columns:
            dense_BD = batch.dense_BD.clone()
            dense_BD[:, columns[name]] = batch.dense_BD[order_B, columns[name]]
            yield name, replace(batch, dense_BD=dense_BD)
        else:
            yield name, replace(batch, ids=permuted_ids(batch.ids, key=name, order_B=order_B))


def permuted_ids(ids: KeyedJaggedTensor, *, key: str, order_B: Tensor) -> KeyedJaggedTensor:
    """The same ids, but the example at place b has of one key those of `order_B[b]`.

    Args:
        ids: of a batch.
        key: one of its features.
        order_B: int64, each place once.
    """
    lengths, values, weights = [], [], []
    for name in ids.keys():  # noqa: SIM118  (no dict)
        part = ids[name]
        lengths_B = part.lengths()
        taken = torch.arange(len(part.values()), device=lengths_B.device)
        if name == key:
            starts_B, lengths_B = part.offsets()[:-1][order_B], lengths_B[order_B]
            begins_B = lengths_B.cumsum(0) - lengths_B
            shifts_B = (starts_B - begins_B).repeat_interleave(lengths_B)
            taken = taken + shifts_B
        lengths.append(lengths_B)
        values.append(part.values()[taken])
        if ids.weights_or_none() is not None:
            weights.append(part.weights()[taken])
    return KeyedJaggedTensor(
        keys=ids.keys(),
        values=torch.cat(values),
        lengths=torch.cat(lengths),
        weights=torch.cat(weights) if weights else None,
    )


def _compared(base: Result, without: dict[str, Result]) -> dict[str, Any]:
    """How much worse a task gets."""
    metric = "auc" if base.get("auc") is not None else "loss"
    value = base[metric]
    worse = {}
    for name, result in without.items():
        found = result[metric]
        assert found is not None or value is None, "permutations leave the labels as they are"
        if found is None or value is None:
            worse[name] = 0.0
        else:
            worse[name] = value - found if metric == "auc" else found - value
    return {"metric": metric, "value": value, "features": worse}
