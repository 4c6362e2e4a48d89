"""The recipe: one YAML file that says everything about a run except where it runs.

    data:        where the log lies, features, tasks        data_loaders.config
    embeddings:  tables                                     embeddings.config
    model:       architecture                               trainer.model_config
    balance:     of the tasks against each other            trainer.balance_config
    optimizer:   of the tables, of the dense parts          trainer.optimizer_config
    checkpoint:  how often, how many
    init_from:   another run to begin with
    prepare:     how a raw log becomes the data set         data_loaders.prepare_config
    run:         folder, seed, length, reports

`trainer.recipe_file` reads and writes it.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from data_loaders.config import DataConfig, IdFeature, IdListFeature, Section
from data_loaders.errors import did_you_mean
from data_loaders.prepare_config import PrepareConfig
from embeddings.config import EmbeddingsConfig, TableConfig, owned_tables
from trainer.balance_checks import check_balance
from trainer.balance_config import BALANCE_STATE, AnyBalance, StaticConfig
from trainer.history_checks import check_histories
from trainer.model_checks import check_model
from trainer.model_config import AnyModel, SharedBottomConfig
from trainer.optimizer_config import OptimizerConfig
from trainer.table_checks import check_slices, check_tables


class CheckpointConfig(Section):
    """The recipe's section `checkpoint`; one is also written at every validation and at the end."""

    interval_steps: int | None = Field(None, ge=1)
    keep: int = Field(
        2, ge=1, description="newest checkpoints kept, beside the one chosen on valid"
    )


class RunConfig(Section):
    """The recipe's section `run`."""

    name: str = "run"
    uri: str | None = Field(None, description="the run's folder; runs/NAME-TIME by default")
    seed: int = Field(0, ge=0, lt=2**63)
    num_steps: int | None = Field(None, ge=1)
    num_epochs: int | None = Field(None, ge=1)
    log_interval_steps: int = Field(50, ge=1)
    eval_interval_steps: int | None = Field(
        None, ge=1, description="between validations; once an epoch by default"
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="the run ends after so many validations in a row without a better score",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="bfloat16: of the layers behind the tables, where PyTorch's autocast uses it; "
        "weights, tables and losses stay float32",
    )
    slices: list[str] | None = Field(
        None,
        description="features of kind id: an evaluation also measures known ids, and rare or new "
        "ones, by themselves; by default those with a vocabulary",
    )
    select: Literal["best", "last"] = Field(
        "best",
        description="the checkpoint that is evaluated in the end; best on valid, if there is one",
    )
    select_by: list[str] | None = Field(
        None,
        min_length=1,
        description="tasks that checkpoints are compared by on valid; all by default. May not "
        "change when a run goes on",
    )
    max_auc_gap: float | None = Field(
        None, gt=0, description="fail if a task's AUC is further than this below the best possible"
    )

    @field_validator("select_by")
    @classmethod
    def _as_a_set(cls, tasks: list[str] | None) -> list[str] | None:
        """A run goes on with the same tasks, in whatever order they are named."""
        return None if tasks is None else sorted(set(tasks))

    def length(self, steps_per_epoch: int) -> int:
        """Steps of the whole run."""
        return self.num_steps or (self.num_epochs or 0) * steps_per_epoch


class InitFromConfig(Section):
    """Values of another run that this one begins with; optimizer states begin anew."""

    run: str = Field(description="URI of its folder, or of one of its checkpoints")
    parameters: list[str] = Field(
        ["*"],
        min_length=1,
        description="patterns of what is taken: tables.NAME, and the towers' names in a checkpoint",
    )
    freeze: bool = Field(False, description="what is taken keeps its values")

    def takes(self, parameter: str) -> bool:
        """Whether what has this readable name is taken; never what a balancing method knows of the
        steps behind it.
        """
        if parameter.startswith(BALANCE_STATE):
            return False
        return any(fnmatchcase(parameter, pattern) for pattern in self.parameters)


class Recipe(Section):
    """A run, fully described."""

    data: DataConfig
    embeddings: EmbeddingsConfig = EmbeddingsConfig()
    model: AnyModel = SharedBottomConfig()
    balance: AnyBalance = StaticConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    prepare: PrepareConfig = PrepareConfig()
    init_from: InitFromConfig | None = None
    run: RunConfig

    @model_validator(mode="before")
    @classmethod
    def _choose(cls, tree: Any) -> Any:
        """A section that names no choice means the first one."""
        choices = {"model": ("architecture", "shared_bottom"), "balance": ("method", "static")}
        if not isinstance(tree, dict):
            return tree
        return tree | {
            section: {word: default, **tree[section]}
            for section, (word, default) in choices.items()
            if isinstance(tree.get(section), dict)
        }

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        if (self.run.num_steps is None) == (self.run.num_epochs is None):
            raise ValueError("run: give either num_steps or num_epochs")
        used = self.table_of_feature()
        tables = self.embeddings.tables
        check_tables(
            tables,
            data=self.data,
            table_of_feature=used,
            architecture=self.model.architecture,
            num_owners=len(self.table_owners()),
        )
        for task in self.run.select_by or ():
            if task not in self.data.tasks:
                known = did_you_mean(task, self.data.tasks)
                raise ValueError(f"run.select_by: no task {task}; {known}")
        check_slices(self.run.slices or (), data=self.data, tables=tables)
        check_histories(self.model, data=self.data, tables=tables, table_of_feature=used)
        check_model(self.model, data=self.data, id_widths=self.id_widths())
        check_balance(self.balance, data=self.data, model=self.model)
        return self

    def sliced_features(self) -> dict[str, IdFeature]:
        """Those of `run.slices`."""
        chosen = self.run.slices
        return {
            name: item
            for name, item in self.data.features.items()
            if isinstance(item, IdFeature)
            and (item.encoding == "vocabulary" if chosen is None else name in chosen)
        }

    def table_of_feature(self) -> dict[str, str]:
        """The embedding table of each `id` and `id_list` feature."""
        return {
            name: feature.table or name
            for name, feature in self.data.features.items()
            if isinstance(feature, IdFeature | IdListFeature)
        }

    def is_frozen(self, parameter: str) -> bool:
        """Whether a parameter, by its readable name, keeps the value that `init_from` gave it."""
        taken = self.init_from
        return taken is not None and taken.freeze and taken.takes(parameter)

    def table_owners(self) -> list[str | None]:
        """Whom the model's tables belong to: None for those that all tasks share, and tasks."""
        shared: list[str | None] = [None] if self.model.has_shared_tables else []
        return [*shared, *self.data.tasks] if self.model.has_own_tables else shared

    def tables(self) -> dict[str, TableConfig]:
        """All tables of the model, with those that each task has of its own."""
        return owned_tables(self.embeddings.tables, owners=self.table_owners())

    def unpooled_tables(self) -> dict[str, TableConfig]:
        """Tables whose ids are looked up one by one, because a list of theirs is encoded."""
        used = self.table_of_feature()
        unpooled = {used[name] for name in self.model.histories}
        return {name: item for name, item in self.embeddings.tables.items() if name in unpooled}

    def id_widths(self) -> dict[str, int]:
        """The width of the vectors of each `id` and `id_list` feature."""
        return {
            name: self.embeddings.tables[table].dim
            for name, table in self.table_of_feature().items()
        }

    def num_rows_of_feature(self) -> dict[str, int]:
        """Rows of the embedding table of each `id` and `id_list` feature."""
        return {
            name: self.embeddings.tables[table].num_rows
            for name, table in self.table_of_feature().items()
        }
