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
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from data_loaders.config import (
    AnyFeature,
    AnyTask,
    DataConfig,
    DenseFeature,
    DenseVectorFeature,
    IdFeature,
)
from data_loaders.errors import InputError
from data_loaders.prepare_config import PrepareConfig
from data_loaders.task_config import MulticlassTask, RegressionTask

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
        asked_by: key of the recipe that names it, the first one if there are several.
    """

    name: str
    type: CellType
    is_written: bool
    bounds: tuple[Bounds, ...] = ()
    length: int | None = None
    as_long_as: str | None = None
    asked_by: str = ""


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
        found = _of_feature(name, feature, num_rows=num_rows.get(name))
        uses += [dataclasses.replace(use, asked_by=f"data.features.{name}") for use in found]
    for name, task in data.tasks.items():
        uses += [
            dataclasses.replace(use, asked_by=f"data.tasks.{name}") for use in _of_task(name, task)
        ]
    uses += _of_prepare(prepare, named={use.name for use in uses})
    columns: dict[str, RawColumn] = {}
    for use in uses:
        _add(columns, _as_integers(use) if use.name in prepare.integers else use)
    for name in prepare.integers:
        _check_integers(columns, name)
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


def _of_task(name: str, task: AnyTask) -> list[RawColumn]:
    column = task.column or name
    bounds: tuple[Bounds, ...]
    if isinstance(task, RegressionTask):
        is_amount = task.loss in ("lognormal", "ziln")
        bounds = (Bounds(f"negative (loss: {task.loss})", 0, None),) if is_amount else ()
        found = [_number(column, is_log=task.log, clip=None)]
        found = [dataclasses.replace(found[0], bounds=(*bounds, *found[0].bounds))]
    elif isinstance(task, MulticlassTask):
        last = task.num_classes - 1
        bounds = (Bounds(f"outside 0 to {last} (a class)", 0, last),)
        found = [RawColumn(column, "integer", True, bounds)]
    else:
        bounds = (Bounds(f"outside 0 to 1 (a {task.kind} label)", 0, 1),)
        found = [RawColumn(column, "number", True, bounds)]
    if task.where is not None:
        found.append(RawColumn(task.where, "number", is_written=True))
    if task.example_weight is not None:
        limits = (Bounds("negative (an example weight)", 0, None), _not_too_large())
        found.append(RawColumn(task.example_weight, "number", True, limits))
    return found


def _of_prepare(prepare: PrepareConfig, *, named: Collection[str]) -> list[RawColumn]:
    """What is kept, and what decides; `named` columns have their type from features and tasks."""
    found = [
        RawColumn(name, written, True, asked_by="prepare.keep")
        for name, written in prepare.keep.items()
    ]
    split = prepare.split
    if split.time is not None:
        found.append(RawColumn(split.time, "time", False, asked_by="prepare.split.time"))
    deciding = dict.fromkeys(prepare.unique or [], "prepare.unique")
    if split.by is not None:
        deciding.setdefault(split.by, "prepare.split.by")
    typed = {*named, *(column.name for column in found)}
    return found + [
        RawColumn(name, "text", False, asked_by=asker)
        for name, asker in deciding.items()
        if name not in typed
    ]


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
        asked_by=known.asked_by,
    )


def _check_integers(columns: Mapping[str, RawColumn], name: str) -> None:
    if name not in columns:
        raise InputError(
            f"prepare.integers: {name} is no column that the recipe reads; "
            f"to have it in the data set, write prepare.keep: {{{name}: integer}}"
        )
    column = columns[name]
    if column.type not in AS_INTEGERS.values():
        raise InputError(
            f"prepare.integers: expected columns of ids, found {name}, which {column.asked_by} "
            f"reads as {column.type}; take it out of the list"
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
    _add(columns, RawColumn(name, written, False, bounds, asked_by="prepare.ranges"))
