"""What a recipe says about the log: where it lies, its features and its tasks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A part of a recipe: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# a key that overrides can address (no dot) and TorchRec leaves alone (no @)
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]


class IdFeature(Section):
    """One id per example, looked up in an embedding table; row 0 serves missing ids."""

    kind: Literal["id"]
    column: str | None = Field(None, description="column of the log; the feature's name by default")
    table: str | None = Field(None, description="embedding table; the feature's name by default")
    encoding: Literal["hash", "direct"] = Field(
        "hash",
        description="hash: any integer or string, mixed into rows 1 to num_rows - 1; "
        "direct: integers from 0 to num_rows - 1 that are the rows",
    )


class IdListFeature(Section):
    """A list of ids per example, looked up and pooled; an empty or missing list pools to zeros."""

    kind: Literal["id_list"]
    column: str | None = None
    table: str | None = None
    encoding: Literal["hash", "direct"] = "hash"
    max_length: int = Field(50, ge=1, description="the last max_length ids of a list are kept")


class DenseFeature(Section):
    """One number per example, used as `(f(x) - mean) / std`; a missing one counts as the mean."""

    kind: Literal["dense"]
    column: str | None = None
    log: bool = Field(False, description="f is log(1 + x), for x >= 0, instead of the identity")
    mean: float = 0.0
    std: float = Field(1.0, gt=0)


class BinaryTask(Section):
    """A yes or no to predict; labels lie in [0, 1], null where not observed."""

    kind: Literal["binary"]
    column: str | None = None
    where: str | None = Field(
        None, description="column that is 1 where the label is observed, e.g. click for purchase"
    )
    weight: float = Field(1.0, ge=0, description="of this task's loss in the sum")


class RegressionTask(Section):
    """A number to predict, as `(f(y) - mean) / std`; null where not observed."""

    kind: Literal["regression"]
    column: str | None = None
    where: str | None = None
    weight: float = Field(1.0, ge=0)
    log: bool = Field(False, description="f is log(1 + y), for y >= 0, instead of the identity")
    mean: float = 0.0
    std: float = Field(1.0, gt=0)


Feature = Annotated[IdFeature | IdListFeature | DenseFeature, Field(discriminator="kind")]
Task = Annotated[BinaryTask | RegressionTask, Field(discriminator="kind")]


class DataConfig(Section):
    """The recipe's section `data`."""

    root: str | None = Field(
        None, description="URI of the data set: train/, valid/, test/ below it"
    )
    batch_size: int = Field(2048, ge=1, description="examples per step over all ranks together")
    num_streams: int = Field(
        64, ge=1, description="virtual streams of the log; the number of ranks must divide it"
    )
    prefetch_bytes: int = Field(
        128 * 2**20, ge=1, description="of batches read ahead of training, per rank"
    )
    features: dict[Name, Feature] = Field(min_length=1)
    tasks: dict[Name, Task] = Field(min_length=1)
