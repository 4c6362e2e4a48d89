"""What a recipe says about the model: a class per architecture, chosen by its word."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from data_loaders.config import Name, Section
from trainer.history_config import AnyHistory

Widths = list[PositiveInt]


class ModelConfig(Section):
    """What all architectures have: towers of fully connected layers with ReLU."""

    # whether there are the recipe's tables for all tasks together, and for each task by itself
    has_shared_tables: ClassVar[bool] = True
    has_own_tables: ClassVar[bool] = False

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
    histories: dict[Name, AnyHistory] = Field(
        {}, description="lists of ids that are encoded; all others are pooled"
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

    shared_tower: Widths = Field(
        [64, 32],
        description="widths of the layers that all tasks share; of single_task, of each task's "
        "layers below its task_tower",
    )


class SharedBottomConfig(BottomConfig):
    """One tower that all tasks share, and a tower for each task on top."""

    architecture: Literal["shared_bottom"] = "shared_bottom"


class SingleTaskConfig(BottomConfig):
    """Nothing is shared: tables, layers and tower of each task are its own."""

    has_shared_tables: ClassVar[bool] = False
    has_own_tables: ClassVar[bool] = True

    architecture: Literal["single_task"] = "single_task"


class ExpertsConfig(ModelConfig):
    """What architectures of experts have."""

    expert_tower: Widths = Field(
        [64, 32], min_length=1, description="widths of the layers of each expert"
    )


class SharedExpertsConfig(ExpertsConfig):
    """What architectures have whose experts are all shared."""

    num_experts: int = Field(8, ge=1, description="that all tasks share")


class OmoeConfig(SharedExpertsConfig):
    """Experts that all tasks share, mixed by one gate for all."""

    architecture: Literal["omoe"] = "omoe"


class MmoeConfig(SharedExpertsConfig):
    """Experts that all tasks share, mixed for each task by a gate of its own."""

    architecture: Literal["mmoe"] = "mmoe"


class DselectKConfig(SharedExpertsConfig):
    """Experts that all tasks share, of which each task's gate learns to select a few."""

    architecture: Literal["dselect_k"] = "dselect_k"
    num_selected: int = Field(2, ge=1, description="experts that a gate selects at most")
    gate: Literal["example", "static"] = Field(
        "example", description="example: a selection for each example; static: one for each task"
    )
    step_width: float = Field(
        1.0,
        gt=0,
        description="of the smooth step between 0 and 1, on the scale of the gate's codes",
    )
    entropy_weight: float = Field(
        0.01,
        ge=0,
        description="of the selections' entropy in the loss; above 0 it makes them sharp",
    )

    @model_validator(mode="after")
    def _check(self) -> DselectKConfig:
        if self.num_selected > self.num_experts:
            raise ValueError(
                f"num_selected: expected at most num_experts, {self.num_experts}, "
                f"found {self.num_selected}"
            )
        return self


class TaskExpertsConfig(ExpertsConfig):
    """What architectures have whose experts are partly a task's own."""

    num_shared_experts: int = Field(4, ge=1, description="of each level, that all tasks share")
    num_task_experts: int = Field(2, ge=1, description="of each level and task, its own")


class CgcConfig(TaskExpertsConfig):
    """Experts that all tasks share and experts of each task's own, mixed by each task's gate."""

    architecture: Literal["cgc"] = "cgc"
    num_levels: ClassVar[int] = 1


class PleConfig(TaskExpertsConfig):
    """Several levels of cgc, one on the other."""

    architecture: Literal["ple"] = "ple"
    num_levels: int = Field(2, ge=1, description="one on the other")


class HomeConfig(TaskExpertsConfig):
    """Two levels of normalised experts: of all tasks, of groups of tasks, and of each task."""

    architecture: Literal["home"] = "home"
    groups: dict[Name, list[Name]] = Field(
        {}, description="related tasks; all in one group by default"
    )
    num_group_experts: int = Field(2, ge=1, description="of each level, that a group's tasks share")
    gate_rank: int = Field(8, ge=1, description="width between the feature gates' two thin layers")


class StemConfig(TaskExpertsConfig):
    """Tables and experts of all tasks together and of each task."""

    has_own_tables: ClassVar[bool] = True

    architecture: Literal["stem"] = "stem"


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
    | SingleTaskConfig
    | OmoeConfig
    | MmoeConfig
    | DselectKConfig
    | CgcConfig
    | PleConfig
    | HomeConfig
    | StemConfig
    | CrossStitchConfig
    | AitmConfig
    | EsmmConfig
    | Escm2Config
    | DbmtlConfig
    | PepnetConfig
    | PosoConfig,
    Field(discriminator="architecture"),
]
