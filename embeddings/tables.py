"""Embedding tables: their declaration for TorchRec, and their first values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torchrec.modules.embedding_configs import EmbeddingBagConfig, EmbeddingConfig, PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection

from embeddings.config import TableConfig, owned_name

POOLING = {"sum": PoolingType.SUM, "mean": PoolingType.MEAN}

# Rows whose first values one seed draws; small enough that a shard draws little that it does not
# keep.
_ROWS_PER_SEED = 65536


def module_name(table: str) -> str:
    """The name that TorchRec knows a table by.

    It makes attributes of them: a table called `items` would collide with `ModuleDict.items`.
    """
    return f"table_{table}"


def pooled_names(
    keys: Sequence[str], *, table_of_feature: Mapping[str, str], owners: Sequence[str | None]
) -> list[str]:
    """What TorchRec calls the pooled vectors of the features, those of the first owner first."""
    if len(owners) == 1:
        return list(keys)
    return [
        f"{key}@{module_name(owned_name(table_of_feature[key], owner=owner))}"
        for owner in owners
        for key in keys
    ]


def build_tables(
    tables: Mapping[str, TableConfig],
    *,
    keys: Sequence[str],
    table_of_feature: Mapping[str, str],
    owners: Sequence[str | None] = (None,),
    is_weighted: bool = False,
) -> EmbeddingBagCollection:
    """Declares the tables on the meta device: no memory is taken before they are sharded.

    Args:
        tables: by name.
        keys: id features, in the order in which their pooled vectors are wanted.
        table_of_feature: the table of each of them.
        owners: tasks that have these tables of their own, each feature looked up in the tables of
            all; None stands for tables that all tasks share.
        is_weighted: each id comes with a weight that its vector is multiplied by; all tables pool
            by sum.
    """
    return EmbeddingBagCollection(
        device=torch.device("meta"),
        is_weighted=is_weighted,
        tables=[
            EmbeddingBagConfig(
                name=module_name(owned_name(name, owner=owner)),
                num_embeddings=table.num_rows,
                embedding_dim=table.dim,
                pooling=POOLING[table.pooling],
                feature_names=[key for key in keys if table_of_feature[key] == name],
                init_fn=nn.init.zeros_,  # initialise_tables draws the values, shard by shard
            )
            for owner in owners
            for name, table in tables.items()
        ],
    )


def build_sequences(
    tables: Mapping[str, TableConfig],
    *,
    keys: Sequence[str],
    table_of_feature: Mapping[str, str],
    owners: Sequence[str | None] = (None,),
) -> list[EmbeddingCollection]:
    """Declares tables whose ids are looked up one by one; arguments as of `build_tables`.

    One collection for each width, because TorchRec's has one width.
    """
    return [
        EmbeddingCollection(
            device=torch.device("meta"),
            tables=[
                EmbeddingConfig(
                    name=module_name(owned_name(name, owner=owner)),
                    num_embeddings=table.num_rows,
                    embedding_dim=table.dim,
                    feature_names=[key for key in keys if table_of_feature[key] == name],
                    init_fn=nn.init.zeros_,
                )
                for owner in owners
                for name, table in tables.items()
                if table.dim == dim
            ],
        )
        for dim in sorted({table.dim for table in tables.values()})
    ]


@torch.no_grad()
def initialise_tables(
    parameters: Mapping[str, Tensor | ShardedTensor], *, seed: int, std: float
) -> None:
    """Draws the tables' first values from N(0, std): the same values however the tables are cut,
    and whether their ids are pooled or looked up one by one.

    Args:
        parameters: `state_dict` entries of the tables, `....NAME.weight`, sharded or whole.
        seed: of the run.
        std: standard deviation.
    """
    by_table = {".".join(key.split(".")[-2:]): item for key, item in parameters.items()}
    for index, (_, parameter) in enumerate(sorted(by_table.items())):
        table_size = (parameter.size(0), parameter.size(1))
        blocks = [(parameter, [0, 0])]
        if isinstance(parameter, ShardedTensor):
            blocks = [
                (shard.tensor, shard.metadata.shard_offsets) for shard in parameter.local_shards()
            ]
        for block, offsets in blocks:
            _fill(block, offsets=offsets, table_size=table_size, seed=(seed, index), std=std)


def _fill(
    block: Tensor,
    *,
    offsets: Sequence[int],
    table_size: tuple[int, int],
    seed: tuple[int, int],
    std: float,
) -> None:
    """Fills rows and columns from `offsets` of a table; each run of rows has a seed of its own.

    A run is always drawn whole: the first values of `torch.randn` depend on how many it draws.
    """
    (num_rows, dim), (first_row, first_column) = table_size, offsets
    end_row, end_column = first_row + block.size(0), first_column + block.size(1)
    generator = torch.Generator(device=block.device)
    for chunk in range(first_row // _ROWS_PER_SEED, -(-end_row // _ROWS_PER_SEED)):
        generator.manual_seed(((seed[0] * 1_000_003 + seed[1]) * 1_000_003 + chunk) % 2**63)
        base = chunk * _ROWS_PER_SEED
        num_drawn = min(_ROWS_PER_SEED, num_rows - base)
        values = torch.randn(num_drawn, dim, generator=generator, device=block.device) * std
        start, stop = max(first_row, base), min(end_row, base + num_drawn)
        kept = values[start - base : stop - base, first_column:end_column]
        block[start - first_row : stop - first_row] = kept
