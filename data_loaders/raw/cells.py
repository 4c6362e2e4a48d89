"""From the cells of a raw log to values of the types that the recipe asks for.

What does not convert is marked, row by row, instead of failing: whether a row is good never depends
on the rows around it.

Shape legend: R rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_loaders.errors import SchemaError
from data_loaders.raw.columns import CellType
from data_loaders.raw.tolerant_casts import EXACT, cast_each, decoded, seconds, whole

ARROW_TYPES: dict[CellType, pa.DataType] = {
    "text": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "time": pa.float64(),
    "texts": pa.list_(pa.string()),
    "integers": pa.list_(pa.int64()),
    "numbers": pa.list_(pa.float64()),
}
ITEM_TYPES: dict[CellType, CellType] = {
    "texts": "text",
    "integers": "integer",
    "numbers": "number",
}
EXPECTED: dict[CellType, str] = {
    "text": "a text or an integer",
    "integer": "an integer",
    "number": "a number",
    "time": "a time (a number, or an ISO date and time)",
    "texts": "a list of texts or integers",
    "integers": "a list of integers",
    "numbers": "a list of numbers",
}


@dataclass(frozen=True)
class Cells:
    """A converted column.

    Attributes:
        values: of the type in `ARROW_TYPES`, never NaN; null where missing or wrong.
        wrong_R: bool, where a cell is not of the type.
    """

    values: pa.Array
    wrong_R: np.ndarray


def convert(
    column: pa.Array, *, to: CellType, missing: Sequence[str], list_separator: str
) -> Cells:
    """Converts a column of any type; NaN is missing.

    Args:
        column: text (also as bytes), numbers, bools, dates, times, or lists of those.
        to: the type to convert to.
        missing: texts that stand for null.
        list_separator: between the items of a list in a text that is no JSON array.

    Raises:
        SchemaError: no value of the column's type could be converted.
    """
    if pa.types.is_null(column.type):
        return Cells(pa.nulls(len(column), ARROW_TYPES[to]), np.zeros(len(column), bool))
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if to in ITEM_TYPES:
        return _lists(column, to=to, missing=missing, separator=list_separator)
    if _is_text(column.type):
        return _from_text(column, to=to, missing=missing)
    return _from_value(column, to=to)


def json_text(value: Any) -> str | None:
    """A JSON value as a CSV cell would hold it."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        return str(int(value))
    return json.dumps(value)


def _from_text(column: pa.Array, *, to: CellType, missing: Sequence[str]) -> Cells:
    texts, wrong_R = decoded(column)
    if to != "text":
        texts = pc.utf8_trim_whitespace(texts)
    is_missing = pc.is_in(texts, value_set=pa.array(missing, texts.type))
    texts = pc.if_else(is_missing, pa.scalar(None, texts.type), texts)
    if to == "text":
        return Cells(texts, wrong_R)
    values = CONVERTERS[to](texts)
    values = _without_nan(values)
    failed_R = _nulls(values) & ~_nulls(texts)
    # NaN is missing, whatever `missing` says
    is_nan = pc.fill_null(pc.equal(pc.utf8_lower(texts), "nan"), False)
    failed_R &= ~is_nan.to_numpy(zero_copy_only=False)
    return Cells(values, wrong_R | failed_R)


def _from_value(column: pa.Array, *, to: CellType) -> Cells:
    found = column.type
    is_time = pa.types.is_timestamp(found) or pa.types.is_date(found)
    if is_time and to != "integer":
        values = column.cast(pa.string()) if to == "text" else seconds(column)
        return Cells(values, np.zeros(len(column), bool))
    is_number = pa.types.is_floating(found) or pa.types.is_decimal(found)
    if not (is_number or pa.types.is_integer(found) or pa.types.is_boolean(found)):
        raise SchemaError(f"expected {EXPECTED[to]}, found {found}")
    if to in ("number", "time"):
        values = _without_nan(column.cast(pa.float64(), safe=False))
        return Cells(values, np.zeros(len(column), bool))
    if pa.types.is_boolean(found) and to == "text":
        return Cells(column.cast(pa.string()), np.zeros(len(column), bool))
    if is_number:
        numbers = column.cast(pa.float64(), safe=False)
        column = pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)
        integers = whole(column)
    else:
        integers = cast_each(column, pa.int64()) if to == "integer" else column
    wrong_R = _nulls(integers) & ~_nulls(column)
    return Cells(integers.cast(ARROW_TYPES[to]), wrong_R)


def _lists(column: pa.Array, *, to: CellType, missing: Sequence[str], separator: str) -> Cells:
    wrong_R = np.zeros(len(column), bool)
    if _is_text(column.type):
        texts = _from_text(column, to="text", missing=missing)
        column, wrong_R = _split(texts.values, separator=separator)
        wrong_R |= texts.wrong_R
    if pa.types.is_large_list(column.type) or pa.types.is_fixed_size_list(column.type):
        column = column.cast(pa.list_(column.type.value_type))
    if not pa.types.is_list(column.type):
        raise SchemaError(f"expected {EXPECTED[to]}, found {column.type}")
    lengths_R = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    items = convert(column.flatten(), to=ITEM_TYPES[to], missing=missing, list_separator=separator)
    row_N = np.repeat(np.arange(len(column)), lengths_R)
    wrong_R[row_N[items.wrong_R]] = True
    offsets = np.concatenate([[0], np.cumsum(lengths_R)]).astype(np.int32)
    values = pa.ListArray.from_arrays(offsets, items.values, mask=column.is_null())
    return Cells(values, wrong_R)


def _split(texts: pa.Array, *, separator: str) -> tuple[pa.Array, np.ndarray]:
    """Lists of texts, and where a JSON array is none."""
    texts = pc.utf8_trim_whitespace(texts)
    wrong_R = np.zeros(len(texts), bool)
    is_json = pc.fill_null(pc.starts_with(texts, "["), False).to_numpy(zero_copy_only=False)
    if not is_json.any():
        return pc.split_pattern(texts, pattern=separator), wrong_R
    rows = np.flatnonzero(is_json)
    parsed = _parsed(texts.take(pa.array(rows)).to_pylist())
    wrong_R[rows] = [items is None for items in parsed]
    others = np.flatnonzero(~is_json)
    lists = pa.concat_arrays(
        [
            pa.array(parsed, pa.list_(pa.string())),
            pc.split_pattern(texts.take(pa.array(others)), pattern=separator),
        ]
    )
    order = np.empty(len(texts), np.int64)
    order[np.concatenate([rows, others])] = np.arange(len(texts))
    return lists.take(pa.array(order)), wrong_R


def _parsed(texts: list[str]) -> list[list[str | None] | None]:
    """JSON arrays as lists of cells; None where a text is no array, or holds more than values."""
    try:  # all of them in one go
        found = json.loads(f"[{','.join(texts)}]")
    except (ValueError, RecursionError):
        found = None
    if found is None or len(found) != len(texts):
        found = [_parsed_alone(text) for text in texts]
    return [
        [json_text(item) for item in items]
        if isinstance(items, list) and not any(isinstance(item, list | dict) for item in items)
        else None
        for items in found
    ]


def _parsed_alone(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _numbers(texts: pa.Array) -> pa.Array:
    """float64; null where a text is neither a number nor true or false."""
    numbers = cast_each(texts, pa.float64())
    failed = pc.and_(pc.is_null(numbers), pc.is_valid(texts))
    if not pc.any(failed).as_py():
        return numbers
    lower = pc.utf8_lower(texts)
    words = pa.array(["false", "true"])
    return pc.coalesce(numbers, pc.index_in(lower, value_set=words).cast(pa.float64()))


def _integers(texts: pa.Array) -> pa.Array:
    """int64; null where a text is no integer; 12.0 is one."""
    integers = cast_each(texts, pa.int64())
    failed = pc.and_(pc.is_null(integers), pc.is_valid(texts))
    if not pc.any(failed).as_py():
        return integers
    return pc.coalesce(integers, whole(cast_each(texts, pa.float64())))


def _times(texts: pa.Array) -> pa.Array:
    """float64, seconds since 1970; without a zone, of UTC."""
    times = _numbers(texts)
    for zone in (None, "UTC"):
        rest = pc.if_else(pc.is_null(times), texts, pa.scalar(None, texts.type))
        if rest.null_count < len(rest):
            times = pc.coalesce(times, seconds(cast_each(rest, pa.timestamp("us", zone))))
    return times


CONVERTERS: dict[CellType, Callable[[pa.Array], pa.Array]] = {
    "number": _numbers,
    "integer": _integers,
    "time": _times,
}


def _without_nan(values: pa.Array) -> pa.Array:
    """Null where a number is NaN."""
    if not pa.types.is_floating(values.type):
        return values
    return pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)


def _nulls(values: pa.Array) -> np.ndarray:
    return values.is_null().to_numpy(zero_copy_only=False)


def _is_text(found: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(found)
        or pa.types.is_large_string(found)
        or pa.types.is_binary(found)
        or pa.types.is_large_binary(found)
    )
