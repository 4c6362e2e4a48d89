"""Whether the columns of a file fit the recipe."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from data_loaders.config import (
    AnyFeature,
    DataConfig,
    DenseFeature,
    DenseVectorFeature,
    IdFeature,
    IdListFeature,
)
from data_loaders.errors import SchemaError, did_you_mean
from data_loaders.storage import Location


def check_schema(schema: pa.Schema, *, file: Location, config: DataConfig) -> None:
    """Whether a file has every column of a recipe's features and tasks.

    Raises:
        SchemaError: it does not, or has one with a type that the recipe cannot use.
    """
    for name, feature in config.features.items():
        expected, fits = _expected_feature_type(feature)
        _check_column(schema, file, feature.column or name, f"feature {name}", expected, fits)
        if isinstance(feature, IdListFeature) and feature.weights is not None:
            used_by = f"weights of feature {name}"
            _check_column(
                schema, file, feature.weights, used_by, "a list of numbers", _is_number_list
            )
    for name, task in config.tasks.items():
        fits = _is_number
        _check_column(schema, file, task.column or name, f"task {name}", "a number or a bool", fits)
        if task.where is not None:
            used_by = f"where of task {name}"
            _check_column(schema, file, task.where, used_by, "a number or a bool", fits)
        if task.example_weight is not None:
            used_by = f"example_weight of task {name}"
            _check_column(schema, file, task.example_weight, used_by, "a number or a bool", fits)


def _check_column(
    schema: pa.Schema, file: Location, column: str, used_by: str, expected: str, fits: Any
) -> None:
    if column not in schema.names:
        raise SchemaError(
            f"{file.uri}: no column {column} ({used_by}); expected {expected}; "
            f"{did_you_mean(column, schema.names)}"
        )
    if schema.names.count(column) > 1:
        raise SchemaError(f"{file.uri}: has the column {column} ({used_by}) more than once")
    found = schema.field(column).type
    if not fits(found):
        raise SchemaError(
            f"{file.uri}: column {column} ({used_by}): expected {expected}, found {found}; "
            "correct the recipe's kind or encoding, or write the column anew"
        )


def _expected_feature_type(feature: AnyFeature) -> tuple[str, Any]:
    if isinstance(feature, DenseVectorFeature):
        length = feature.length
        return (
            f"a list of {length} numbers",
            lambda found: (
                _is_number_list(found)
                or (
                    pa.types.is_fixed_size_list(found)
                    and found.list_size == length
                    and _is_number(found.value_type)
                )
            ),
        )
    if isinstance(feature, DenseFeature) or feature.encoding == "quantiles":
        return "a number or a bool", _is_number
    is_id = pa.types.is_integer if feature.encoding == "direct" else _is_hashable
    what = "an integer" if feature.encoding == "direct" else "an integer or a string"
    if isinstance(feature, IdFeature):
        return what, is_id
    return (
        "a list of integers" if feature.encoding == "direct" else "a list of integers or strings",
        lambda found: _is_list(found) and is_id(found.value_type),
    )


def _is_number(found: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(found)
        or pa.types.is_floating(found)
        or pa.types.is_boolean(found)
        or pa.types.is_decimal(found)
    )


def _is_hashable(found: pa.DataType) -> bool:
    if pa.types.is_dictionary(found):
        found = found.value_type
        return bool(pa.types.is_string(found) or pa.types.is_large_string(found))
    return bool(
        pa.types.is_integer(found) or pa.types.is_string(found) or pa.types.is_large_string(found)
    )


def _is_list(found: pa.DataType) -> bool:
    return bool(pa.types.is_list(found) or pa.types.is_large_list(found))


def _is_number_list(found: pa.DataType) -> bool:
    return _is_list(found) and _is_number(found.value_type)
