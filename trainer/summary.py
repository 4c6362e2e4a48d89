"""What a finished run says of itself."""

from __future__ import annotations

import dataclasses
from typing import Any

from torchrec.distributed.types import ShardingPlan

from data_loaders.storage import Location
from embeddings.plan_report import placements
from trainer.config import Recipe
from trainer.evaluate import Evaluation
from trainer.state import TrainState


def summary_of(
    recipe: Recipe,
    *,
    state: TrainState,
    evaluation: Evaluation,
    checkpoint: Location,
    plan: ShardingPlan,
    world_size: int,
    is_stopped_early: bool,
) -> dict[str, Any]:
    """The content of `summary.json`.

    Args:
        recipe: of the run.
        state: at its end.
        evaluation: the final one.
        checkpoint: that was evaluated.
        plan: of the tables.
        world_size: ranks.
        is_stopped_early: whether `run.patience` ended it.
    """
    return {
        "examples": state.examples,
        "skipped": state.skipped,
        "skipped_uncounted_files": state.uncounted_files,
        "steps": state.step,
        "stopped_early": is_stopped_early,
        "world_size": world_size,
        "seconds": round(state.seconds, 3),
        "examples_per_second": round(state.examples / state.seconds, 1),
        "data_wait_fraction": round(state.data_wait_seconds / state.seconds, 4),
        "evaluated_on": evaluation.split,
        **evaluation.skips.of_evaluation(),
        "tasks": evaluation.tasks,
        "calibration_curves": evaluation.curves,
        "checkpoint": checkpoint.uri,
        "plan": [dataclasses.asdict(item) for item in placements(plan, tables=recipe.tables())],
    }
