"""What a recipe says about one's own raw log: how `polytower prepare` cleans and splits it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from data_loaders.config import Finite, Section

# seconds since 1970, from a number or an ISO date and time
WrittenType = Literal["text", "integer", "number", "time"]


class SplitConfig(Section):
    """Which rows are held out; without `time` and `by` each row is drawn by itself."""

    time: str | None = Field(
        None,
        description="column of times (numbers, or ISO dates and times): the latest rows are test, "
        "those before them valid",
    )
    by: str | None = Field(
        None, description="column whose equal values go to the same split, e.g. user_id"
    )
    valid: float = Field(0.1, ge=0, lt=1, description="fraction of the rows")
    test: float = Field(0.1, ge=0, lt=1, description="fraction of the rows")

    @model_validator(mode="after")
    def _check(self) -> SplitConfig:
        if self.time is not None and self.by is not None:
            raise ValueError("time: give either time or by")
        if self.valid + self.test >= 1:
            raise ValueError(
                f"valid: with test {self.valid + self.test:g} of the rows "
                "are held out; expected less than 1, the rest is train"
            )
        return self


class PrepareConfig(Section):
    """The recipe's section `prepare`."""

    split: SplitConfig = SplitConfig()
    unique: list[str] | None = Field(
        None,
        description="columns: of rows equal in all of them the first stays; by default all columns "
        "of the raw log; [] keeps every row",
    )
    ranges: dict[str, tuple[Finite | None, Finite | None]] = Field(
        default_factory=dict,
        description="COLUMN: [low, high], the possible values; null leaves an end open",
    )
    integers: list[str] = Field(
        default_factory=list,
        description="columns of ids that are written as integers; others become text",
    )
    keep: dict[str, WrittenType] = Field(
        default_factory=dict,
        description="COLUMN: text, integer, number or time (seconds since 1970), for columns "
        "that the recipe does not read and the data set shall have",
    )
    missing: list[str] = Field(
        default_factory=lambda: [""], description="texts that stand for a missing value"
    )
    list_separator: str = Field(
        "|", min_length=1, description="between the items of a list in a CSV cell like 3|5|9"
    )
    rows_per_row_group: int | None = Field(
        None, ge=1, description="1,024 to 65,536 by the size of the log"
    )
    rows_per_file: int | None = Field(
        None, ge=1, description="about a million or 512 MB, by default"
    )

    @model_validator(mode="after")
    def _check(self) -> PrepareConfig:
        for column, (low, high) in self.ranges.items():
            if low is None and high is None:
                raise ValueError(f"ranges.{column}: expected [low, high], found no end at all")
            if low is not None and high is not None and low > high:
                raise ValueError(
                    f"ranges.{column}: expected [low, high], found [{low:g}, {high:g}]"
                )
        return self
