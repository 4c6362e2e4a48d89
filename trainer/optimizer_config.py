"""What a recipe says about the optimizers, and about the weights that are evaluated."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from data_loaders.config import Section


class TableOptimizerConfig(Section):
    """Row-wise Adagrad, fused into the backward of the lookup."""

    learning_rate: float = Field(0.05, gt=0)
    eps: float = Field(1e-8, gt=0)
    l2: float = Field(
        0.0,
        ge=0,
        description="half of this, times the squared norm of the pooled vectors that an example "
        "looks up, is added to its loss; as a mean over the batch; of encoded lists each id's "
        "vector by itself",
    )


class DenseOptimizerConfig(Section):
    """AdamW."""

    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    max_gradient_norm: float | None = Field(
        None, gt=0, description="gradients of all dense parameters together are scaled down to it"
    )


class ScheduleConfig(Section):
    """What all learning rates are multiplied by, as a function of the step alone."""

    warmup_steps: int = Field(0, ge=0, description="steps in which the rates rise from 0")
    decay: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="from the end of the warm-up to the last step of the run"
    )
    final_fraction: float = Field(0.0, ge=0, le=1, description="where the decay ends")


class OptimizerConfig(Section):
    """The recipe's section `optimizer`."""

    tables: TableOptimizerConfig = TableOptimizerConfig()
    dense: DenseOptimizerConfig = DenseOptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    ema_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="of the moving average of the dense parameters, which is what is evaluated",
    )
