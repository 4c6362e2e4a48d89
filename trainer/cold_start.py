"""How well a model does on examples whose id it knows, and on those whose id is rare or new to it.

Shape legend: B examples on this rank.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from data_loaders.batch import single_ids
from data_loaders.config import DataConfig, IdFeature
from data_loaders.id_vocabulary import FIRST_ROW, RARE_ROW
from trainer.metrics import TaskMetrics
from trainer.model import StepOutput


class ColdStartMetrics:
    """Metrics by whether the id of each single-id feature with a vocabulary is in it; an example
    whose id is missing is in neither part.

    Args:
        config: features and tasks.
        device: of the outputs.
    """

    def __init__(self, config: DataConfig, *, device: torch.device) -> None:
        self._parts = {
            name: {part: TaskMetrics(config, device=device) for part in ("warm", "cold")}
            for name, feature in config.features.items()
            if isinstance(feature, IdFeature) and feature.encoding == "vocabulary"
        }

    @torch.no_grad()
    def update(self, output: StepOutput, *, ids: KeyedJaggedTensor) -> None:
        """Adds one step's outputs, and the ids that they are of."""
        for name, parts in self._parts.items():
            rows_B = single_ids(ids, feature=name, num_examples=len(output.weights_B))
            masks = {"warm": rows_B >= FIRST_ROW, "cold": rows_B == RARE_ROW}
            for part, metrics in parts.items():
                weights_B = output.weights_B * masks[part]
                metrics.update(replace(output, weights_B=weights_B))

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
