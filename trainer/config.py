"""The recipe: one YAML file that says everything about a run except where it runs.

    data:        where the log lies, features, tasks        data_loaders.config
    embeddings:  tables                                     embeddings.config
    model:       towers
    optimizer:   of the tables, of the dense parts
    checkpoint:  how often, how many
    prepare:     how a raw log becomes the data set         data_loaders.prepare_config
    run:         folder, seed, length, reports

A key is overridden by `section.key=value`, the value being YAML.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Literal

import yaml
from pydantic import Field, PositiveInt, ValidationError, model_validator

from data_loaders.config import DataConfig, IdFeature, IdListFeature, Section
from data_loaders.errors import InputError, did_you_mean
from data_loaders.prepare_config import PrepareConfig
from data_loaders.storage import locate
from embeddings.config import EmbeddingsConfig
from trainer.recipe_errors import first_complaint, yaml_complaint


class RecipeError(InputError):
    """A recipe, or an override of it, is wrong; the message names the key."""


class ModelConfig(Section):
    """Towers of fully connected layers with ReLU."""

    shared_tower: list[PositiveInt] = Field(
        [64, 32], description="widths of the layers that all tasks share"
    )
    task_tower: list[PositiveInt] = Field([16], description="widths of each task's own layers")
    dropout: float = Field(0.0, ge=0, lt=1, description="after every layer, in training")


class TableOptimizerConfig(Section):
    """Row-wise Adagrad, fused into the backward of the lookup."""

    learning_rate: float = Field(0.05, gt=0)
    eps: float = Field(1e-8, gt=0)


class DenseOptimizerConfig(Section):
    """AdamW."""

    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)


class OptimizerConfig(Section):
    """The recipe's section `optimizer`."""

    tables: TableOptimizerConfig = TableOptimizerConfig()
    dense: DenseOptimizerConfig = DenseOptimizerConfig()


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
    select: Literal["best", "last"] = Field(
        "best",
        description="the checkpoint that is evaluated in the end; best on valid, if there is one",
    )
    max_auc_gap: float | None = Field(
        None, gt=0, description="fail if a task's AUC is further than this below the best possible"
    )


class Recipe(Section):
    """A run, fully described."""

    data: DataConfig
    embeddings: EmbeddingsConfig = EmbeddingsConfig()
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    prepare: PrepareConfig = PrepareConfig()
    run: RunConfig

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        if (self.run.num_steps is None) == (self.run.num_epochs is None):
            raise ValueError("run: give either num_steps or num_epochs")
        used = self.table_of_feature()
        if not used:
            raise ValueError("data.features: expected at least one of kind id or id_list")
        for feature, table in used.items():
            if table not in self.embeddings.tables:
                raise ValueError(
                    f"data.features.{feature}: no table {table} in embeddings.tables; "
                    f"{did_you_mean(table, self.embeddings.tables)}"
                )
        for table in self.embeddings.tables:
            if table not in used.values():
                raise ValueError(
                    f"embeddings.tables.{table}: no feature uses this table; remove it"
                )
        for name, item in self.data.features.items():
            if isinstance(item, IdFeature | IdListFeature):
                self._check_rows(name, item)
        self._check_pooling()
        return self

    def _check_pooling(self) -> None:
        """TorchRec's lookup has one form for all tables, with weights or without; with them, what a
        mean is, and its gradient, depend on the sharding (docs/log.md).
        """
        for name, table in self.embeddings.tables.items():
            if self.data.has_id_weights and table.pooling == "mean":
                raise ValueError(
                    f"embeddings.tables.{name}.pooling: mean is not possible in a recipe with "
                    "weighted id lists; use sum, and weights_sum_to_one: true for its id lists"
                )

    def _check_rows(self, name: str, feature: IdFeature | IdListFeature) -> None:
        """Whether the table has the rows that the encoding needs, each for one meaning."""
        table = feature.table or name
        num_rows = self.embeddings.tables[table].num_rows
        if feature.encoding == "vocabulary" and num_rows < 3:
            raise ValueError(
                f"embeddings.tables.{table}.num_rows: expected 3 or more, because rows 0 and 1 are "
                f"for missing and rare ids (data.features.{name}.encoding: vocabulary), "
                f"found {num_rows}"
            )
        boundaries = feature.boundaries if isinstance(feature, IdFeature) else None
        if boundaries is not None and len(boundaries) > num_rows - 2:
            raise ValueError(
                f"data.features.{name}.boundaries: expected at most {num_rows - 2}, because the "
                f"table {table} has {num_rows} rows, found {len(boundaries)}"
            )
        for other_name, other in self.data.features.items():
            if (
                isinstance(other, IdFeature | IdListFeature)
                and (other.table or other_name) == table
            ):
                _check_shared_table(feature, other, names=(name, other_name), table=table)

    def table_of_feature(self) -> dict[str, str]:
        """The embedding table of each `id` and `id_list` feature."""
        return {
            name: feature.table or name
            for name, feature in self.data.features.items()
            if isinstance(feature, IdFeature | IdListFeature)
        }

    def num_rows_of_feature(self) -> dict[str, int]:
        """Rows of the embedding table of each `id` and `id_list` feature."""
        return {
            name: self.embeddings.tables[table].num_rows
            for name, table in self.table_of_feature().items()
        }

    def fitted(self) -> Recipe:
        """The recipe with what it leaves to the training split filled in; at no cost where nothing
        is left.

        A run that has begun has vocabularies of its own, should the data set have lost them.

        Raises:
            InputError: the data set does not know it.
        """
        from data_loaders.fitting import fitted  # brings pandas, which takes a third of a second

        num_rows = self.num_rows_of_feature()
        try:
            data = fitted(self.data, num_rows=num_rows)
        except InputError:
            from trainer.vocabularies import begun_with

            data = begun_with(self).data
            if data is self.data:
                raise
            data = fitted(data, num_rows=num_rows)
        return self.model_copy(update={"data": data})


def _check_shared_table(
    first: IdFeature | IdListFeature,
    second: IdFeature | IdListFeature,
    *,
    names: tuple[str, str],
    table: str,
) -> None:
    """With a vocabulary a row is one id, for all features of a table."""
    one, two = (f"data.features.{name}" for name in names)
    if (first.encoding == "vocabulary") != (second.encoding == "vocabulary"):
        raise ValueError(
            f"{one}.encoding: {first.encoding}, and {two} has {second.encoding} in the same table "
            f"{table}: a row would be several ids; use one encoding, or another table"
        )
    uris = (first.vocabulary, second.vocabulary)
    if None not in uris and uris[0] != uris[1]:
        raise ValueError(
            f"{one}.vocabulary: {uris[0]}, and {two} has {uris[1]} in the same table {table}: "
            "a row would be two ids; use one vocabulary, or another table"
        )


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with Polytower."""
    folder = resources.files("trainer.recipes")
    return sorted(
        item.name[: -len(".yaml")] for item in folder.iterdir() if item.name.endswith(".yaml")
    )


def load_recipe(source: str, *, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe, applies overrides, and checks the result.

    Args:
        source: a shipped recipe's name, or the path or URI of a YAML file.
        overrides: `section.key=value`, the later ones winning.

    Raises:
        RecipeError: no such recipe, not YAML, an unknown key (with the nearest one), or a wrong
            value.
    """
    return build_recipe(_read(source), overrides=overrides, source=source)


def build_recipe(tree: Mapping[str, Any], *, overrides: Sequence[str], source: str) -> Recipe:
    """The checked recipe of a YAML tree.

    Raises:
        RecipeError: as `load_recipe`.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(tree))
    keys = [_override(changed, text) for text in overrides]
    length = {"run.num_steps", "run.num_epochs"}
    if len(length.intersection(keys)) == 1:  # the length that is asked for replaces the recipe's
        (other,) = length.difference(keys)
        changed["run"].pop(other.partition(".")[2], None)
    try:
        return Recipe.model_validate(changed)
    except ValidationError as error:
        explained = first_complaint(error, root=Recipe)
        is_override = any(explained.startswith(key) for key in keys)
        raise RecipeError(f"{'command line' if is_override else source}: {explained}") from error


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, width=120)


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader, which lets the later of two equal keys win, in silence; this one not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.YAMLError(f"{key.value} stands twice: line {key.start_mark.line + 1}")
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _read(source: str) -> dict[str, Any]:
    if source in shipped_recipes():
        text = resources.files("trainer.recipes").joinpath(f"{source}.yaml").read_text()
    else:
        location = locate(source)
        if not location.exists():
            raise RecipeError(
                f"{source}: no such file, and no recipe that ships with Polytower; "
                f"{did_you_mean(source, shipped_recipes())}"
            )
        text = location.read_text()
    try:
        tree = yaml.load(text, _UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise RecipeError(f"{source}: not YAML: {yaml_complaint(error)}") from error
    if not isinstance(tree, dict):
        raise RecipeError(
            f"{source}: expected sections (data, embeddings, ...), found {tree!r:.60}"
        )
    run = tree.setdefault("run", {})
    if isinstance(run, dict):
        run.setdefault("name", source.rpartition("/")[2].removesuffix(".yaml"))
    return tree


def _override(tree: dict[str, Any], text: str) -> str:
    """Applies `section.key=value`; returns the key."""
    key, mark, value = text.partition("=")
    if not mark or "." not in key:
        raise RecipeError(f"{text}: expected section.key=value, e.g. run.num_steps=100")
    *sections, last = key.split(".")
    node = tree
    for section in sections:
        child = node.setdefault(section, {})
        if not isinstance(child, dict):
            raise RecipeError(f"{text}: {section} is a value, not a section")
        node = child
    try:
        node[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"{text}: the value is not YAML; quote it") from error
    return key
