"""Learning rates by the step, against the schedulers of torch.optim, and steps that take them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

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

from tests.helpers.checkpoints import assert_equal
from tests.helpers.logs import write_toy_log
from tests.helpers.ranks import run_ranks
from tests.helpers.runs import make_recipe, newest_tensors, train_each
from trainer.config import Recipe
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


def scheduled(root: Path, name: str, *, num_steps: int, sharding: str, **optimizer: Any) -> Recipe:
    return make_recipe(
        root / "log",
        root / name,
        f"run.num_steps={num_steps}",
        sharding=sharding,
        optimizer=optimizer,
    )


def rates(factor: float) -> dict[str, Any]:
    """Keys of a recipe's `optimizer`."""
    return {
        "tables": {"learning_rate": 0.3 * factor},
        "dense": {"learning_rate": 0.02 * factor, "weight_decay": 0.1},
    }


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Dense parameters and tables."""
    tensors = newest_tensors(run)
    return {key: item for key, item in tensors.items() if key.startswith("/model/")}


@pytest.mark.parametrize("sharding", ["table_wise", "data_parallel"])
def test_a_step_is_one_at_the_rates_of_its_schedule(sharding: str, tmp_path: Path) -> None:
    """Of every parameter, dense or a table, with a fused optimizer or without: the first of a
    warm-up over 4 steps is one at a quarter of the rates, the last of 2 on a line to 0 one at half.
    """
    write_toy_log(tmp_path / "log")
    warm, falling = {"warmup_steps": 4}, {"decay": "linear"}
    recipes = [
        scheduled(tmp_path, name, num_steps=num_steps, sharding=sharding, **optimizer)
        for name, num_steps, optimizer in (
            ("warm", 1, rates(1) | {"schedule": warm}),
            ("quarter", 1, rates(1 / 4)),
            ("one", 1, rates(1)),
            ("falling", 2, rates(1) | {"schedule": falling}),
            ("halved", 1, rates(1)),
            ("halved", 2, rates(1 / 2)),
            ("two", 2, rates(1)),
        )
    ]
    run_ranks(train_each, world_size=1, arguments={"recipes": recipes})
    for name, same, other in (("warm", "quarter", "one"), ("falling", "halved", "two")):
        found, at_full_rates = weights(tmp_path / name), weights(tmp_path / other)
        assert_equal(found, weights(tmp_path / same))
        assert not [key for key in found if torch.equal(found[key], at_full_rates[key])]
