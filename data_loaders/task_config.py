"""What a recipe says about a task: a class per kind, chosen by its word."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from data_loaders.section import Finite, Fit, PositiveFinite, Section

# labels and class numbers are float32 in a batch, which is exact up to here
MAX_CLASSES = 2**24

# losses of regressions whose labels are amounts: 0 or more, on a scale of their own
AMOUNT_LOSSES = ("lognormal", "ziln")


class TaskConfig(Section):
    """What all kinds have."""

    kind: str
    column: str | None = Field(None, description="column of the log; the task's name by default")
    where: str | None = Field(
        None, description="column that is 1 where the label is observed, e.g. click for purchase"
    )
    weight: float = Field(1.0, ge=0, description="of this task's loss in the sum")
    example_weight: str | None = Field(
        None,
        description="column of numbers >= 0: how often each label counts in this task's loss and "
        "metrics; null counts once",
    )


class BinaryTask(TaskConfig):
    """A yes or no to predict; labels lie in [0, 1], null where not observed."""

    kind: Literal["binary"]
    positive_weight: PositiveFinite = Field(
        1.0, description="how often a yes counts in the loss; above 1 predictions lie too high"
    )
    focal_gamma: float = Field(
        0.0, ge=0, le=10, description="of the focal loss: how much less counts what is easy"
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="of each label, that the loss takes for a toss of a coin"
    )


class MulticlassTask(TaskConfig):
    """One of several classes to predict; labels are their numbers, null where not observed."""

    kind: Literal["multiclass"]
    num_classes: int = Field(ge=2, le=MAX_CLASSES, description="labels are 0 to num_classes - 1")
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="of each label, that the loss spreads evenly over the classes"
    )
    top_k: int = Field(
        5, ge=2, description="of the metric top_K_accuracy, which there is of more classes than K"
    )


class RegressionTask(TaskConfig):
    """A number to predict, as `(f(y) - mean) / std`; null where not observed."""

    kind: Literal["regression"]
    log: bool = Field(False, description="f is log(1 + y), for y >= 0, instead of the identity")
    mean: Finite | Fit = Field(0.0, description="of f(y), or fit: of the column, whatever `where`")
    std: PositiveFinite | Fit = 1.0
    loss: Literal["squared", "huber", "lognormal", "ziln"] = Field(
        "squared",
        description="squared: of the difference; huber: squared up to huber_delta, linear beyond; "
        "lognormal: y > 0 has a log-normal distribution; ziln: y is 0, or has one",
    )
    huber_delta: PositiveFinite = Field(1.0, description="of huber, in standard deviations")

    @model_validator(mode="after")
    def _check(self) -> RegressionTask:
        if self.huber_delta != 1.0 and self.loss != "huber":
            raise ValueError(f"huber_delta: needs loss: huber, found {self.loss}")
        if self.loss in AMOUNT_LOSSES and self.log:
            raise ValueError(f"log: is part of loss: {self.loss} already; leave it out")
        if self.loss in AMOUNT_LOSSES and self.mean != 0:
            raise ValueError(
                f"mean: expected 0 with loss: {self.loss}, which knows amounts and not differences "
                f"(std is its unit), found {self.mean}"
            )
        return self


class RankingTask(TaskConfig):
    """A score that is to put some examples before others; labels lie in [0, 1], the higher the
    better, null where not observed.
    """

    kind: Literal["ranking"]
    loss: Literal["pairwise", "sampled_softmax"] = Field(
        "pairwise",
        description="pairwise: of two examples of a step, the one with the higher label first; "
        "sampled_softmax: an example of the log before the items that data.negatives drew for it",
    )
    group: str | None = Field(
        None,
        description="of pairwise: an id feature, e.g. the user; pairs are of examples with the "
        "same id, by default of any",
    )

    @model_validator(mode="after")
    def _check(self) -> RankingTask:
        if self.group is not None and self.loss != "pairwise":
            raise ValueError(f"group: needs loss: pairwise, found {self.loss}")
        return self
