"""Learning rates by the step, against the schedulers of torch.optim."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    SequentialLR,
)

from trainer.optimizer_config import ScheduleConfig
from trainer.schedule import rate_factor

NUM_STEPS = 23


def reference(optimizer: SGD, config: ScheduleConfig) -> LRScheduler:
    length, final = NUM_STEPS - config.warmup_steps, config.final_fraction
    after: LRScheduler
    if config.decay == "cosine":
        after = CosineAnnealingLR(optimizer, T_max=length, eta_min=final)
    elif config.decay == "linear":
        after = LinearLR(optimizer, start_factor=1.0, end_factor=final, total_iters=length)
    else:
        after = ConstantLR(optimizer, factor=1.0)
    if not config.warmup_steps:
        return after
    steps = config.warmup_steps
    rise = LinearLR(optimizer, start_factor=1 / steps, total_iters=steps - 1)
    return SequentialLR(optimizer, [rise, after], milestones=[steps])


@pytest.mark.parametrize("warmup_steps", [0, 1, 6])
@pytest.mark.parametrize("final_fraction", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("decay", ["constant", "linear", "cosine"])
def test_the_factor_is_that_of_the_schedulers_of_torch(
    decay: str, final_fraction: float, warmup_steps: int
) -> None:
    """At every step; theirs go step by step, ours looks at the step alone."""
    config = ScheduleConfig.model_validate(
        {"decay": decay, "final_fraction": final_fraction, "warmup_steps": warmup_steps}
    )
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    expected, found = [], []
    with warnings.catch_warnings():  # SequentialLR of torch 2.13 calls its own deprecated argument
        warnings.simplefilter("ignore")
        scheduler = reference(optimizer, config)
        for step in range(NUM_STEPS):
            expected.append(optimizer.param_groups[0]["lr"])
            found.append(rate_factor(config, step=step, num_steps=NUM_STEPS))
            optimizer.step()
            scheduler.step()
    assert found == pytest.approx(expected, abs=1e-12)


def test_a_warm_up_longer_than_the_run_only_rises() -> None:
    """And never divides by nothing."""
    config = ScheduleConfig(warmup_steps=10, decay="cosine")
    assert [rate_factor(config, step=step, num_steps=3) for step in range(3)] == [0.1, 0.2, 0.3]
    assert rate_factor(ScheduleConfig(warmup_steps=3, decay="linear"), step=3, num_steps=3) == 1.0
