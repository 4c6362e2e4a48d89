"""The experiments of the accuracy table: `accuracy.yaml`, read and checked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from importlib import resources

import yaml
from pydantic import Field, ValidationError, model_validator

from data_loaders.config import Section
from data_loaders.errors import InputError, did_you_mean


class Variant(Section):
    """One row of a table: a way to train.

    Attributes:
        overrides: of the recipe, behind those of the experiment.
        note: for the table.
    """

    overrides: tuple[str, ...] = ()
    note: str = ""


class Gap(Section):
    """How far variants are below one of them, over the tasks that were learned.

    Attributes:
        baseline: that variant.
        stuck_from: the metric from which on a task has learned next to nothing.
    """

    baseline: str
    stuck_from: float


class Experiment(Section):
    """One table.

    Attributes:
        title: of the table.
        text: below it, in Markdown.
        recipe: that all variants train.
        prepare: the public data set that it is trained on; its raw files lie in `source`.
        source: folder below `--source`.
        generate: the scenario that it is trained on instead.
        examples: to generate.
        density: of the ids in them, as `polytower generate` takes it.
        correlation: of the scenario `correlated`.
        correlations: of its data sets: one experiment each, shown together.
        overrides: of the recipe, for all variants.
        table_dim: of all its tables, instead of the recipe's.
        metric: of each task.
        metrics: of a task that has no such metric.
        variants: by name.
        published: what others reached, by their name and task.
        goals: by task.
        gap: of `correlations`, what is shown beside the metric itself.
    """

    title: str
    text: str = ""
    recipe: str
    prepare: str | None = None
    source: str | None = None
    generate: str | None = None
    examples: int = 1_000_000
    density: int = 1
    correlation: float | None = None
    correlations: tuple[float, ...] = ()
    overrides: tuple[str, ...] = ()
    table_dim: int | None = None
    metric: str = "auc"
    metrics: dict[str, str] = Field(default_factory=dict)
    variants: dict[str, Variant] = Field(min_length=1)
    published: dict[str, dict[str, float]] = Field(default_factory=dict)
    goals: dict[str, float] = Field(default_factory=dict)
    gap: Gap | None = None

    @model_validator(mode="after")
    def _check(self) -> Experiment:
        if (self.prepare is None) == (self.generate is None):
            raise ValueError("give either prepare or generate")
        return self

    @property
    def data_name(self) -> str:
        """Of the folder that its data set lies in; experiments may share one."""
        if self.generate is None:
            return str(self.prepare)
        ends = "" if self.correlation is None else f"-{self.correlation:g}"
        dense = "" if self.density == 1 else f"-density-{self.density}"
        return f"{self.generate}-{self.examples}{dense}{ends}"

    def members(self, name: str) -> dict[str, Experiment]:
        """What is run and kept under names of its own: one experiment for each correlation."""
        if not self.correlations:
            return {name: self}
        return {
            f"{name}-{value:g}": self.model_copy(update={"correlation": value, "correlations": ()})
            for value in self.correlations
        }

    def metric_of(self, task: str) -> str:
        return self.metrics.get(task, self.metric)


def read_experiments(names: Sequence[str] = ()) -> dict[str, Experiment]:
    """The experiments of `accuracy.yaml`, or those that are named.

    Raises:
        InputError: there is none of that name.
    """
    text = resources.files("benchmarks").joinpath("accuracy.yaml").read_text()
    try:
        found = {
            name: Experiment.model_validate(tree) for name, tree in yaml.safe_load(text).items()
        }
    except ValidationError as error:
        raise InputError(f"accuracy.yaml: {error.errors()[0]}") from error
    for name in names:
        if name not in found:
            raise InputError(f"{name}: no such experiment; {did_you_mean(name, found)}")
    return {name: item for name, item in found.items() if not names or name in names}


def with_variants(experiment: Experiment, names: Collection[str]) -> Experiment:
    """Only those rows of the table.

    Raises:
        InputError: there is none of that name.
    """
    if not names:
        return experiment
    for name in names:
        if name not in experiment.variants:
            known = did_you_mean(name, experiment.variants)
            raise InputError(f"{name}: no such variant of {experiment.title!r}; {known}")
    chosen = {name: item for name, item in experiment.variants.items() if name in names}
    return experiment.model_copy(update={"variants": chosen})
