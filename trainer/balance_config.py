"""What a recipe says about how the tasks' losses and gradients are weighed against each other."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from data_loaders.config import Section

# how the names of what this section's methods keep in the model begin
BALANCE_STATE = ("towers.fan_out.balancer.", "towers.relation.")


class RelationConfig(Section):
    """Ties the tasks' towers to each other, beside any method."""

    kind: Literal["l2", "relationship"] = Field(
        "l2",
        description="l2: every tower is drawn to their mean; relationship: those of related tasks "
        "to each other, by a covariance that is learned",
    )
    strength: float = Field(gt=0, description="what the penalty is multiplied by")


class BalanceConfig(Section):
    """What all methods have."""

    # logarithms and ratios of losses, or a share of each: of no use where a loss may be negative
    needs_positive_losses: ClassVar[bool] = False
    # by what they are at the parts that tasks share
    weighs_gradients: ClassVar[bool] = False

    method: str
    relation: RelationConfig | None = Field(
        None, description="ties the tasks' towers to each other, beside any method"
    )


class StaticConfig(BalanceConfig):
    """Every task counts by its `weight`, from first to last."""

    method: Literal["static"] = "static"


class UncertaintyConfig(BalanceConfig):
    """Each task's loss is divided by a variance that is learned with the model."""

    needs_positive_losses: ClassVar[bool] = True

    method: Literal["uncertainty"] = "uncertainty"


class DwaConfig(BalanceConfig):
    """Tasks whose loss falls slowly count for more."""

    needs_positive_losses: ClassVar[bool] = True

    method: Literal["dwa"] = "dwa"
    temperature: float = Field(2.0, gt=0, description="the higher, the more alike tasks count")
    window_steps: int = Field(
        100, ge=1, description="steps over which a loss is averaged, before two are compared"
    )


class RlwConfig(BalanceConfig):
    """Weights are drawn anew at every step."""

    method: Literal["rlw"] = "rlw"


class FamoConfig(BalanceConfig):
    """Weights under which all losses fall at the same rate, found from the losses alone."""

    needs_positive_losses: ClassVar[bool] = True

    method: Literal["famo"] = "famo"
    learning_rate: float = Field(0.025, gt=0, description="of the weights' logits")
    decay: float = Field(0.001, ge=0, description="of the weights' logits")


class GradientConfig(BalanceConfig):
    """What the methods have that weigh the tasks' gradients."""

    weighs_gradients: ClassVar[bool] = True


class GradnormConfig(GradientConfig):
    """Weights under which tasks that learn slowly have the larger gradients."""

    needs_positive_losses: ClassVar[bool] = True

    method: Literal["gradnorm"] = "gradnorm"
    asymmetry: float = Field(
        1.5, ge=0, description="how much larger; 0 makes all gradients equally large"
    )
    learning_rate: float = Field(0.025, gt=0, description="of the weights' logarithms")


class PcgradConfig(GradientConfig):
    """From each task's gradient, what goes against another task's is taken away."""

    method: Literal["pcgrad"] = "pcgrad"


class GradvacConfig(GradientConfig):
    """Gradients are turned towards each other, until they are as alike as they usually are."""

    method: Literal["gradvac"] = "gradvac"
    momentum: float = Field(
        0.01, gt=0, le=1, description="how much a step counts in the usual likeness"
    )


class MgdaConfig(GradientConfig):
    """The shortest mean of the gradients: no task's loss rises along it."""

    method: Literal["mgda"] = "mgda"


class CagradConfig(GradientConfig):
    """Near the gradients' mean, the direction that serves the worst served task best."""

    method: Literal["cagrad"] = "cagrad"
    radius: float = Field(
        0.5, ge=0, lt=1, description="how near, as a fraction of the mean's length"
    )


class NashConfig(GradientConfig):
    """The direction that the tasks agree on when each bargains for its own gain."""

    method: Literal["nash_mtl"] = "nash_mtl"


class ImtlConfig(GradientConfig):
    """The direction that is equally far along every task's gradient."""

    method: Literal["imtl"] = "imtl"
    scale_losses: bool = Field(
        True, description="also learn a scale for each loss that makes all equally large"
    )


class AlignedConfig(GradientConfig):
    """Gradients are made orthogonal and equally long, as near to what they are as possible."""

    method: Literal["aligned_mtl"] = "aligned_mtl"


AnyBalance = Annotated[
    StaticConfig
    | UncertaintyConfig
    | DwaConfig
    | RlwConfig
    | FamoConfig
    | GradnormConfig
    | PcgradConfig
    | GradvacConfig
    | MgdaConfig
    | CagradConfig
    | NashConfig
    | ImtlConfig
    | AlignedConfig,
    Field(discriminator="method"),
]
