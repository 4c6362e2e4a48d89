"""The methods that a recipe chooses by a word, `balance.method`."""

from __future__ import annotations

from trainer.balance_config import BalanceConfig
from trainer.balancing.balancer import Balancer
from trainer.balancing.projection import Pcgrad

BALANCERS: dict[str, type[Balancer]] = {"static": Balancer, "pcgrad": Pcgrad}


def build_balancer(config: BalanceConfig, *, num_tasks: int) -> Balancer:
    """The method that a recipe's section `balance` asks for."""
    return BALANCERS[config.method](config, num_tasks=num_tasks)
