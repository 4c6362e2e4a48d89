"""What a recipe says about the model: a class per architecture, chosen by its word."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from data_loaders.config import Section

Widths = list[PositiveInt]


class ModelConfig(Section):
    """What all architectures have: towers of fully connected layers with ReLU."""

    architecture: str
    task_tower: Widths = Field([16], description="widths of each task's own layers")
    dropout: float = Field(0.0, ge=0, lt=1, description="after every layer, in training")
    interaction: Literal["concat", "dot", "dcn", "fm"] = Field(
        "concat", description="of the features, before the towers"
    )
    num_cross_layers: int = Field(2, ge=1, description="of interaction: dcn")
    cross_rank: int | None = Field(
        None, ge=1, description="of interaction: dcn; full rank by default"
    )

    @model_validator(mode="after")
    def _check_interaction(self) -> ModelConfig:
        for key in ("num_cross_layers", "cross_rank"):
            is_default = getattr(self, key) == ModelConfig.model_fields[key].default
            if self.interaction != "dcn" and not is_default:
                raise ValueError(f"{key}: needs interaction: dcn, found {self.interaction}")
        return self


class BottomConfig(ModelConfig):
    """What architectures have whose tasks read one tower."""

    shared_tower: Widths = Field([64, 32], description="widths of the layers that all tasks share")


class SharedBottomConfig(BottomConfig):
    """One tower that all tasks share, and a tower for each task on top."""

    architecture: Literal["shared_bottom"] = "shared_bottom"


class ExpertsConfig(ModelConfig):
    """What architectures of experts have."""

    expert_tower: Widths = Field(
        [64, 32], min_length=1, description="widths of the layers of each expert"
    )


class MmoeConfig(ExpertsConfig):
    """Experts that all tasks share, mixed for each task by a gate of its own."""

    architecture: Literal["mmoe"] = "mmoe"
    num_experts: int = Field(8, ge=1, description="that all tasks share")


class CrossStitchConfig(ModelConfig):
    """A tower for each task, and behind each layer a unit that mixes what they found."""

    architecture: Literal["cross_stitch"] = "cross_stitch"
    stitched_tower: Widths = Field(
        [64, 32], min_length=1, description="widths of each task's layers with units behind them"
    )


class ChainConfig(ModelConfig):
    """What architectures have whose tasks follow one another."""

    after: dict[str, str] = Field(
        min_length=1, description="a task, and the task that it follows: {purchase: click}"
    )


class AitmConfig(ChainConfig):
    """Each task is told by the one before what it found, and is not to be likelier than it."""

    architecture: Literal["aitm"] = "aitm"
    task_tower: Widths = Field([64, 32], min_length=1)
    calibration_weight: float = Field(
        0.6, ge=0, description="of the loss where a task is likelier than the one before"
    )


class EsmmConfig(ChainConfig, BottomConfig):
    """A task's probability is that of all tasks before it, and its own given those."""

    architecture: Literal["esmm"] = "esmm"


class Escm2Config(ChainConfig, BottomConfig):
    """`esmm`, and a loss of each task's own step, as if the step before had always happened."""

    architecture: Literal["escm2"] = "escm2"
    estimator: Literal["ips", "dr"] = Field(
        "ips", description="inverse propensity scores, or doubly robust by an imputed loss"
    )
    counterfactual_weight: float = Field(0.1, ge=0, description="of that loss")
    min_propensity: float = Field(
        0.01, gt=0, le=1, description="a step's probability counts as at least this"
    )


class DbmtlConfig(BottomConfig):
    """Tasks that depend on others read what was found for those."""

    architecture: Literal["dbmtl"] = "dbmtl"
    depends_on: dict[str, list[str]] = Field(
        min_length=1, description="a task, and those that it reads: {purchase: [click]}"
    )
    relation_tower: Widths = Field(
        [16], min_length=1, description="widths of the layers that read a task and those"
    )


class GatedConfig(ModelConfig):
    """What architectures have whose gates read some of the features."""

    gate_features: list[str] = Field(
        min_length=1, description="names of the features that the gates read, of any kind"
    )
    gate_layer: PositiveInt = Field(16, description="width of each gate's hidden layer")


class PepnetConfig(GatedConfig):
    """Gates scale the input, and each layer of each task's tower, for each example."""

    architecture: Literal["pepnet"] = "pepnet"
    task_tower: Widths = Field([64, 32], min_length=1)


class PosoConfig(GatedConfig, BottomConfig):
    """A shared bottom whose layers are scaled for each example by gates."""

    architecture: Literal["poso"] = "poso"


AnyModel = Annotated[
    SharedBottomConfig
    | MmoeConfig
    | CrossStitchConfig
    | AitmConfig
    | EsmmConfig
    | Escm2Config
    | DbmtlConfig
    | PepnetConfig
    | PosoConfig,
    Field(discriminator="architecture"),
]
