"""Methods of balancing, made by their words."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from data_loaders.config import DataConfig
from trainer.balance_config import AnyBalance
from trainer.balancing import build_balancer
from trainer.balancing.balancer import Balancer
from trainer.losses import TaskSet
from trainer.recipe_errors import choices

SEED = 5

BY_GRADIENTS = sorted(word for word, kind in choices(AnyBalance).items() if kind.weighs_gradients)


def make(word: str, *, num_tasks: int, **options: Any) -> Balancer:
    """A method with tasks that are binary and regressions in turn."""
    tasks = {
        f"task_{task}": {"kind": "regression" if task % 2 else "binary"}
        for task in range(num_tasks)
    }
    data = DataConfig.model_validate({"features": {"user": {"kind": "id"}}, "tasks": tasks})
    config: Any = choices(AnyBalance)[word].model_validate({"method": word, **options})
    return build_balancer(config, tasks=TaskSet(data).losses, seed=SEED)


def factors_of(
    balancer: Balancer, gradients_TD: Tensor, *, means_T: Tensor | None = None
) -> Tensor:
    """What a method makes of gradients, float64 (T, D)."""
    means_T = torch.ones(len(gradients_TD), dtype=torch.float64) if means_T is None else means_T
    return balancer.factors(gradients_TD @ gradients_TD.T, means_T=means_T)


def drawn(num_tasks: int, *, seed: int = 0, width: int = 12) -> Tensor:
    """Gradients, float64 (T, D)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_tasks, width, generator=generator, dtype=torch.float64)
