"""The columns of a raw log that a recipe asks for: their types, and what values are possible.

    text, integer            ids; what is not listed under prepare.integers becomes text
    number                   dense features, labels
    time                     seconds since 1970
    texts, integers          lists of ids
    numbers                  vectors, and weights of lists

Types come from the recipe alone, never from what a file happens to hold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from data_loaders.config import (
    AnyFeature,
    BinaryTask,
    DataConfig,
    DenseFeature,
    DenseVectorFeature,
    IdFeature,
    RegressionTask,
)
from data_loaders.errors import InputError
from data_loaders.prepare_config import PrepareConfig

CellType = Literal["text", "integer", "number", "time", "texts", "integers", "numbers"]

AS_INTEGERS: dict[CellType, CellType] = {"text": "integer", "texts": "integers"}
# float32 holds more, but not after a division by a small standard deviation
LARGEST_NUMBER = 1e30

# what two uses of a column make of it
JOINED_TYPES: dict[frozenset[CellType], CellType] = {
    frozenset({"text", "integer"}): "integer",
    frozenset({"number", "integer"}): "integer",
    frozenset({"number", "time"}): "time",
    frozenset({"integer", "time"}): "integer",
    frozenset({"texts", "integers"}): "integers",
}


@dataclass(frozen=True)
class Bounds:
    """Values outside [low, high] are impossible; of lists, each item's."""

    reason: str
    low: float | None
    high: float | None


@dataclass(frozen=True)
class RawColumn:
    """A column to read.

    Attributes:
        type: of its cells.
        is_written: whether the data set has it.
        bounds: of the values.
        length: of each vector, which then holds no nulls.
        as_long_as: column whose lists are as long in each row.
    """

    name: str
    type: CellType
    is_written: bool
    bounds: tuple[Bounds, ...] = ()
    length: int | None = None
    as_long_as: str | None = None


def raw_columns(
    data: DataConfig, *, prepare: PrepareConfig, num_rows: Mapping[str, int]
) -> list[RawColumn]:
    """What to read, in the order in which the data set has it.

    Args:
        data: features and tasks.
        prepare: how to clean and to split.
        num_rows: rows of the embedding table of each id feature.

    Raises:
        InputError: a column is asked for in two ways that exclude each other.
    """
    uses: list[RawColumn] = []
    for name, feature in data.features.items():
        uses += _of_feature(name, feature, num_rows=num_rows.get(name))
    for name, task in data.tasks.items():
        uses.append(_of_task(name, task))
        if task.where is not None:
            uses.append(RawColumn(task.where, "number", is_written=True))
    uses += [RawColumn(name, written, is_written=True) for name, written in prepare.keep.items()]
    if prepare.split.time is not None:
        uses.append(RawColumn(prepare.split.time, "time", is_written=False))
    named = {use.name for use in uses}
    by = [prepare.split.by] if prepare.split.by is not None else []
    for name in [*(prepare.unique or []), *by]:
        if name not in named:
            uses.append(RawColumn(name, "text", is_written=False))
    columns: dict[str, RawColumn] = {}
    for use in uses:
        _add(columns, _as_integers(use) if use.name in prepare.integers else use)
    for name in prepare.integers:
        if name not in columns:
            raise InputError(
                f"prepare.integers: {name} is no column that the recipe reads; "
                f"to have it in the data set, write prepare.keep: {{{name}: integer}}"
            )
    for name, (low, high) in prepare.ranges.items():
        _add_range(columns, name, low=low, high=high)
    return list(columns.values())


def _of_feature(name: str, feature: AnyFeature, *, num_rows: int | None) -> list[RawColumn]:
    column = feature.column or name
    if isinstance(feature, DenseFeature):
        return [_number(column, is_log=feature.log, clip=feature.clip)]
    if isinstance(feature, DenseVectorFeature):
        return [RawColumn(column, "numbers", True, (_not_too_large(),), length=feature.length)]
    if isinstance(feature, IdFeature) and feature.encoding == "quantiles":
        return [RawColumn(column, "number", is_written=True)]
    bounds: tuple[Bounds, ...] = ()
    if feature.encoding == "direct" and num_rows is not None:
        bounds = (Bounds(f"outside its table (0 to {num_rows - 1})", 0, num_rows - 1),)
    is_direct = feature.encoding == "direct"
    if isinstance(feature, IdFeature):
        return [RawColumn(column, "integer" if is_direct else "text", True, bounds)]
    found = [RawColumn(column, "integers" if is_direct else "texts", True, bounds)]
    if feature.weights is not None:
        limits: tuple[Bounds, ...] = (_not_too_large(),)
        if feature.weights_sum_to_one:
            limits = (Bounds("negative (weights_sum_to_one: true)", 0, None), *limits)
        found.append(RawColumn(feature.weights, "numbers", True, limits, as_long_as=column))
    return found


def _of_task(name: str, task: BinaryTask | RegressionTask) -> RawColumn:
    column = task.column or name
    if isinstance(task, RegressionTask):
        return _number(column, is_log=task.log, clip=None)
    return RawColumn(column, "number", True, (Bounds("outside 0 to 1 (a binary label)", 0, 1),))


def _number(column: str, *, is_log: bool, clip: tuple[float, float] | None) -> RawColumn:
    if clip is not None and (not is_log or clip[0] >= 0):
        return RawColumn(column, "number", is_written=True)
    bounds = [Bounds("negative (log: true)", 0, None)] if is_log else []
    return RawColumn(column, "number", True, (*bounds, _not_too_large()))


def _not_too_large() -> Bounds:
    return Bounds(f"beyond {LARGEST_NUMBER:g}", -LARGEST_NUMBER, LARGEST_NUMBER)


def _add(columns: dict[str, RawColumn], column: RawColumn) -> None:
    """Joins what another use asks of the same column."""
    known = columns.get(column.name)
    if known is None:
        columns[column.name] = column
        return
    pair: frozenset[CellType] = frozenset({known.type, column.type})
    joined = known.type if len(pair) == 1 else JOINED_TYPES.get(pair)
    if joined is None:
        remedy = (
            "; list it under prepare.integers if its values are integers"
            if pair == {"text", "number"}
            else ""
        )
        raise InputError(
            f"column {column.name}: is asked for as {known.type} and as {column.type}{remedy}"
        )
    columns[column.name] = RawColumn(
        name=column.name,
        type=joined,
        is_written=known.is_written or column.is_written,
        bounds=tuple(dict.fromkeys(known.bounds + column.bounds)),
        length=known.length or column.length,
        as_long_as=known.as_long_as or column.as_long_as,
    )


def _as_integers(column: RawColumn) -> RawColumn:
    return dataclasses.replace(column, type=AS_INTEGERS.get(column.type, column.type))


def _add_range(
    columns: dict[str, RawColumn], name: str, *, low: float | None, high: float | None
) -> None:
    if name in columns and columns[name].type in ("text", "texts"):
        raise InputError(
            f"prepare.ranges.{name}: the column is text, which has no range; "
            "list it under prepare.integers if its values are integers"
        )
    written = columns[name].type if name in columns else "number"
    if high is None:
        reason = f"below {low:g}"
    else:
        reason = f"above {high:g}" if low is None else f"outside {low:g} to {high:g}"
    bounds = (Bounds(f"{reason} (prepare.ranges)", low, high),)
    _add(columns, RawColumn(name, written, False, bounds))
