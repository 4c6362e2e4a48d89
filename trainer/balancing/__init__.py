"""The methods that a recipe chooses by a word, `balance.method`."""

from __future__ import annotations

from typing import Any

from trainer.balance_config import BalanceConfig
from trainer.balancing.alignment import AlignedMtl, Imtl
from trainer.balancing.balancer import Balancer
from trainer.balancing.bargaining import NashMtl
from trainer.balancing.common_descent import Cagrad, Mgda
from trainer.balancing.gradient_norms import Gradnorm
from trainer.balancing.loss_weights import Dwa, Famo, Rlw, Uncertainty
from trainer.balancing.projection import Gradvac, Pcgrad
from trainer.losses import TaskLoss

# of a class's own section each, whence Any
BALANCERS: dict[str, Any] = {
    "static": Balancer,
    "uncertainty": Uncertainty,
    "dwa": Dwa,
    "rlw": Rlw,
    "famo": Famo,
    "gradnorm": Gradnorm,
    "pcgrad": Pcgrad,
    "gradvac": Gradvac,
    "mgda": Mgda,
    "cagrad": Cagrad,
    "nash_mtl": NashMtl,
    "imtl": Imtl,
    "aligned_mtl": AlignedMtl,
}


def build_balancer(config: BalanceConfig, *, tasks: tuple[TaskLoss, ...], seed: int) -> Balancer:
    """The method that a recipe's section `balance` asks for."""
    balancer: Balancer = BALANCERS[config.method](config, tasks=tasks, seed=seed)
    return balancer
