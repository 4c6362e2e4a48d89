"""What a recipe says about how the tasks' losses and gradients are weighed against each other."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from data_loaders.config import Section


class BalanceConfig(Section):
    """What all methods have."""

    method: str


class StaticConfig(BalanceConfig):
    """Every task counts by its `weight`, from first to last."""

    method: Literal["static"] = "static"


class PcgradConfig(BalanceConfig):
    """From each task's gradient, what goes against another task's is taken away."""

    method: Literal["pcgrad"] = "pcgrad"


AnyBalance = Annotated[StaticConfig | PcgradConfig, Field(discriminator="method")]
