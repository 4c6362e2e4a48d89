"""The sharding plan as people read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torchrec.distributed.types import ShardingPlan

from embeddings.config import TableConfig
from embeddings.tables import module_name

_FLOAT_BYTES = 4


@dataclass(frozen=True)
class TablePlacement:
    """Where one table lies.

    Attributes:
        table: its name.
        num_rows: of the whole table.
        dim: width of a row.
        sharding: how it is cut.
        ranks: that hold a shard of it.
        rank_bytes: weights and optimizer state on each of those ranks; the largest.
    """

    table: str
    num_rows: int
    dim: int
    sharding: str
    ranks: tuple[int, ...]
    rank_bytes: int


def placements(plan: ShardingPlan, *, tables: Mapping[str, TableConfig]) -> list[TablePlacement]:
    """Every table of the plan, the largest first."""
    names = {module_name(name): name for name in tables}
    found = []
    for parameters in plan.plan.values():
        for module, sharding in parameters.items():
            name = names[module]
            table = tables[name]
            shards = sharding.sharding_spec.shards if sharding.sharding_spec else []
            rows_by_columns = [tuple(shard.shard_sizes) for shard in shards] or [
                (table.num_rows, table.dim)
            ]
            # row-wise Adagrad keeps one number per row beside the row
            sizes = [rows * (columns + 1) * _FLOAT_BYTES for rows, columns in rows_by_columns]
            found.append(
                TablePlacement(
                    table=name,
                    num_rows=table.num_rows,
                    dim=table.dim,
                    sharding=sharding.sharding_type,
                    ranks=tuple(sharding.ranks or ()),
                    rank_bytes=max(sizes),
                )
            )
    return sorted(found, key=lambda item: (-item.num_rows * item.dim, item.table))
