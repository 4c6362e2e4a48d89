"""How well a model does on examples whose id it knows, and on those whose id is rare or new to it.

Shape legend: B examples on this rank, R rows of a table.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torchrec.optim.keyed import KeyedOptimizer
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from data_loaders.batch import single_ids
from data_loaders.id_encoding import MISSING_ROW
from data_loaders.id_vocabulary import FIRST_ROW, RARE_ROW
from embeddings.trained_rows import trained_rows
from trainer.config import Recipe
from trainer.metrics import TaskMetrics
from trainer.model import StepOutput


class ColdStartMetrics:
    """Metrics by whether the ids of `run.slices` are known; an example whose id is missing is in
    neither part.

    Known is an id that has a row of its own in the vocabulary; without one, an id whose row has had
    a gradient in this run, through whatever feature of its table.

    Args:
        recipe: of the run.
        optimizer: of the tables; every rank must construct.
        device: of the outputs.
    """

    def __init__(self, recipe: Recipe, *, optimizer: KeyedOptimizer, device: torch.device) -> None:
        self._parts = {
            name: {part: TaskMetrics(recipe.data, device=device) for part in ("warm", "cold")}
            for name in recipe.sliced_features()
        }
        self._trained = _trained_rows(recipe, optimizer=optimizer, device=device)
        # encoded directly, row 0 is an id, whether or not missing ones share it
        self._first_rows = {
            name: MISSING_ROW + (feature.encoding != "direct")
            for name, feature in recipe.sliced_features().items()
        }

    @torch.no_grad()
    def update(self, output: StepOutput, *, ids: KeyedJaggedTensor) -> None:
        """Adds one step's outputs, and the ids that they are of."""
        for name, parts in self._parts.items():
            rows_B = single_ids(ids, feature=name, num_examples=len(output.weights_B))
            for part, is_part_B in self._masks(name, rows_B=rows_B).items():
                weights_B = output.weights_B * is_part_B
                parts[part].update(replace(output, weights_B=weights_B))

    def _masks(self, name: str, *, rows_B: Tensor) -> dict[str, Tensor]:
        if name not in self._trained:
            return {"warm": rows_B >= FIRST_ROW, "cold": rows_B == RARE_ROW}
        is_given_B = rows_B >= self._first_rows[name]
        is_trained_B = self._trained[name][rows_B.clamp(min=0)]  # padding is -1
        return {"warm": is_given_B & is_trained_B, "cold": is_given_B & ~is_trained_B}

    def reduce_and_reset(self) -> dict[str, dict[str, float | None]]:
        """Each task's metrics over all ranks; every rank must call.

        Returns:
            For a feature `item` the `auc_item_warm` and `auc_item_cold` of a binary or a ranking
            task, or the `mse_...` of a regression, or the `accuracy_...` of several classes, and
            `examples_item_warm` and `examples_item_cold`: the number of observed labels. Empty
            without such a feature.
        """
        results: dict[str, dict[str, float | None]] = {}
        for name, parts in self._parts.items():
            for part, metrics in parts.items():
                for task, result in metrics.reduce_and_reset().items():
                    chosen = next(key for key in ("auc", "mse", "accuracy") if key in result)
                    found = results.setdefault(task, {})
                    for key in (chosen, "examples"):
                        found[f"{key}_{name}_{part}"] = result[key]
        return results


def reads_optimizer(recipe: Recipe) -> bool:
    """Whether an evaluation asks the optimizer which ids are known."""
    return bool(_without_vocabulary(recipe))


def _without_vocabulary(recipe: Recipe) -> list[str]:
    sliced = recipe.sliced_features()
    return [name for name, feature in sliced.items() if feature.encoding != "vocabulary"]


def _trained_rows(
    recipe: Recipe, *, optimizer: KeyedOptimizer, device: torch.device
) -> dict[str, Tensor]:
    """For each feature that is told apart without a vocabulary, bool (R) of its table."""
    tables, num_rows = recipe.table_of_feature(), recipe.num_rows_of_feature()
    names = _without_vocabulary(recipe)
    found = trained_rows(
        optimizer, num_rows={tables[name]: num_rows[name] for name in names}, device=device
    )
    return {name: found[tables[name]] for name in names}
