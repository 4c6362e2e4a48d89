"""What a recipe says about the model: a class per architecture, chosen by its word."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from data_loaders.config import Section

Widths = list[PositiveInt]


class ModelConfig(Section):
    """What all architectures have: towers of fully connected layers with ReLU."""

    architecture: str
    task_tower: Widths = Field([16], description="widths of each task's own layers")
    dropout: float = Field(0.0, ge=0, lt=1, description="after every layer, in training")


class SharedBottomConfig(ModelConfig):
    """One tower that all tasks share, and a tower for each task on top."""

    architecture: Literal["shared_bottom"] = "shared_bottom"
    shared_tower: Widths = Field([64, 32], description="widths of the layers that all tasks share")


class ExpertsConfig(ModelConfig):
    """What architectures of experts have."""

    expert_tower: Widths = Field(
        [64, 32], min_length=1, description="widths of the layers of each expert"
    )


class MmoeConfig(ExpertsConfig):
    """Experts that all tasks share, mixed for each task by a gate of its own."""

    architecture: Literal["mmoe"] = "mmoe"
    num_experts: int = Field(8, ge=1, description="that all tasks share")


AnyModel = Annotated[SharedBottomConfig | MmoeConfig, Field(discriminator="architecture")]
