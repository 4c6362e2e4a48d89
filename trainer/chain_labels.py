"""Whether the tasks of a chain have the labels that it takes: those of all examples.

Shape legend: B examples on this rank, C tasks that follow another.
"""

from __future__ import annotations

import torch
import torch.distributed as dist

from data_loaders.errors import SchemaError
from trainer.config import Recipe
from trainer.model import StepOutput
from trainer.model_config import ChainConfig

# examples of which not one is labelled: that is no chance
ENOUGH = 100


class ChainLabels:
    """Looks for labels where the step before did not happen; costs nothing once they were seen.

    A column that is null there, instead of 0, would teach the probability after that step for the
    one over all examples, and nothing else would tell.

    Args:
        recipe: of the run.
        device: of the outputs.
    """

    def __init__(self, recipe: Recipe, *, device: torch.device) -> None:
        self._names = list(recipe.data.tasks)
        after = recipe.model.after if isinstance(recipe.model, ChainConfig) else {}
        self._after = dict(after)
        self._counts_2C = torch.zeros(2, len(after), dtype=torch.int64, device=device)

    def update(self, output: StepOutput) -> None:
        """Adds one step's labels; waits for nothing."""
        for column, (task, before) in enumerate(self._after.items()):
            own_B, before_B = (output.labels_BT[:, self._names.index(t)] for t in (task, before))
            is_over_B = (output.weights_B > 0) & (before_B == 0)
            labelled_B = is_over_B & ~torch.isnan(own_B)
            self._counts_2C[:, column] += torch.stack([is_over_B.sum(), labelled_B.sum()])

    def check(self) -> None:
        """Every rank must call.

        Raises:
            SchemaError: on every rank, naming task and column.
        """
        if not self._after:
            return
        counts_2C = self._counts_2C.clone()
        if dist.is_initialized():
            dist.all_reduce(counts_2C)
        for (task, before), (num_over, num_labelled) in zip(
            self._after.items(), counts_2C.T.tolist(), strict=True
        ):
            if num_over >= ENOUGH and not num_labelled:
                raise SchemaError(
                    f"data.tasks.{task}: expected 0 where {before} is 0, because model.after says "
                    f"that {task} follows {before}, found null in all {num_over} such examples; "
                    "fill the column with 0 there, or use an architecture without model.after"
                )
        if counts_2C[1].all():
            self._after = {}
