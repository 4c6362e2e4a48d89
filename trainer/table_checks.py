"""Whether a recipe's tables fit its features, and what an evaluation asks of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from data_loaders.config import DataConfig, IdFeature, IdListFeature
from data_loaders.errors import did_you_mean
from embeddings.config import TableConfig


def check_tables(
    tables: Mapping[str, TableConfig],
    *,
    data: DataConfig,
    table_of_feature: Mapping[str, str],
    architecture: str,
    num_owners: int,
) -> None:
    """Refuses tables and features without each other, and rows or poolings that cannot be.

    Args:
        tables: the section `embeddings.tables`.
        data: features and tasks.
        table_of_feature: of each `id` and `id_list` feature.
        architecture: the word of the section `model`.
        num_owners: how many times the model has each table.

    Raises:
        ValueError: beginning with the key.
    """
    if not table_of_feature:
        raise ValueError("data.features: expected at least one of kind id or id_list")
    for feature, table in table_of_feature.items():
        if table not in tables:
            raise ValueError(
                f"data.features.{feature}: no table {table} in embeddings.tables; "
                f"{did_you_mean(table, tables)}"
            )
    for table in tables:
        if table not in table_of_feature.values():
            raise ValueError(f"embeddings.tables.{table}: no feature uses this table; remove it")
    ids = {
        name: item
        for name, item in data.features.items()
        if isinstance(item, IdFeature | IdListFeature)
    }
    for name, item in ids.items():
        table = table_of_feature[name]
        _check_rows(name, item, table=table, num_rows=tables[table].num_rows)
        for other_name, other in ids.items():
            if table_of_feature[other_name] == table:
                _check_shared_table(item, other, names=(name, other_name), table=table)
    for name, config in tables.items():
        _check_pooling(
            name,
            config,
            has_id_weights=data.has_id_weights,
            architecture=architecture,
            num_owners=num_owners,
        )


def check_slices(
    slices: Sequence[str], *, data: DataConfig, tables: Mapping[str, TableConfig]
) -> None:
    """Refuses what is no single id, and what could not be evaluated on other ranks.

    Args:
        slices: the key `run.slices`.
        data: features and tasks.
        tables: the section `embeddings.tables`.

    Raises:
        ValueError: beginning with the key.
    """
    ids = {name: item for name, item in data.features.items() if isinstance(item, IdFeature)}
    cut = [name for name, item in tables.items() if item.sharding == "column_wise"]
    for name in slices:
        if name not in ids:
            raise ValueError(f"run.slices: no feature {name} of kind id; {did_you_mean(name, ids)}")
        if ids[name].encoding != "vocabulary" and cut:
            raise ValueError(
                f"run.slices: {name} has no vocabulary, so the state of the tables tells which "
                f"ids are known, and embeddings.tables.{cut[0]}.sharding: column_wise can be "
                "read on as many ranks only; use auto, or leave the feature out"
            )


def _check_rows(
    name: str, feature: IdFeature | IdListFeature, *, table: str, num_rows: int
) -> None:
    """Whether the table has the rows that the encoding needs."""
    if feature.encoding == "vocabulary" and num_rows < 3:
        raise ValueError(
            f"embeddings.tables.{table}.num_rows: expected 3 or more, because rows 0 and 1 are "
            f"for missing and rare ids (data.features.{name}.encoding: vocabulary), "
            f"found {num_rows}"
        )
    boundaries = feature.boundaries if isinstance(feature, IdFeature) else None
    if boundaries is not None and len(boundaries) > num_rows - 2:
        raise ValueError(
            f"data.features.{name}.boundaries: expected at most {num_rows - 2}, because the "
            f"table {table} has {num_rows} rows, found {len(boundaries)}"
        )


def _check_pooling(
    name: str, table: TableConfig, *, has_id_weights: bool, architecture: str, num_owners: int
) -> None:
    """TorchRec's lookup has one form for all tables, with weights or without; with them, what a
    mean is, and its gradient, depend on the sharding; where a feature is looked up in several
    tables, row-wise ones confuse their means (docs/log.md).
    """
    if has_id_weights and table.pooling == "mean":
        raise ValueError(
            f"embeddings.tables.{name}.pooling: mean is not possible in a recipe with "
            "weighted id lists; use sum, and weights_sum_to_one: true for its id lists"
        )
    if table.pooling == "mean" and table.sharding == "row_wise" and num_owners > 1:
        raise ValueError(
            f"embeddings.tables.{name}.sharding: row_wise is not possible with pooling "
            f"mean where tasks have tables of their own, as in model.architecture: "
            f"{architecture}; use auto"
        )


def _check_shared_table(
    first: IdFeature | IdListFeature,
    second: IdFeature | IdListFeature,
    *,
    names: tuple[str, str],
    table: str,
) -> None:
    """With a vocabulary a row is one id, for all features of a table."""
    one, two = (f"data.features.{name}" for name in names)
    if (first.encoding == "vocabulary") != (second.encoding == "vocabulary"):
        raise ValueError(
            f"{one}.encoding: {first.encoding}, and {two} has {second.encoding} in the same table "
            f"{table}: a row would be several ids; use one encoding, or another table"
        )
    uris = (first.vocabulary, second.vocabulary)
    if None not in uris and uris[0] != uris[1]:
        raise ValueError(
            f"{one}.vocabulary: {uris[0]}, and {two} has {uris[1]} in the same table {table}: "
            "a row would be two ids; use one vocabulary, or another table"
        )
