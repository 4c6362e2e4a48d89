"""Data sets on disk: files of even size from tables of any size, and their description."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loaders.dataset import (
    DatasetInfo,
    SplitInfo,
    begin_dataset,
    parquet_files,
    read_dataset_info,
    write_dataset_info,
    write_split,
)
from data_loaders.errors import SchemaError, StorageError
from data_loaders.storage import locate


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=8).filter(any), st.integers(1, 50), st.integers(1, 50))
def test_a_split_is_its_tables_in_files_of_even_size(
    sizes: list[int], rows_per_file: int, rows_per_row_group: int
) -> None:
    """Rows keep their order; only the last file, and a file's last row group, are short."""
    total = sum(sizes)
    numbers = pa.table({"x": pa.array(range(total)), "y": [[n] * (n % 3) for n in range(total)]})
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    tables = (numbers.slice(start, size) for start, size in zip(starts, sizes, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        root = locate(folder)
        written = write_split(
            root,
            split="valid",
            tables=tables,
            rows_per_file=rows_per_file,
            rows_per_row_group=rows_per_row_group,
        )
        files = parquet_files(root, split="valid")
        metadata = [pq.read_metadata(file.path) for file in files]
        groups = [
            [item.row_group(index).num_rows for index in range(item.num_row_groups)]
            for item in metadata
        ]
        read = pa.concat_tables([pq.read_table(file.path) for file in files])
    full, rest = divmod(total, rows_per_file)
    assert written == total
    assert [file.name for file in files] == [f"part-{n:05d}.parquet" for n in range(len(files))]
    assert [item.num_rows for item in metadata] == [rows_per_file] * full + [rest] * (rest > 0)
    assert all(sizes[:-1] == [rows_per_row_group] * (len(sizes) - 1) for sizes in groups)
    assert read.equals(numbers)


def test_tables_are_written_as_they_come(tmp_path: Path) -> None:
    """A log larger than memory can be written: a file is there before the next table is made."""

    def tables() -> Any:
        for index in range(4):
            assert len(parquet_files(locate(str(tmp_path)), split="train")) == index
            yield pa.table({"x": [index] * 10})

    write_split(
        locate(str(tmp_path)),
        split="train",
        tables=tables(),
        rows_per_file=10,
        rows_per_row_group=10,
    )


INFO = DatasetInfo(
    name="toy",
    description="for tests: größer",
    splits={
        "train": SplitInfo(examples=10),
        "test": SplitInfo(examples=3, best={"click": {"auc": 0.75}, "watch": {"mse": 2.0}}),
    },
)


def test_the_description_is_read_back_as_written(tmp_path: Path) -> None:
    """Names, counts, and what the best model reaches."""
    root = locate(str(tmp_path))
    write_dataset_info(root, INFO)
    assert read_dataset_info(root) == INFO
    assert (tmp_path / "dataset.json").read_text().endswith("}\n")


def test_a_log_of_ones_own_needs_no_description(tmp_path: Path) -> None:
    """None, whether the folder is empty or not there."""
    assert read_dataset_info(locate(str(tmp_path))) is None
    assert read_dataset_info(locate(str(tmp_path / "none"))) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"name": "x"}', json.dumps(INFO.model_dump() | {"format": 2})]
)
def test_a_description_of_another_kind_is_named(tmp_path: Path, text: str) -> None:
    """Torn, of another format or of a later version."""
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(SchemaError, match="not a data set's description") as caught:
        read_dataset_info(locate(str(tmp_path)))
    assert str(caught.value).startswith(f"{tmp_path}/dataset.json: ")
    assert "\n" not in str(caught.value)


def test_a_folder_that_holds_anything_is_not_overwritten(tmp_path: Path) -> None:
    """An empty one, or none, is fine."""
    begin_dataset(locate(str(tmp_path / "none")), name="new")
    (tmp_path / "empty").mkdir()
    begin_dataset(locate(str(tmp_path / "empty")), name="new")
    with pytest.raises(StorageError, match="is not empty"):
        begin_dataset(locate(str(tmp_path / "empty")), name="new")


def test_a_data_set_whose_writing_was_interrupted_is_refused(tmp_path: Path) -> None:
    """Whatever files are there: `dataset.json` says so until it is complete."""
    root = locate(str(tmp_path / "log"))
    begin_dataset(root, name="new")
    with pytest.raises(SchemaError, match=r"log: this data set is incomplete"):
        read_dataset_info(root)
