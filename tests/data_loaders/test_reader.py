"""The reader of row groups: what it keeps of the files."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_loaders.config import DataConfig
from data_loaders.errors import StorageError
from data_loaders.reader import FOOTERS_KEPT, PARSED_FOOTERS_KEPT, LogReader
from data_loaders.row_groups import list_row_groups

COLUMNS = ["row", "odd"]


def reader_of(root: Path, *, num_files: int) -> LogReader:
    """Of files that hold a row each: their number."""
    (root / "train").mkdir(parents=True)
    for index in range(num_files):
        table = pa.table({"row": [index], "odd": [index % 2]})
        pq.write_table(table, root / f"train/part-{index:05d}.parquet")
    tree = {
        "root": str(root),
        "features": {"row": {"kind": "id", "encoding": "direct"}},
        "tasks": {"odd": {"kind": "binary"}},
    }
    groups = list_row_groups(DataConfig.model_validate(tree), split="train")
    return LogReader(groups, columns=COLUMNS)


@pytest.fixture(autouse=True)
def few_objects() -> Iterator[None]:
    """Looking for what is alive passes over what is alive already."""
    gc.freeze()
    yield
    gc.unfreeze()


def num_parsed() -> int:
    return sum(type(item) is pq.FileMetaData for item in gc.get_objects())


def bytes_kept(root: Path, *, num_files: int) -> tuple[int, int]:
    """What a reader keeps after it has read all files: Arrow's bytes, and parsed footers."""
    reader = reader_of(root, num_files=num_files)
    gc.collect()
    bytes_before, parsed_before = pa.total_allocated_bytes(), num_parsed()
    for group in range(num_files):
        assert reader.read(group)["row"].to_pylist() == [group]
    gc.collect()
    return pa.total_allocated_bytes() - bytes_before, num_parsed() - parsed_before


def test_what_is_kept_of_footers_is_bounded_however_many_files(tmp_path: Path) -> None:
    """A few parsed, some as bytes; a log that has half as many files again keeps no more."""
    most_bytes, most_parsed = bytes_kept(tmp_path / "as-many", num_files=FOOTERS_KEPT)
    assert most_bytes > 0
    assert most_parsed == PARSED_FOOTERS_KEPT
    more_bytes, more_parsed = bytes_kept(tmp_path / "more", num_files=FOOTERS_KEPT * 3 // 2)
    assert more_bytes == pytest.approx(most_bytes, rel=0.02)
    assert more_parsed == PARSED_FOOTERS_KEPT


def test_a_file_of_the_same_size_is_known_by_its_footer(tmp_path: Path) -> None:
    """Also when the first one's footer has been read; what is written again as it was is read."""
    reader = reader_of(tmp_path, num_files=2)
    file, other = tmp_path / "train/part-00001.parquet", tmp_path / "other.parquet"
    content = file.read_bytes()
    assert reader.read(1)["row"].to_pylist() == [1]
    pq.write_table(pa.table({"row": [2], "odd": [0]}), other)
    assert other.stat().st_size == file.stat().st_size
    other.replace(file)
    with pytest.raises(StorageError, match=rf"{file}: is not the file that it was"):
        reader.read(1)
    file.write_bytes(content)
    assert reader.read(1)["row"].to_pylist() == [1]
