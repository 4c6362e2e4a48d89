"""What a recipe says about the embedding tables."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from data_loaders.config import Name, Section

Sharding = Literal["auto", "table_wise", "row_wise", "column_wise", "data_parallel"]


class TableConfig(Section):
    """One embedding table; row 0 serves missing ids."""

    num_rows: int = Field(ge=2)
    dim: int = Field(
        ge=4, multiple_of=4, description="width of a row; fbgemm wants a multiple of 4"
    )
    pooling: Literal["sum", "mean"] = "sum"
    sharding: Sharding = Field(
        "auto",
        description="how the table is cut over ranks; auto lets the planner choose between "
        "table_wise and row_wise, whose checkpoints restore onto any number of ranks",
    )


class EmbeddingsConfig(Section):
    """The recipe's section `embeddings`."""

    tables: dict[Name, TableConfig] = Field(default_factory=dict)
