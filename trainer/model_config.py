"""What a recipe says about the model: a class per architecture, chosen by its word."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from data_loaders.config import Name, Section
from data_loaders.errors import did_you_mean

Widths = list[PositiveInt]


class ModelConfig(Section):
    """What all architectures have: towers of fully connected layers with ReLU."""

    # whether there are the recipe's tables for all tasks together, and for each task by itself
    has_shared_tables: ClassVar[bool] = True
    has_own_tables: ClassVar[bool] = False

    architecture: str
    task_tower: Widths = Field([16], description="widths of each task's own layers")
    dropout: float = Field(0.0, ge=0, lt=1, description="after every layer, in training")

    def check_tasks(self, tasks: Collection[str]) -> None:
        """Raises a ValueError where the section does not fit the recipe's tasks."""


class BottomConfig(ModelConfig):
    """What architectures with a tower below those of the tasks have."""

    shared_tower: Widths = Field(
        [64, 32],
        description="widths of the layers that all tasks share; of single_task, of more layers of "
        "each task",
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

    def check_tasks(self, tasks: Collection[str]) -> None:
        found = [task for group in self.groups.values() for task in group]
        for task in found:
            if task not in tasks:
                raise ValueError(f"model.groups: no task {task}; {did_you_mean(task, tasks)}")
            if found.count(task) > 1:
                raise ValueError(f"model.groups: task {task} is there twice; expected it in one")
        for task in tasks if self.groups else ():
            if task not in found:
                raise ValueError(f"model.groups: task {task} is in no group; add it to one")
        for name, group in self.groups.items():
            if not group:
                raise ValueError(f"model.groups.{name}: is empty; expected at least one task")


class StemConfig(TaskExpertsConfig):
    """Tables and experts of all tasks together and of each task."""

    has_own_tables: ClassVar[bool] = True

    architecture: Literal["stem"] = "stem"


AnyModel = Annotated[
    SharedBottomConfig
    | SingleTaskConfig
    | OmoeConfig
    | MmoeConfig
    | DselectKConfig
    | CgcConfig
    | PleConfig
    | HomeConfig
    | StemConfig,
    Field(discriminator="architecture"),
]
