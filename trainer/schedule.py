"""Learning rates as a pure function of the step, so that a resumed run follows them exactly."""

from __future__ import annotations

import math

from torchrec.optim.keyed import KeyedOptimizer

from trainer.optimizer_config import ScheduleConfig


def rate_factor(config: ScheduleConfig, *, step: int, num_steps: int) -> float:
    """What every learning rate is multiplied by, 0 to 1.

    Args:
        config: of the recipe.
        step: updates done before.
        num_steps: of the whole run.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, num_steps - config.warmup_steps)
    remaining = {
        "constant": 1.0,
        "linear": 1.0 - done,
        "cosine": (1.0 + math.cos(math.pi * done)) / 2,
    }[config.decay]
    return config.final_fraction + (1.0 - config.final_fraction) * remaining


class Schedule:
    """Sets the learning rates of an optimizer, those of the tables' fused ones included.

    A fused optimizer takes over its param group's rate in `zero_grad`, with which a step of
    TorchRec's pipeline begins.

    Args:
        config: of the recipe.
        optimizer: at the recipe's full rates.
        num_steps: of the whole run.
    """

    def __init__(
        self, config: ScheduleConfig, *, optimizer: KeyedOptimizer, num_steps: int
    ) -> None:
        self._config = config
        self._num_steps = num_steps
        self._groups = [(group, float(group["lr"])) for group in optimizer.param_groups]

    def apply(self, *, step: int) -> None:
        """Sets the rates for the update that follows `step` others."""
        factor = rate_factor(self._config, step=step, num_steps=self._num_steps)
        for group, full_rate in self._groups:
            group["lr"] = full_rate * factor
