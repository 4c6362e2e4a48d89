"""What the training split's columns hold: fitted once, when a data set is written.

`dataset.json` keeps it under `columns`; recipes take means, quantiles and vocabularies from there.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from data_loaders.config import Section


class NumberStatistics(Section):
    """Of a column of numbers, over the values that are neither null nor NaN."""

    kind: Literal["number"] = "number"
    count: int
    missing: int
    min: float
    max: float
    mean: float
    std: float = Field(description="population standard deviation")
    log_mean: float | None = Field(None, description="of log(1 + x); null if a value is negative")
    log_std: float | None = None
    quantiles: list[float] = Field(description="101 of them: 0%, 1%, ..., 100%")


class IdStatistics(Section):
    """Of a column of ids (integers or strings) or of lists of ids."""

    kind: Literal["id"] = "id"
    count: int = Field(description="ids, over all lists")
    missing: int = Field(description="rows that are null")
    distinct: int
    vocabulary: str = Field(
        description="Parquet file below the data set's root with the columns id and count, "
        "by falling count, then by rising id"
    )


ColumnStatistics = Annotated[NumberStatistics | IdStatistics, Field(discriminator="kind")]
