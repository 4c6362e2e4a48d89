"""What a recipe says about the embedding tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def owned_name(table: str, *, owner: str | None) -> str:
    """What a table is called that belongs to one task, e.g. `item:click`; no recipe can name a
    table so.

    Args:
        table: of the recipe.
        owner: the task; None for a table that all tasks share.
    """
    return table if owner is None else f"{table}:{owner}"


def owned_tables(
    tables: Mapping[str, TableConfig], *, owners: Sequence[str | None]
) -> dict[str, TableConfig]:
    """Each table once for each of its owners.

    Where a feature is looked up for several, TorchRec cannot pool row-wise tables by mean
    (docs/log.md), so `auto` means table-wise for them.
    """
    return {
        owned_name(name, owner=owner): table.model_copy(update={"sharding": "table_wise"})
        if len(owners) > 1 and table.pooling == "mean" and table.sharding == "auto"
        else table
        for owner in owners
        for name, table in tables.items()
    }
