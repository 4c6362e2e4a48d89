"""The footers of a split: what is counted, and refusals by file, column, expected and found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_loaders.config import DataConfig
from data_loaders.errors import InputError, SchemaError, StorageError
from data_loaders.row_groups import has_split, list_row_groups, read_columns
from tests.helpers.logs import toy_recipe, write_groups, write_toy_log

CLICK = {"click": {"kind": "binary"}}


def config(
    root: Path | None, features: dict[str, Any], tasks: dict[str, Any] | None = None
) -> DataConfig:
    return DataConfig.model_validate(
        {"root": root and str(root), "features": features, "tasks": tasks or CLICK}
    )


def write(root: Path, **columns: pa.Array) -> Path:
    """A log of one file with these columns and `click`; returns the file."""
    click = pa.array([1, 0, 1], pa.int8())
    write_groups(root, split="train", files=[[pa.table({"click": click} | columns)]])
    return root / "train/part-00000.parquet"


def refusal(found: DataConfig, kind: type[InputError] = SchemaError) -> str:
    with pytest.raises(kind) as caught:
        list_row_groups(found, split="train")
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_row_groups_are_counted_file_by_file(tmp_path: Path) -> None:
    """Files by name, row groups in the file's order, empty ones too."""
    write_toy_log(tmp_path, splits={"train": ((3, 0, 5), (2,), (0, 7))})
    recipe = toy_recipe(tmp_path)
    groups = list_row_groups(DataConfig.model_validate(recipe["data"]), split="train")
    assert [file.name for file in groups.files] == [f"part-0000{n}.parquet" for n in range(3)]
    assert groups.file_G.tolist() == [0, 0, 0, 1, 2, 2]
    assert groups.index_G.tolist() == [0, 1, 2, 0, 0, 1]
    assert groups.num_rows_G.tolist() == [3, 0, 5, 2, 0, 7]
    assert groups.num_examples == 17


def test_the_fingerprint_changes_with_the_log_and_with_nothing_else(tmp_path: Path) -> None:
    """A copy elsewhere has the same; another name, number of rows or row group another."""
    sizes = {
        "a": ((3, 5), (2,)),
        "copy": ((3, 5), (2,)),
        "split": ((3, 4, 1), (2,)),
        "fewer": ((3, 5),),
        "swapped": ((5, 3), (2,)),
    }
    prints = {}
    for name, groups in sizes.items():
        root = write_toy_log(tmp_path / name, splits={"train": groups})
        data = DataConfig.model_validate(toy_recipe(root)["data"])
        prints[name] = list_row_groups(data, split="train").fingerprint
    renamed = tmp_path / "copy/train"
    (renamed / "part-00001.parquet").rename(renamed / "part-00002.parquet")
    data = DataConfig.model_validate(toy_recipe(tmp_path / "copy")["data"])
    assert prints["a"] == prints["copy"]
    prints["copy"] = list_row_groups(data, split="train").fingerprint
    assert len(set(prints.values())) == len(sizes)


def test_files_that_are_not_parquet_by_name_are_passed_over(tmp_path: Path) -> None:
    """What other writers leave: markers, checksums, half-written files."""
    write(tmp_path, user=pa.array([1, 2, 3]))
    for name in ("_SUCCESS", ".part-00000.parquet.crc", "part-00001.parquet.tmp", "README.md"):
        (tmp_path / "train" / name).write_text("x")
    groups = list_row_groups(config(tmp_path, {"user": {"kind": "id"}}), split="train")
    assert [file.name for file in groups.files] == ["part-00000.parquet"]


def test_every_column_of_the_recipe_is_read_once() -> None:
    """Features, weights, labels and sample spaces; a column used twice is read once."""
    features = {
        "user": {"kind": "id"},
        "again": {"kind": "id", "column": "user"},
        "seen": {"kind": "id_list", "weights": "minutes"},
    }
    tasks = {
        "click": {"kind": "binary"},
        "buy": {"kind": "binary", "where": "click", "column": "b"},
    }
    assert read_columns(config(None, features, tasks)) == ["user", "seen", "click", "b", "minutes"]


INTEGERS, STRINGS = pa.array([1, 2, 3]), pa.array(["a", "b", "c"])
FLOATS, BOOLS = pa.array([0.5, 1.5, 2.5]), pa.array([True, False, True])
INTEGER_LISTS, STRING_LISTS = pa.array([[1], [], [2]]), pa.array([["a"], [], None])
ID = {"kind": "id"}
DIRECT = {"kind": "id", "encoding": "direct"}
LIST = {"kind": "id_list"}
DIRECT_LIST = {"kind": "id_list", "encoding": "direct"}
DENSE = {"kind": "dense"}
VOCABULARY = {"kind": "id", "encoding": "vocabulary"}
VOCABULARY_LIST = {"kind": "id_list", "encoding": "vocabulary"}
QUANTILES = {"kind": "id", "encoding": "quantiles"}
VECTOR: dict[str, Any] = {"kind": "dense_vector", "length": 2}
VECTORS = pa.array([[0.5, 1.5], None, [2.5, 3.5]])


@pytest.mark.parametrize(
    ("feature", "column"),
    [
        (ID, INTEGERS),
        (ID, INTEGERS.cast(pa.uint64())),
        (ID, STRINGS),
        (ID, STRINGS.cast(pa.large_string())),
        (ID, STRINGS.dictionary_encode()),
        (DIRECT, INTEGERS.cast(pa.int8())),
        (LIST, INTEGER_LISTS),
        (LIST, STRING_LISTS),
        (LIST, INTEGER_LISTS.cast(pa.large_list(pa.int32()))),
        (DIRECT_LIST, INTEGER_LISTS),
        (DENSE, INTEGERS),
        (DENSE, FLOATS.cast(pa.float16())),
        (DENSE, BOOLS),
        (DENSE, INTEGERS.cast(pa.decimal128(21, 2))),
        (VOCABULARY, INTEGERS),
        (VOCABULARY, STRINGS.dictionary_encode()),
        (VOCABULARY_LIST, STRING_LISTS),
        (QUANTILES, INTEGERS),
        (QUANTILES, FLOATS),
        (VECTOR, VECTORS),
        (VECTOR, VECTORS.cast(pa.large_list(pa.float16()))),
        (VECTOR, VECTORS.cast(pa.list_(pa.float32(), 2))),
    ],
    ids=lambda item: str(item.type) if isinstance(item, pa.Array) else None,
)
def test_a_column_of_a_fitting_type_is_accepted(
    tmp_path: Path, feature: dict[str, str], column: pa.Array
) -> None:
    """All widths of integers and floats, both kinds of strings and lists."""
    write(tmp_path, x=column)
    assert list_row_groups(config(tmp_path, {"x": feature}), split="train").num_examples == 3


@pytest.mark.parametrize(
    ("feature", "column", "expected", "found"),
    [
        (ID, FLOATS, "an integer or a string", "double"),
        (ID, BOOLS, "an integer or a string", "bool"),
        (ID, INTEGER_LISTS, "an integer or a string", "list<element: int64>"),
        (DIRECT, STRINGS, "an integer", "string"),
        (DIRECT, FLOATS, "an integer", "double"),
        (LIST, INTEGERS, "a list of integers or strings", "int64"),
        (LIST, pa.array([[0.5], [], []]), "a list of", "list<element: double>"),
        (DIRECT_LIST, STRING_LISTS, "a list of integers", "list<element: string>"),
        (DENSE, STRINGS, "a number or a bool", "string"),
        (DENSE, INTEGER_LISTS, "a number or a bool", "list<element: int64>"),
        (DENSE, INTEGERS.cast(pa.timestamp("us")), "a number or a bool", "timestamp[us]"),
        (VOCABULARY, FLOATS, "an integer or a string", "double"),
        (QUANTILES, STRINGS, "a number or a bool", "string"),
        (VECTOR, FLOATS, "a list of 2 numbers", "double"),
        (VECTOR, STRING_LISTS, "a list of 2 numbers", "list<element: string>"),
        (
            VECTOR | {"length": 3},
            VECTORS.cast(pa.list_(pa.float32(), 2)),
            "a list of 3 numbers",
            "fixed_size_list<element: float>[2]",
        ),
    ],
    ids=lambda item: str(item.type) if isinstance(item, pa.Array) else None,
)
def test_a_column_of_another_type_is_refused(
    tmp_path: Path, feature: dict[str, str], column: pa.Array, expected: str, found: str
) -> None:
    """Naming file, column, feature, what is expected and what is there."""
    file = write(tmp_path, x=column)
    message = refusal(config(tmp_path, {"f": feature | {"column": "x"}}))
    assert message.startswith(f"{file}: column x (feature f): expected ")
    assert expected in message
    assert f"found {found};" in message


@pytest.mark.parametrize("weights", [FLOATS, STRING_LISTS])
def test_weights_that_are_no_lists_of_numbers_are_refused(
    tmp_path: Path, weights: pa.Array
) -> None:
    """Naming their column and the feature; lists of any numbers are fine."""
    feature = LIST | {"weights": "w"}
    file = write(tmp_path, x=STRING_LISTS, w=weights)
    message = refusal(config(tmp_path, {"x": feature}))
    assert message.startswith(
        f"{file}: column w (weights of feature x): expected a list of numbers"
    )
    write(tmp_path, x=STRING_LISTS, w=INTEGER_LISTS)
    assert list_row_groups(config(tmp_path, {"x": feature}), split="train").num_examples == 3


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_a_label_or_sample_space_that_is_no_number_is_refused(tmp_path: Path, kind: str) -> None:
    """Both name the task."""
    file = write(tmp_path, user=INTEGERS, text=STRINGS)
    label = config(tmp_path, {"user": ID}, {"buy": {"kind": kind, "column": "text"}})
    assert f"{file}: column text (task buy): expected a number or a bool, found string" in refusal(
        label
    )
    task = {"kind": kind, "column": "click", "where": "text"}
    where = config(tmp_path, {"user": ID}, {"buy": task})
    assert f"{file}: column text (where of task buy): expected a number" in refusal(where)


@pytest.mark.parametrize(
    ("features", "tasks", "used_by"),
    [
        ({"usr": ID}, CLICK, "feature usr"),
        ({"user": ID}, {"usr": {"kind": "binary"}}, "task usr"),
        ({"user": ID}, {"click": {"kind": "binary", "where": "usr"}}, "where of task click"),
    ],
)
def test_a_missing_column_is_refused_with_the_nearest_name(
    tmp_path: Path, features: dict[str, Any], tasks: dict[str, Any], used_by: str
) -> None:
    """Whether a feature, a label or a sample space needs it."""
    file = write(tmp_path, user=INTEGERS)
    message = refusal(config(tmp_path, features, tasks))
    assert message.startswith(f"{file}: no column usr ({used_by}); expected ")
    assert message.endswith("did you mean user?")


def test_a_feature_and_a_task_of_one_name_read_their_own_columns() -> None:
    """A past click as a feature beside the click to predict."""
    both = config(None, {"click": {"kind": "dense", "column": "past"}})
    assert {"past", "click"} <= set(read_columns(both))


def test_a_missing_column_unlike_any_other_is_refused_with_all_names(tmp_path: Path) -> None:
    """There is no nearest name to give."""
    write(tmp_path, user=INTEGERS)
    assert refusal(config(tmp_path, {"zzz": ID})).endswith("there are: click, user")


def test_every_file_is_checked(tmp_path: Path) -> None:
    """The one that differs is named, be it the last."""
    table = pa.table({"user": [1], "click": [1]})
    odd = pa.table({"user": [1.5], "click": [1]})
    write_groups(tmp_path, split="train", files=[[table], [table], [odd]])
    assert refusal(config(tmp_path, {"user": ID})).startswith(
        f"{tmp_path}/train/part-00002.parquet: column user"
    )


def test_a_log_without_rows_is_refused(tmp_path: Path) -> None:
    """Files and row groups without a row are no log."""
    empty = pa.table({"user": pa.array([], pa.int64()), "click": pa.array([], pa.int8())})
    write_groups(tmp_path, split="train", files=[[empty], [empty, empty]])
    message = refusal(config(tmp_path, {"user": ID}))
    assert message == f"{tmp_path}/train: the log is empty: 2 files, 0 rows"


def test_one_file_is_not_called_files(tmp_path: Path) -> None:
    """Counts go with their nouns."""
    empty = pa.table({"user": pa.array([], pa.int64()), "click": pa.array([], pa.int8())})
    write_groups(tmp_path, split="train", files=[[empty]])
    assert refusal(config(tmp_path, {"user": ID})).endswith("the log is empty: 1 file, 0 rows")


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    """Parquet's footer comes last, so half a file has none."""
    write_toy_log(tmp_path, splits={"train": ((30,), (30,))})
    file = tmp_path / "train/part-00001.parquet"
    content = file.read_bytes()
    data = DataConfig.model_validate(toy_recipe(tmp_path)["data"])
    for end in (0, 3, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:end])
        message = refusal(data, StorageError)
        assert message.startswith(f"{file}: not a readable Parquet file")
        assert "truncated" in message


def test_a_root_that_is_not_there_is_named(tmp_path: Path) -> None:
    """With the key that names it, and how to get a log."""
    message = refusal(config(tmp_path / "none", {"user": ID}), StorageError)
    assert message.startswith(f"{tmp_path}/none: does not exist (data.root)")
    assert "polytower generate" in message


def test_a_recipe_without_a_root_is_refused() -> None:
    """The message shows how to give one."""
    assert refusal(config(None, {"user": ID}), InputError).startswith("data.root: is not set")


def test_a_missing_split_is_refused_with_those_that_are_there(tmp_path: Path) -> None:
    """An empty folder is no split either."""
    table = pa.table({"user": [1], "click": [1]})
    write_groups(tmp_path, split="test", files=[[table]])
    (tmp_path / "train").mkdir()
    data = config(tmp_path, {"user": ID})
    assert has_split(data, split="test")
    assert not has_split(data, split="train")
    assert not has_split(data, split="valid")
    message = refusal(data, StorageError)
    assert message.startswith(f"{tmp_path}/train: no *.parquet file there")
    assert message.endswith("(found: test/)")


def test_a_file_of_another_format_is_named(tmp_path: Path) -> None:
    """CSV under a Parquet name."""
    write(tmp_path, user=INTEGERS)
    file = tmp_path / "train/part-00001.parquet"
    file.write_text("user,click\n1,0\n")
    message = refusal(config(tmp_path, {"user": ID}), StorageError)
    assert message.startswith(f"{file}: not a readable Parquet file")


def test_footers_agree_with_what_the_files_hold(tmp_path: Path) -> None:
    """Against reading every row group."""
    write_toy_log(tmp_path)
    data = DataConfig.model_validate(toy_recipe(tmp_path)["data"])
    groups = list_row_groups(data, split="train")
    read = [
        pq.ParquetFile(groups.files[file].path).read_row_group(int(index)).num_rows
        for file, index in zip(groups.file_G, groups.index_G, strict=True)
    ]
    np.testing.assert_array_equal(groups.num_rows_G, read)
