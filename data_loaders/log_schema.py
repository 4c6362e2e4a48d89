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

# what a value is, and what several are
ID_TYPES = {"integer": ("an integer", "integers"), "string": ("a string", "strings")}


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
    id_type = "integer" if feature.encoding == "direct" else feature.id_type
    types = list(ID_TYPES) if id_type is None else [id_type]
    one, several = map(" or ".join, zip(*(ID_TYPES[name] for name in types), strict=True))
    from_recipe = "" if feature.id_type is None else " (id_type)"
    if isinstance(feature, IdFeature):
        return one + from_recipe, lambda found: id_type_of(found) in types
    return (
        f"a list of {several}{from_recipe}",
        lambda found: _is_list(found) and id_type_of(found.value_type) in types,
    )


def _is_number(found: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(found)
        or pa.types.is_floating(found)
        or pa.types.is_boolean(found)
        or pa.types.is_decimal(found)
    )


def id_type_of(found: pa.DataType) -> str | None:
    """Which of `ID_TYPES` values of this type are; None if they can be no ids."""
    if pa.types.is_integer(found):
        return "integer"
    if pa.types.is_dictionary(found):
        found = found.value_type
    is_string = pa.types.is_string(found) or pa.types.is_large_string(found)
    return "string" if is_string else None


def _is_list(found: pa.DataType) -> bool:
    return bool(pa.types.is_list(found) or pa.types.is_large_list(found))


def _is_number_list(found: pa.DataType) -> bool:
    return _is_list(found) and _is_number(found.value_type)
