"""Whether a recipe's `model.histories` fits its features and tables."""

from __future__ import annotations

from collections.abc import Mapping

from data_loaders.config import DataConfig, IdFeature, IdListFeature
from data_loaders.errors import did_you_mean
from embeddings.config import TableConfig
from trainer.history_config import TargetAttentionConfig, TransformerConfig
from trainer.model_config import ModelConfig


def check_histories(
    model: ModelConfig,
    *,
    data: DataConfig,
    tables: Mapping[str, TableConfig],
    table_of_feature: Mapping[str, str],
) -> None:
    """Refuses what is no list, or cannot be encoded.

    Args:
        model: the section.
        data: features.
        tables: by name.
        table_of_feature: of each id feature.

    Raises:
        ValueError: beginning with the key.
    """
    widths = {name: tables[table].dim for name, table in table_of_feature.items()}
    for name, config in model.histories.items():
        key = f"model.histories.{name}"
        _check_list(name, data=data)
        if isinstance(config, TargetAttentionConfig):
            _check_target(config.target, data=data, key=f"{key}.target")
            if widths[config.target] != widths[name]:
                raise ValueError(
                    f"{key}.target: expected vectors as wide as those of {name}, {widths[name]}, "
                    f"found {widths[config.target]} for {config.target}; give their tables one dim"
                )
        if isinstance(config, TransformerConfig) and widths[name] % config.num_heads:
            raise ValueError(
                f"{key}.num_heads: expected a divisor of {widths[name]}, the dim of table "
                f"{table_of_feature[name]}, found {config.num_heads}"
            )
    for table in dict.fromkeys(table_of_feature[name] for name in model.histories):
        _check_table(table, tables[table], model=model, data=data)


def _check_list(name: str, *, data: DataConfig) -> None:
    lists = [item for item, feature in data.features.items() if isinstance(feature, IdListFeature)]
    if name not in data.features:
        raise ValueError(f"model.histories: no feature {name}; {did_you_mean(name, lists)}")
    feature = data.features[name]
    if not isinstance(feature, IdListFeature):
        raise ValueError(
            f"model.histories.{name}: expected a feature of kind id_list, found {feature.kind}; "
            + did_you_mean(name, lists)
        )
    if feature.is_weighted:
        found = "weights_sum_to_one" if feature.weights is None else "weights"
        raise ValueError(
            f"model.histories.{name}: expected a list without weights, because encoders weigh ids "
            f"themselves, found data.features.{name}.{found}; remove one of them"
        )


def _check_target(target: str, *, data: DataConfig, key: str) -> None:
    known = [name for name, feature in data.features.items() if isinstance(feature, IdFeature)]
    if target not in known:
        raise ValueError(
            f"{key}: expected a feature of kind id, found {target}; {did_you_mean(target, known)}"
        )


def _check_table(name: str, table: TableConfig, *, model: ModelConfig, data: DataConfig) -> None:
    """The ids of a table that has an encoded list are looked up one by one."""
    if table.sharding == "data_parallel":
        raise ValueError(
            f"embeddings.tables.{name}.sharding: data_parallel is not possible for the lists of "
            "model.histories; use auto"
        )
    pooled = [
        item
        for item, feature in data.features.items()
        if isinstance(feature, IdListFeature)
        and (feature.table or item) == name
        and item not in model.histories
    ]
    if table.pooling != "sum" and not pooled:
        raise ValueError(
            f"embeddings.tables.{name}.pooling: {table.pooling} has nothing to pool, because all "
            "lists of this table are in model.histories; use sum, the default"
        )
