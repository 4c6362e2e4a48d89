"""What the columns of `InteractionBatch.labels_BT` hold.

click  watch  buy  |  price_weight  log q
labels of tasks    |  what else belongs to an example, and is no input of the model
"""

from __future__ import annotations

from dataclasses import dataclass

from data_loaders.config import DataConfig
from data_loaders.task_config import RankingTask


@dataclass(frozen=True)
class LabelColumns:
    """Which column is what.

    Attributes:
        num_tasks: whose labels come first.
        weights: columns of the log behind `example_weight`, each once.
        weight_of_task: index of each task's own, None where every label counts once.
        log_q: index of the logarithm of how often an example's item is drawn, in nats and up to a
            constant; None where no task asks for it.
    """

    num_tasks: int
    weights: tuple[str, ...]
    weight_of_task: tuple[int | None, ...]
    log_q: int | None

    @classmethod
    def of(cls, config: DataConfig) -> LabelColumns:
        """Those of a recipe."""
        tasks = config.tasks.values()
        named = [task.example_weight for task in tasks]
        weights = tuple(dict.fromkeys(name for name in named if name is not None))
        first = len(named)
        has_log_q = (
            config.negatives is not None
            and config.negatives.sampling == "popularity"
            and any(
                isinstance(task, RankingTask) and task.loss == "sampled_softmax" for task in tasks
            )
        )
        return cls(
            num_tasks=first,
            weights=weights,
            weight_of_task=tuple(
                None if name is None else first + weights.index(name) for name in named
            ),
            log_q=first + len(weights) if has_log_q else None,
        )

    @property
    def num_columns(self) -> int:
        return self.num_tasks + len(self.weights) + (self.log_q is not None)
