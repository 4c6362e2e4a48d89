"""What training reports of the steps since its last report."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from trainer.chain_labels import ChainLabels
from trainer.config import Recipe
from trainer.metrics import Result, TaskMetrics
from trainer.model import StepOutput
from trainer.skip_report import SkipReport, Skips
from trainer.telemetry import Telemetry


class TrainingReport:
    """Accumulates steps; waits for nothing between reports.

    Args:
        model: of this rank.
        recipe: of the run.
        num_steps: of the whole run.
        device: of the outputs.

    Attributes:
        counts_skipped: whether examples may be left out at all.
    """

    def __init__(
        self, model: nn.Module, *, recipe: Recipe, num_steps: int, device: torch.device
    ) -> None:
        self._interval, self._num_steps = recipe.run.log_interval_steps, num_steps
        self._metrics = TaskMetrics(recipe.data, device=device)
        self._skips = Skips(recipe.data, device=device)
        self._telemetry = Telemetry(model, tasks=recipe.data.tasks)
        self._chain_labels = ChainLabels(recipe, device=device)
        self.counts_skipped = self._skips.is_on

    def is_due(self, step: int) -> bool:
        """Whether the recipe wants a report behind this step."""
        return step % self._interval == 0 or step == self._num_steps

    def watching(self, step: int) -> AbstractContextManager[None]:
        """Around the step: the last one before a report is looked at more closely."""
        return self._telemetry.watching(self.is_due(step))

    def update(self, output: StepOutput) -> None:
        """Adds one step."""
        self._metrics.update(output)
        self._skips.update(output)
        self._chain_labels.update(output)

    def reduce_and_reset(
        self, output: StepOutput
    ) -> tuple[dict[str, Result], SkipReport, dict[str, Any]]:
        """Each task's metrics, what was left out, and `Telemetry.entries`; every rank must call.

        Args:
            output: of the last step.

        Raises:
            SchemaError: the labels are not those that the model takes.
        """
        self._chain_labels.check()
        tasks, skips = self._metrics.reduce_and_reset(), self._skips.reduce_and_reset()
        return tasks, skips, self._telemetry.entries(output)


def notes_on_labels(
    results: Mapping[str, Result], *, recipe: Recipe, num_examples: int
) -> list[str]:
    """A line for each task that found no label in the first examples: nothing else would tell of a
    wrong column, because a task's loss is null then, and no fault.
    """
    notes = []
    for name, result in results.items():
        if not result["examples"]:
            task = recipe.data.tasks[name]
            where = f", where {task.where} is 1" if task.where else ""
            notes.append(
                f"task {name}: no label in the first {num_examples:,} examples "
                f"(column {task.column or name}{where}); is it rare, or is this the wrong column?"
            )
    return notes
