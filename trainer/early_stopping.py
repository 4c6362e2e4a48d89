"""When a run ends before its last step: after `run.patience` validations that brought nothing."""

from __future__ import annotations

import torch
import torch.distributed as dist

from data_loaders.errors import InputError
from trainer.config import RunConfig
from trainer.evaluate import TaskResults, selection_score
from trainer.state import Selection


class EarlyStopping:
    """Scores validations, and counts those without a better score as part of the run's state.

    Args:
        config: the section `run`; without `patience` it always goes to its end.
        has_valid: whether there is anything to validate on.
        group: ranks, able to move CPU tensors.

    Raises:
        InputError: nothing to validate on, for keys that ask for it.
    """

    def __init__(
        self, config: RunConfig, *, has_valid: bool, group: dist.ProcessGroup | None
    ) -> None:
        for key in ("patience", "select_by"):
            if (value := getattr(config, key)) is not None and not has_valid:
                raise InputError(
                    f"run.{key}: {value}, but the data set has no valid/ to judge by; "
                    "make one, or leave the key out"
                )
        self._config = config
        self._group = group

    def score_of(self, results: TaskResults) -> float | None:
        """What a validation found as one number, that of rank 0: ranks that differed in its last
        bit would stop at other steps. None without a label of a task that counts.

        Raises:
            InputError: there is none, and a key asks for it.
        """
        score = selection_score(results, tasks=self._config.select_by)
        if score is None:
            if (self._config.patience, self._config.select_by) == (None, None):
                return None
            chosen = self._config.select_by
            tasks = ", ".join(chosen) if chosen else "any task"
            cure = "run.select_by: name others" if chosen else "leave run.patience out"
            raise InputError(
                f"valid/: no label of {tasks}, so no checkpoint is better than another; {cure}"
            )
        found = torch.tensor(score, dtype=torch.float64)
        dist.broadcast(found, src=0, group=self._group)
        return float(found)

    def is_due(self, selection: Selection) -> bool:
        patience = self._config.patience
        return patience is not None and selection.num_stale >= patience
