"""When a run ends before its last step: after `run.patience` validations that brought nothing."""

from __future__ import annotations

import torch
import torch.distributed as dist

from data_loaders.errors import InputError
from trainer.state import Selection


class EarlyStopping:
    """Counts validations without a better score; what it counts is part of the run's state.

    Args:
        patience: validations in a row; None for a run that always goes to its end.
        has_valid: whether there is anything to validate on.
        group: ranks, able to move CPU tensors.

    Raises:
        InputError: nothing to validate on.
    """

    def __init__(
        self, patience: int | None, *, has_valid: bool, group: dist.ProcessGroup | None
    ) -> None:
        if patience is not None and not has_valid:
            raise InputError(
                f"run.patience: {patience}, but the data set has no valid/ to judge by; "
                "make one (polytower prepare does), or leave it out"
            )
        self._patience = patience
        self._group = group

    def agreed(self, score: float) -> float:
        """The score of rank 0: ranks that differed in its last bit would stop at other steps."""
        found = torch.tensor(score, dtype=torch.float64)
        dist.broadcast(found, src=0, group=self._group)
        return float(found)

    def is_due(self, selection: Selection) -> bool:
        return self._patience is not None and selection.num_stale >= self._patience
