"""What a recipe says about the log: where it lies, its features and its tasks."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

from pydantic import Field, model_validator

from data_loaders.errors import did_you_mean
from data_loaders.section import Finite, Fit, Name, PositiveFinite, Section
from data_loaders.task_config import BinaryTask, MulticlassTask, RankingTask, RegressionTask


class IdFeature(Section):
    """One id per example, looked up in an embedding table; row 0 serves missing ids."""

    kind: Literal["id"]
    column: str | None = Field(None, description="column of the log; the feature's name by default")
    table: str | None = Field(None, description="embedding table; the feature's name by default")
    encoding: Literal["hash", "direct", "vocabulary", "quantiles"] = Field(
        "hash",
        description="hash: any integer or string, mixed into rows 1 to num_rows - 1; "
        "direct: integers from 0 to num_rows - 1 that are the rows; "
        "vocabulary: the most frequent ids of the training split in rows 2 to num_rows - 1, all "
        "others in row 1; quantiles: a number, cut into num_rows - 1 ranges of about equally many "
        "training examples, in rows 1 to num_rows - 1",
    )
    fill: int | Finite | str | None = Field(
        None,
        description="the id, or for quantiles the number, that stands for a missing one; "
        "row 0 by default",
    )
    min_count: int = Field(
        1, ge=1, description="rarer ids of the vocabulary share row 1 with unknown ones"
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="of ids, in training, that row 1 of the vocabulary stands in for; teaches it",
    )
    vocabulary: str | None = Field(
        None,
        description="URI of a Parquet file with the columns id and count, the most frequent "
        "first; by default that of the data set for the table's first feature of this encoding",
    )
    vocabulary_digest: str | None = Field(
        None, description="of that file; filled in when a run begins"
    )
    id_type: Literal["integer", "string"] | None = Field(
        None,
        description="of hash: what the column holds, for 7 and '7' have two rows; of the training "
        "split by default, and asked of every file",
    )
    boundaries: list[Finite] | None = Field(
        None,
        description="of quantiles, ascending; each belongs to the range above it; fitted on "
        "the training split by default",
    )

    @model_validator(mode="after")
    def _check(self) -> IdFeature:
        _check_encoding(self)
        if self.boundaries is not None:
            if self.encoding != "quantiles":
                raise ValueError(f"boundaries: needs encoding: quantiles, found {self.encoding}")
            if any(low >= high for low, high in itertools.pairwise(self.boundaries)):
                raise ValueError("boundaries: expected rising numbers")
        if self.fill is not None and isinstance(self.fill, str) and self.encoding == "quantiles":
            raise ValueError(f"fill: expected a number (encoding: quantiles), found {self.fill!r}")
        if not isinstance(self.fill, int | None) and self.encoding == "direct":
            raise ValueError(f"fill: expected an integer (encoding: direct), found {self.fill!r}")
        return self


class IdListFeature(Section):
    """A list of ids per example, looked up and pooled, or encoded; an empty or missing list gives
    zeros.
    """

    kind: Literal["id_list"]
    column: str | None = None
    table: str | None = None
    encoding: Literal["hash", "direct", "vocabulary"] = "hash"
    max_length: int = Field(50, ge=1, description="the last max_length ids of a list are kept")
    weights: str | None = Field(
        None,
        description="column of lists of numbers, as long as the lists of ids: an id's vector "
        "is multiplied by its weight; a missing weight is 1",
    )
    weights_sum_to_one: bool = Field(
        False,
        description="the weights of each list are divided by their sum, so that pooling sum is a "
        "weighted mean; without `weights` the mean",
    )
    min_count: int = Field(1, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    vocabulary: str | None = None
    vocabulary_digest: str | None = None
    id_type: Literal["integer", "string"] | None = None

    @model_validator(mode="after")
    def _check(self) -> IdListFeature:
        _check_encoding(self)
        return self

    @property
    def is_weighted(self) -> bool:
        """Whether its ids come with weights."""
        return self.weights is not None or self.weights_sum_to_one


class DenseFeature(Section):
    """One number per example, used as `(f(x) - mean) / std`; a missing one counts as the mean."""

    kind: Literal["dense"]
    column: str | None = None
    log: bool = Field(False, description="f is log(1 + x), for x >= 0, instead of the identity")
    clip: tuple[Finite, Finite] | None = Field(
        None, description="[low, high]: x is brought into this range first"
    )
    mean: Finite | Fit = Field(
        0.0, description="of f(x); fit: that of the training split, as dataset.json knows it"
    )
    std: PositiveFinite | Fit = Field(1.0, description="of f(x), or fit")
    fill: Finite | None = Field(
        None, description="x where it is missing, before clip and f; the mean by default"
    )

    @model_validator(mode="after")
    def _check(self) -> DenseFeature:
        if self.clip is not None and self.clip[0] >= self.clip[1]:
            raise ValueError(f"clip: expected [low, high] with low < high, found {list(self.clip)}")
        low = self.clip[0] if self.clip is not None else self.fill
        if self.log and self.fill is not None and low is not None and max(self.fill, low) < 0:
            raise ValueError(f"fill: {self.fill:g} has no logarithm (log: true); expected >= 0")
        return self


class DenseVectorFeature(Section):
    """A vector of numbers per example, used as it is, e.g. the embedding of an image or a text; a
    missing one counts as zeros.
    """

    kind: Literal["dense_vector"]
    column: str | None = None
    length: int = Field(ge=1, description="numbers of each vector")


AnyFeature = IdFeature | IdListFeature | DenseFeature | DenseVectorFeature
Feature = Annotated[AnyFeature, Field(discriminator="kind")]
AnyTask = BinaryTask | MulticlassTask | RegressionTask | RankingTask
Task = Annotated[AnyTask, Field(discriminator="kind")]


class NegativesConfig(Section):
    """Rows with drawn items behind each row of a log that holds only positives."""

    catalogue: str = Field(
        description="a Parquet file with one row per item, whose columns are columns of the log: "
        "a URI, or a path below data.root"
    )
    per_example: int = Field(4, ge=1, description="items that are drawn for each row of the log")
    sampling: Literal["uniform", "popularity"] = Field(
        "uniform",
        description="uniform: each item as often as any other; popularity: in proportion to "
        "count ** power, where count is a column of the catalogue",
    )
    power: PositiveFinite = Field(0.75, description="of popularity; below 1 it flattens")
    item: str | None = Field(
        None,
        description="id feature that tells the items apart; asked for by loss: sampled_softmax "
        "where sampling is popularity",
    )


class DataConfig(Section):
    """The recipe's section `data`."""

    root: str | None = Field(
        None, description="URI of the data set: train/, valid/, test/ below it"
    )
    batch_size: int = Field(2048, ge=1, description="examples per step over all ranks together")
    num_streams: int = Field(
        64, ge=1, description="virtual streams of the log; the number of ranks must divide it"
    )
    shuffle_rows: int = Field(
        2**19,
        ge=1,
        description="rows of the log that are shuffled together; each stream holds its share of "
        "them, and at least one row group, or 65,536 rows of a larger one",
    )
    on_error: Literal["fail", "skip"] = Field(
        "fail",
        description="skip: leave out what cannot be read or used, count it, and tell what it was",
    )
    prefetch_bytes: int = Field(
        128 * 2**20, ge=1, description="of batches read ahead of training, per rank"
    )
    negatives: NegativesConfig | None = None
    features: dict[Name, Feature] = Field(min_length=1)
    tasks: dict[Name, Task] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> DataConfig:
        for name, task in self.tasks.items():
            if isinstance(task, RankingTask):
                self._check_ranking(task, key=f"tasks.{name}")
        if self.negatives is not None and self.negatives.item is not None:
            self._check_id_feature(self.negatives.item, key="negatives.item")
        return self

    def _check_ranking(self, task: RankingTask, *, key: str) -> None:
        if task.group is not None:
            self._check_id_feature(task.group, key=f"{key}.group")
        if task.loss != "sampled_softmax":
            return
        if self.negatives is None:
            raise ValueError(f"{key}.loss: sampled_softmax needs drawn items; add data.negatives")
        if self.negatives.sampling == "popularity" and self.negatives.item is None:
            raise ValueError(
                f"{key}.loss: sampled_softmax takes into account how often popular items are drawn "
                "(sampling: popularity), and needs data.negatives.item, the id feature that tells "
                "them apart"
            )

    def _check_id_feature(self, name: str, *, key: str) -> None:
        known = [
            name
            for name, feature in self.features.items()
            if isinstance(feature, IdFeature) and feature.encoding != "quantiles"
        ]
        if name not in known:
            raise ValueError(
                f"{key}: expected a feature of kind id, not of quantiles, found {name}; "
                + did_you_mean(name, known)
            )

    @property
    def rows_per_example(self) -> int:
        """Rows of a batch for each row of the log: itself, and its negatives."""
        return 1 if self.negatives is None else 1 + self.negatives.per_example

    @property
    def dense_widths(self) -> dict[str, int]:
        """How many numbers of each example go to the model as they are, by feature."""
        return {
            name: feature.length if isinstance(feature, DenseVectorFeature) else 1
            for name, feature in self.features.items()
            if isinstance(feature, DenseFeature | DenseVectorFeature)
        }

    @property
    def num_dense_inputs(self) -> int:
        """Numbers of each example that go to the model as they are."""
        return sum(self.dense_widths.values())

    @property
    def has_id_weights(self) -> bool:
        """Whether some id list comes with weights."""
        return any(
            isinstance(feature, IdListFeature) and feature.is_weighted
            for feature in self.features.values()
        )


def fitted_number(value: float | Fit) -> float:
    """A mean or a standard deviation of a recipe that `data_loaders.fitting.fitted` resolved."""
    assert value != "fit", "data_loaders.fitting.fitted puts numbers in its place"
    return float(value)


def _check_encoding(feature: IdFeature | IdListFeature) -> None:
    if feature.id_type is not None and feature.encoding != "hash":
        raise ValueError(f"id_type: needs encoding: hash, found {feature.encoding}")
    if feature.encoding == "vocabulary":
        if feature.vocabulary_digest is not None and feature.vocabulary is None:
            raise ValueError("vocabulary_digest: of which vocabulary? give its URI too")
        return
    only = {
        "min_count": feature.min_count != 1,
        "dropout": feature.dropout != 0,
        "vocabulary": feature.vocabulary is not None,
        "vocabulary_digest": feature.vocabulary_digest is not None,
    }
    for key, is_given in only.items():
        if is_given:
            raise ValueError(f"{key}: needs encoding: vocabulary, found {feature.encoding}")
