"""Faults in a log: refused by the name of file and column, or left out, counted and told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_loaders.batch import InteractionBatch
from data_loaders.config import DataConfig
from data_loaders.dataset import DatasetInfo, SplitInfo, write_dataset_info, write_split
from data_loaders.errors import SchemaError, StorageError
from data_loaders.loader import InteractionLoader
from data_loaders.skipping import Skipped
from data_loaders.storage import locate
from data_loaders.streams import MAX_PIECE_ROWS, Cursor
from tests.helpers.logs import write_groups

MAX_ROWS = 100_000
CONFIG: dict[str, Any] = {
    "num_streams": 4,
    "batch_size": 12,
    "features": {
        "row": {"kind": "id", "encoding": "direct"},
        "seen": {"kind": "id_list", "encoding": "direct", "weights": "amount", "max_length": 3},
        "tag": {"kind": "id_list", "weights": "share", "weights_sum_to_one": True},
        "look": {"kind": "dense_vector", "length": 2},
        "price": {"kind": "dense"},
        "age": {"kind": "dense", "log": True},
    },
    "tasks": {
        "click": {"kind": "binary"},
        "spent": {"kind": "regression", "where": "click"},
    },
}
# rows of each row group of each file
SIZES = ((20, 7), (30, 1, 15), (25,))
NUM_ROWS = 98
SPOILED_FILE = "part-00001.parquet"
SPOILED_ROWS = range(27, 73)
# some of them, odd ones that have a list in `tag`
WRONG = (27, 29, 41, 57, 59, 71)


def table_of(rows: Sequence[int]) -> pa.Table:
    """Rows that know their number, with every kind of column, sound ones."""
    count = len(rows)
    floats, integers = pa.list_(pa.float32()), pa.list_(pa.int64())
    return pa.table(
        {
            "row": pa.array(rows, pa.int64()),
            "seen": pa.array([[row] * (row % 5) for row in rows], integers),
            "amount": pa.array([[0.5] * (row % 5) for row in rows], floats),
            "tag": pa.array([[1, 2] if row % 2 else None for row in rows], integers),
            "share": pa.array([[3.0, None] if row % 2 else [] for row in rows], floats),
            "look": pa.array([[1.0, -1.0] if row % 3 else None for row in rows], floats),
            "price": pa.array([float(row) for row in rows], pa.float32()),
            "age": pa.array(np.arange(count) % 90, pa.int16()),
            "click": pa.array([1] * count, pa.int8()),
            "spent": pa.array([2.5] * count, pa.float64()),
        }
    )


def spoiled(table: pa.Table, *, column: str, value: Any, rows: Sequence[int]) -> pa.Table:
    """The table with another value in a column of the rows of these numbers."""
    numbers = table.column("row").to_pylist()
    values = table.column(column).to_pylist()
    for row in set(rows) & set(numbers):
        values[numbers.index(row)] = value
    field = table.schema.field(column)
    kind = pa.float64() if isinstance(value, float) and column != "price" else field.type
    return table.set_column(table.schema.get_field_index(column), column, pa.array(values, kind))


Change = Callable[[pa.Table], pa.Table]


def write_log(root: Path, *, change: Change = lambda table: table) -> list[pa.Table]:
    """Writes the log below `root/train`, each row group changed; returns the row groups."""
    start = 0
    files: list[list[pa.Table]] = []
    for sizes in SIZES:
        files.append([])
        for size in sizes:
            files[-1].append(change(table_of(range(start, start + size))))
            start += size
    write_groups(root, split="train", files=files)
    return [table for groups in files for table in groups]


def loader(
    root: Path, *, on_error: str, rank: int = 0, world_size: int = 1, seed: int | None = 3
) -> InteractionLoader:
    tree = CONFIG | {"root": str(root), "on_error": on_error}
    return InteractionLoader(
        DataConfig.model_validate(tree),
        split="train",
        num_rows={"row": MAX_ROWS, "seen": MAX_ROWS, "tag": 11},
        seed=seed,
        rank=rank,
        world_size=world_size,
    )


def read(item: InteractionLoader, *, num_epochs: int = 1) -> list[InteractionBatch]:
    steps = num_epochs * item.steps_per_epoch
    return list(item.batches(start=Cursor(), num_steps=steps))


def rows_of(batches: Sequence[InteractionBatch]) -> list[int]:
    """The numbers of all rows, after checking that other columns are of the same rows."""
    found = []
    for batch in batches:
        rows = batch.ids["row"].values().tolist()
        assert batch.weights_B.sum() == len(rows)
        assert batch.ids["seen"].lengths().tolist()[: len(rows)] == [
            min(row % 5, 3) for row in rows
        ]
        found += rows
    return found


def told(batches: Sequence[InteractionBatch]) -> list[Skipped]:
    return [item for batch in batches for item in batch.skipped]


def count(items: Sequence[Skipped]) -> int:
    return sum(item.num_rows or 0 for item in items)


# of one value: column, value, and what the message says of it
FAULTS = {
    "an infinite number": ("price", np.inf, "column price: value inf"),
    "minus infinity": ("price", -np.inf, "column price: value -inf"),
    "a number without a logarithm": ("age", -5, "column age: value -5"),
    "an infinite logarithm": ("age", np.inf, "column age: value inf"),
    "a label above 1": ("click", 2, "column click: label 2 "),
    "a label below 0": ("click", -0.5, "column click: label -0.5"),
    "an infinite label": ("spent", np.inf, "column spent: value inf"),
    "a label beyond float32": ("spent", 1e300, "column spent: value 1e+300"),
    "a negative id": ("row", -1, "column row: id -1 lies outside"),
    "an id beyond its table": ("row", MAX_ROWS, "column row: id 100000 lies outside"),
    "fewer weights than ids": ("amount", [], "column amount: a list of 0 weights"),
    "more weights than ids": ("amount", [0.5] * 9, "column amount: a list of 9 weights"),
    "weights without ids": ("tag", None, "column share: a list of 2 weights beside 0 ids"),
    "a weight that is NaN": ("share", [np.nan, 1.0], "column share: weight is nan"),
    "an infinite weight": ("share", [np.inf, 1.0], "column share: weight is inf"),
    "a negative share": ("share", [1.0, -2.0], "column share: weight is -2"),
    "a short vector": ("look", [1.0], "column look: a vector of 1 numbers"),
    "a long vector": ("look", [1.0] * 3, "column look: a vector of 3 numbers"),
    "NaN in a vector": ("look", [1.0, np.nan], "column look: number in a vector is nan"),
    "null in a vector": ("look", [None, 1.0], "column look: number in a vector is nan"),
    "infinity in a vector": ("look", [np.inf, 1.0], "column look: number in a vector is inf"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_value_is_refused_by_the_name_of_file_and_column(tmp_path: Path, name: str) -> None:
    """In one line."""
    column, value, said = FAULTS[name]
    write_log(tmp_path, change=lambda table: spoiled(table, column=column, value=value, rows=[57]))
    with pytest.raises(SchemaError) as caught:
        read(loader(tmp_path, on_error="fail"))
    assert str(caught.value).startswith(f"{tmp_path / 'train' / SPOILED_FILE}: {said}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("name", FAULTS)
def test_rows_with_a_wrong_value_are_left_out_and_no_others(
    tmp_path: Path, name: str, world_size: int
) -> None:
    """Each once an epoch, counted and told by file, at any number of ranks."""
    column, value, said = FAULTS[name]
    write_log(tmp_path, change=lambda table: spoiled(table, column=column, value=value, rows=WRONG))
    batches = []
    for rank in range(world_size):
        item = loader(tmp_path, on_error="skip", rank=rank, world_size=world_size)
        batches += read(item, num_epochs=2)
    expected = sorted(set(range(NUM_ROWS)) - set(WRONG))
    assert sorted(rows_of(batches)) == sorted(expected * 2)
    assert count(told(batches)) == 2 * len(WRONG)
    for skipped in told(batches):
        assert skipped.uri == str(tmp_path / "train" / SPOILED_FILE)
        assert skipped.reason.startswith(said[: said.index(":")])
        assert "\n" not in skipped.reason


def test_an_id_outside_its_table_within_a_list(tmp_path: Path) -> None:
    """Its row is left out, but for an id that `max_length` cuts off anyway."""

    def change(table: pa.Table) -> pa.Table:
        weights = spoiled(table, column="amount", value=[1.0] * 4, rows=[31, 33])
        cut = spoiled(weights, column="seen", value=[-1, 33, 33, 33], rows=[33])
        return spoiled(cut, column="seen", value=[1, 2, 3, MAX_ROWS], rows=[31])

    write_log(tmp_path, change=change)
    batches = read(loader(tmp_path, on_error="skip"))
    assert sorted(rows_of(batches)) == [row for row in range(NUM_ROWS) if row != 31]
    assert [item.num_rows for item in told(batches)] == [1]
    with pytest.raises(SchemaError, match="column seen: id 100000 lies outside"):
        read(loader(tmp_path, on_error="fail"))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *((column, np.nan) for column in ("price", "age", "click", "spent")),
        *((column, None) for column in ("price", "age", "click", "spent", "row", "look", "tag")),
    ],
)
def test_what_is_missing_is_no_fault(tmp_path: Path, column: str, value: float | None) -> None:
    """NaN in a number or a label, and null anywhere; a null list is one without ids."""

    def change(table: pa.Table) -> pa.Table:
        table = spoiled(table, column="share", value=None, rows=[57] if column == "tag" else [])
        return spoiled(table, column=column, value=value, rows=[57])

    write_log(tmp_path, change=change)
    for on_error in ("fail", "skip"):
        batches = read(loader(tmp_path, on_error=on_error))
        assert sum(int(batch.weights_B.sum()) for batch in batches) == NUM_ROWS
        assert told(batches) == []


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(FAULTS)),
            st.lists(st.integers(0, NUM_ROWS - 1), max_size=30),
        ),
        max_size=4,
        unique_by=lambda fault: FAULTS[fault[0]][0],
    ),
    st.sampled_from([None, 5]),
)
def test_any_faults_of_any_rows_together(
    tmp_path: Path, faults: list[tuple[str, list[int]]], seed: int | None
) -> None:
    """What is left out is what is refused alone, whatever else is wrong with it."""

    def change(table: pa.Table) -> pa.Table:
        for name, rows in faults:
            column, value, _ = FAULTS[name]
            table = spoiled(table, column=column, value=value, rows=rows)
        return table

    groups = write_log(tmp_path, change=change)
    item = loader(tmp_path, on_error="skip", seed=seed)
    usable = []
    for start, group in zip(np.cumsum([0, *map(len, groups)]), groups, strict=False):
        for offset in range(len(group)):
            try:
                item._encoder.encode(group.slice(offset, 1))
            except SchemaError:
                continue
            usable.append(int(start) + offset)
    batches = read(item)
    assert sorted(rows_of(batches)) == usable
    assert count(told(batches)) == NUM_ROWS - len(usable)
    assert all(item.num_rows for item in told(batches))


@pytest.mark.parametrize("world_size", [1, 2])
def test_what_is_skipped_is_told_once_wherever_a_run_is_taken_up(
    tmp_path: Path, world_size: int
) -> None:
    """What was told before a cursor and is told from there on is what is told without a stop."""
    write_log(
        tmp_path, change=lambda table: spoiled(table, column="price", value=np.inf, rows=WRONG)
    )
    (tmp_path / "train" / "part-00009.parquet").write_bytes(b"nothing")
    for rank in range(world_size):
        item = loader(tmp_path, on_error="skip", rank=rank, world_size=world_size)
        whole = read(item, num_epochs=2)
        for done, batch in enumerate(whole, start=1):
            rest = item.batches(start=batch.cursor, num_steps=len(whole) - done)
            again = Counter(told(whole[:done])) + Counter(told(list(rest)))
            assert again == Counter(told(whole))
        listed = [item for item in told(whole) if "part-00009" in item.uri]
        assert len(listed) == (1 if rank == 0 else 0)


def spoil_bytes(file: Path, *, group: int, column: str) -> None:
    """Overwrites the pages of one column of a row group."""
    footer = pq.read_metadata(file)
    names = [footer.schema.column(index).path for index in range(footer.num_columns)]
    chunk = footer.row_group(group).column(names.index(column))
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content = bytearray(file.read_bytes())
    content[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    file.write_bytes(content)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def replace_with_another(file: Path) -> None:
    pq.write_table(table_of(range(46)), file, row_group_size=46)


# what is done to the file, the rows that are lost with it, and what is said
Damage = tuple[Callable[[Path], object], Sequence[int], str]
BEFORE: dict[str, Damage] = {
    "truncated": (truncate, SPOILED_ROWS, "truncated"),
    "empty": (lambda file: file.write_bytes(b""), SPOILED_ROWS, "not a readable Parquet file"),
    "other bytes": (lambda file: file.write_bytes(b"x" * 999), SPOILED_ROWS, "not a readable"),
    "a corrupt row group": (
        lambda file: spoil_bytes(file, group=0, column="price"),
        range(27, 57),
        "row group 0 cannot be read",
    ),
    "a corrupt column of lists": (
        lambda file: spoil_bytes(file, group=2, column="seen.list.element"),
        range(58, 73),
        "row group 2 cannot be read",
    ),
}
UNDER_THE_RUN: dict[str, Damage] = {
    "vanished": (Path.unlink, SPOILED_ROWS, "no such file"),
    "truncated": (truncate, SPOILED_ROWS, "is not the file that it was"),
    "another file": (replace_with_another, SPOILED_ROWS, "is not the file that it was"),
}


@pytest.mark.parametrize("name", BEFORE)
def test_a_damaged_file_is_refused_by_name_or_left_out(tmp_path: Path, name: str) -> None:
    """All rows but those that cannot be read, each once."""
    damage, lost, said = BEFORE[name]
    write_log(tmp_path)
    file = tmp_path / "train" / SPOILED_FILE
    damage(file)
    with pytest.raises(StorageError) as caught:
        read(loader(tmp_path, on_error="fail"))
    assert str(caught.value).startswith(f"{file}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    batches = read(loader(tmp_path, on_error="skip"))
    assert sorted(rows_of(batches)) == sorted(set(range(NUM_ROWS)) - set(lost))
    assert {item.uri for item in told(batches)} == {str(file)}
    assert said in told(batches)[0].reason
    if "corrupt" in name:
        assert count(told(batches)) == len(lost)
    else:  # nobody knows how many rows it had
        assert [item.num_rows for item in told(batches)] == [None]


def test_a_flipped_bit_is_found_in_what_this_project_writes(tmp_path: Path) -> None:
    """Wherever it is in the pages of numbers that do not compress: they have checksums."""
    random = np.random.default_rng(0)
    table = pa.table({"price": random.normal(size=500), "click": np.ones(500)})
    root = locate(str(tmp_path))
    write_split(root, split="train", tables=[table], rows_per_file=500, rows_per_row_group=500)
    [file] = (tmp_path / "train").iterdir()
    content = file.read_bytes()
    chunk = pq.read_metadata(file).row_group(0).column(0)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    tree = {"root": root.uri, "features": {"price": {"kind": "dense"}}}
    config = DataConfig.model_validate(tree | {"tasks": {"click": {"kind": "binary"}}})
    for _ in range(20):
        place = start + int(random.integers(100, chunk.total_compressed_size))
        file.write_bytes(
            content[:place]
            + bytes([content[place] ^ 1 << random.integers(8)])
            + content[place + 1 :]
        )
        item = InteractionLoader(config, split="train", num_rows={}, seed=None)
        with pytest.raises(StorageError, match=r"part-00000\.parquet: row group 0 cannot be read"):
            read(item)


@pytest.mark.parametrize("name", UNDER_THE_RUN)
def test_a_file_that_changes_under_a_run_is_refused_by_name_or_left_out(
    tmp_path: Path, name: str
) -> None:
    """It was sound when the run began, so the number of rows is known."""
    damage, lost, said = UNDER_THE_RUN[name]
    write_log(tmp_path)
    file = tmp_path / "train" / SPOILED_FILE
    items = {on_error: loader(tmp_path, on_error=on_error) for on_error in ("fail", "skip")}
    damage(file)
    with pytest.raises(StorageError) as caught:
        read(items["fail"])
    assert str(caught.value).startswith(f"{file}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    batches = read(items["skip"])
    assert sorted(rows_of(batches)) == sorted(set(range(NUM_ROWS)) - set(lost))
    assert count(told(batches)) == len(lost)


@pytest.mark.parametrize("is_read", [False, True])
def test_a_file_that_is_written_anew_is_known_by_its_footer_or_its_size(
    tmp_path: Path, is_read: bool
) -> None:
    """Before its first row group is read, and in the next epoch too."""
    write_log(tmp_path)
    item = loader(tmp_path, on_error="fail")
    if is_read:
        read(item)
    write_log(tmp_path, change=lambda table: table.set_column(6, "price", table.column("age")))
    with pytest.raises(StorageError, match="is not the file that it was when the run began"):
        read(item)


def test_files_that_arrive_while_a_run_is_on_are_not_picked_up(tmp_path: Path) -> None:
    """In no epoch of it: the list is taken once."""
    write_log(tmp_path)
    item = loader(tmp_path, on_error="fail")
    steps = item.steps_per_epoch
    batches = item.batches(start=Cursor(), num_steps=3 * steps)
    rows = rows_of([next(batches)])
    pq.write_table(table_of(range(500, 540)), tmp_path / "train" / "part-00000a.parquet")
    rows += rows_of(list(batches))
    assert sorted(rows) == sorted(list(range(NUM_ROWS)) * 3)


def without(column: str) -> Change:
    return lambda table: table.drop_columns([column])


def with_type(column: str, kind: pa.DataType) -> Change:
    def change(table: pa.Table) -> pa.Table:
        values = pa.array([None] * len(table), kind)
        return table.set_column(table.schema.get_field_index(column), column, values)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("look"), "no column look (feature look)"),
        (without("spent"), "no column spent (task spent)"),
        (with_type("price", pa.string()), "column price (feature price): expected a number"),
        (with_type("seen", pa.int64()), "column seen (feature seen): expected a list"),
        (with_type("share", pa.list_(pa.string())), "column share (weights of feature tag)"),
    ],
)
def test_a_file_of_another_schema_is_refused_by_name_or_left_out(
    tmp_path: Path, change: Change, said: str
) -> None:
    """Before the first step, with its number of rows."""
    write_log(
        tmp_path,
        change=lambda table: change(table) if table["row"][0].as_py() in SPOILED_ROWS else table,
    )
    file = tmp_path / "train" / SPOILED_FILE
    with pytest.raises(SchemaError) as caught:
        loader(tmp_path, on_error="fail")
    assert str(caught.value).startswith(f"{file}: {said}")
    assert "\n" not in str(caught.value)
    batches = read(loader(tmp_path, on_error="skip"), num_epochs=2)
    assert sorted(rows_of(batches)) == sorted([*range(27), *range(73, NUM_ROWS)] * 2)
    [skipped] = told(batches)
    assert batches[0].skipped == (skipped,)
    assert (skipped.uri, skipped.num_rows) == (str(file), len(SPOILED_ROWS))
    assert skipped.reason.startswith(said)


SAME_VALUES = [
    ("row", pa.int64(), pa.int32()),
    ("row", pa.int64(), pa.uint16()),
    ("name", pa.string(), pa.large_string()),
    ("name", pa.string(), pa.dictionary(pa.int32(), pa.string())),
    ("name", pa.large_string(), pa.dictionary(pa.int8(), pa.large_string())),
    ("names", pa.list_(pa.string()), pa.large_list(pa.large_string())),
    ("names", pa.list_(pa.string()), pa.list_(pa.dictionary(pa.int32(), pa.string()))),
    ("seen", pa.list_(pa.int64()), pa.large_list(pa.int32())),
    ("amount", pa.list_(pa.float32()), pa.large_list(pa.float64())),
    ("look", pa.list_(pa.float32()), pa.list_(pa.float64(), 2)),
    ("look", pa.large_list(pa.float32()), pa.list_(pa.int8())),
    ("price", pa.float32(), pa.float64()),
    ("price", pa.float64(), pa.decimal128(9, 2)),
    ("price", pa.float32(), pa.int64()),
    ("click", pa.int8(), pa.bool_()),
    ("click", pa.uint64(), pa.float64()),
    ("spent", pa.float64(), pa.float32()),
]


@pytest.mark.parametrize(("column", "first", "second"), SAME_VALUES)
def test_types_that_hold_the_same_values_may_differ_among_files(
    tmp_path: Path, column: str, first: pa.DataType, second: pa.DataType
) -> None:
    """The batches are those of files that all have the first type."""

    def with_names(kind: pa.DataType | None) -> Change:
        def change(table: pa.Table) -> pa.Table:
            names = [f"ünï-{row % 7}" for row in table["row"].to_pylist()]
            table = table.append_column("name", pa.array(names))
            table = table.append_column("names", pa.array([[name] for name in names]))
            is_second = kind is not None and table["row"][0].as_py() in SPOILED_ROWS
            found, wanted = table[column], kind if is_second else first
            values = (
                pa.array(found.to_pylist(), wanted)
                if pa.types.is_nested(wanted)
                else found.cast(wanted)
            )
            return table.set_column(table.schema.get_field_index(column), column, values)

        return change

    names = {"name": {"kind": "id"}, "names": {"kind": "id_list"}}
    batches = {}
    for kind in (None, second):
        root = tmp_path / str(kind)
        write_log(root, change=with_names(kind))
        config = CONFIG | {"root": str(root), "features": CONFIG["features"] | names}
        item = InteractionLoader(
            DataConfig.model_validate(config),
            split="train",
            num_rows={"row": MAX_ROWS, "seen": MAX_ROWS, "tag": 11, "name": 99, "names": 99},
            seed=3,
        )
        batches[kind] = read(item)
    for mixed, alike in zip(batches[second], batches[None], strict=True):
        assert_same(mixed, alike)


def assert_same(found: InteractionBatch, expected: InteractionBatch) -> None:
    """Bit by bit; NaN is itself."""
    assert torch.equal(found.ids.values(), expected.ids.values())
    assert torch.equal(found.ids.lengths(), expected.ids.lengths())
    assert torch.equal(found.ids.weights(), expected.ids.weights())
    assert torch.equal(found.dense_BD, expected.dense_BD)
    assert torch.equal(found.labels_BT.nan_to_num(-1), expected.labels_BT.nan_to_num(-1))
    assert torch.equal(found.weights_B, expected.weights_B)


def test_a_log_of_which_no_file_can_be_used_is_an_error(tmp_path: Path) -> None:
    """Also under skip: there is nothing to train on."""
    write_log(tmp_path, change=without("look"))
    with pytest.raises(
        SchemaError, match=r"none of its 3 files can be used.*part-00000.*no column"
    ):
        loader(tmp_path, on_error="skip")


def test_the_fingerprint_knows_which_files_were_left_out(tmp_path: Path) -> None:
    """A position in the log means other rows without them."""
    write_log(tmp_path)
    whole = loader(tmp_path, on_error="skip").fingerprint
    assert loader(tmp_path, on_error="fail").fingerprint == whole
    truncate(tmp_path / "train" / SPOILED_FILE)
    assert loader(tmp_path, on_error="skip").fingerprint != whole


def describe(root: Path, *, num_examples: int) -> None:
    splits = {"train": SplitInfo(examples=num_examples)}
    write_dataset_info(locate(str(root)), DatasetInfo(name="toy", splits=splits))


def test_examples_that_the_description_counts_and_no_file_holds(tmp_path: Path) -> None:
    """fail refuses, skip tells how many: with a file left out whose rows nobody can count."""
    write_log(tmp_path)
    describe(tmp_path, num_examples=NUM_ROWS)
    assert told(read(loader(tmp_path, on_error="skip"))) == []
    (tmp_path / "train" / "part-00002.parquet").unlink()
    with pytest.raises(SchemaError, match=r"expected 98 examples.*found 73"):
        loader(tmp_path, on_error="fail")
    [missing] = told(read(loader(tmp_path, on_error="skip")))
    assert (missing.uri, missing.num_rows) == (str(tmp_path / "train"), 25)
    truncate(tmp_path / "train" / SPOILED_FILE)
    skipped = told(read(loader(tmp_path, on_error="skip")))
    assert [item.num_rows for item in skipped] == [25 + len(SPOILED_ROWS)]  # counted once
    describe(tmp_path, num_examples=1)
    with pytest.raises(SchemaError, match="were added"):
        loader(tmp_path, on_error="skip")


def test_a_file_of_another_schema_is_not_missing_too(tmp_path: Path) -> None:
    """Its rows are told once."""
    write_log(tmp_path)
    describe(tmp_path, num_examples=NUM_ROWS)
    pq.write_table(table_of(range(46)).drop_columns(["look"]), tmp_path / "train" / SPOILED_FILE)
    assert [item.num_rows for item in told(read(loader(tmp_path, on_error="skip")))] == [46]


@pytest.mark.parametrize("damage", ["values", "pages"])
def test_large_row_groups_lose_what_is_wrong_in_them(tmp_path: Path, damage: str) -> None:
    """They are read in parts; rows are counted once."""
    num_rows = MAX_PIECE_ROWS + 5000
    table = pa.table({"price": np.arange(num_rows, dtype=np.float32), "click": np.ones(num_rows)})
    wrong = [0, MAX_PIECE_ROWS - 1, MAX_PIECE_ROWS, num_rows - 1]
    if damage == "values":
        prices = table["price"].to_numpy().copy()
        prices[wrong] = np.inf
        table = table.set_column(0, "price", pa.array(prices))
    write_groups(tmp_path, split="train", files=[[table]])
    if damage == "pages":
        spoil_bytes(tmp_path / "train" / "part-00000.parquet", group=0, column="price")
        write_groups(tmp_path / "more", split="train", files=[[table.slice(0, 10)]])
        (tmp_path / "more/train/part-00000.parquet").rename(tmp_path / "train/part-00001.parquet")
    tree = {
        "root": str(tmp_path),
        "on_error": "skip",
        "batch_size": 4096,
        "features": {"price": {"kind": "dense"}},
        "tasks": {"click": {"kind": "binary"}},
    }
    item = InteractionLoader(DataConfig.model_validate(tree), split="train", num_rows={}, seed=1)
    batches = read(item)
    given_rows = sum(int(batch.weights_B.sum()) for batch in batches)
    expected = num_rows - len(wrong) if damage == "values" else 10
    assert given_rows == expected
    assert count(told(batches)) == item.num_examples - expected
