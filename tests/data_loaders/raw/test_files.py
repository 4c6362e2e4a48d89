"""Finding the files of a raw log, and reading them block by block."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_loaders.errors import SchemaError, StorageError
from data_loaders.raw import files as raw_files
from data_loaders.raw.columns import RawColumn
from data_loaders.raw.files import list_files, list_parts
from data_loaders.raw.rows import Block, read_part

USER = RawColumn("user", "text", is_written=True)
SIZES = (20, 64, 8 * 2**20)


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def blocks_of(*sources: Path | str, block_bytes: int = 2**20) -> list[Block]:
    parts = list_parts(list_files([str(source) for source in sources]))
    return [
        block for part in parts for block in read_part(part, columns=None, block_bytes=block_bytes)
    ]


def users_of(blocks: list[Block]) -> list[tuple[int, str | None]]:
    """Row number and user of each well-formed row."""
    return [
        pair
        for block in blocks
        for pair in zip(
            block.numbers_R.tolist(),
            block.rows.cells(USER, missing=[""], list_separator="|").values.to_pylist(),
            strict=True,
        )
    ]


def malformed_of(blocks: list[Block]) -> list[tuple[int, str]]:
    return [(item.number, item.text) for block in blocks for item in block.malformed]


def test_sources_are_files_folders_and_globs(tmp_path: Path) -> None:
    """Each file once, by path; hidden ones of a folder and empty ones are left out."""
    for name in ("b.csv", "a.csv", "deep/er/c.csv", "deep/d.csv", "_SUCCESS", ".x/e.csv"):
        write(tmp_path / name, "user\n1\n")
    write(tmp_path / "empty.csv", "")

    def found(*sources: str) -> list[str]:
        files = list_files([f"{tmp_path}/{source}".rstrip("/") for source in sources])
        return [file.path[len(str(tmp_path)) + 1 :] for file in files]

    everything = ["a.csv", "b.csv", "deep/d.csv", "deep/er/c.csv", "empty.csv"]
    assert found("") == everything
    assert found("*.csv") == ["a.csv", "b.csv", "empty.csv"]
    assert found("**/*.csv")[1:] == everything  # the first one lies in the hidden folder
    assert found("deep/*/*.csv") == ["deep/er/c.csv"]
    assert found("b.csv", "*.csv") == ["b.csv", "a.csv", "empty.csv"]
    assert len(list_parts(list_files([str(tmp_path)]))) == 4


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("none/*.csv", StorageError, "no such file, folder or match"),
        ("none", StorageError, "no such file, folder or match"),
        ("log.txt", SchemaError, "log.txt: unknown ending; expected .csv"),
        ("twice.csv", SchemaError, "has the column a more than once"),
        ("no.parquet", StorageError, "no.parquet: not a readable Parquet file"),
    ],
)
def test_files_that_cannot_be_read_are_refused_by_name(
    tmp_path: Path, source: str, error: type[Exception], message: str
) -> None:
    """Before anything is written."""
    write(tmp_path / "log.txt", "x")
    write(tmp_path / "twice.csv", "a,a\n1,2\n")
    write(tmp_path / "no.parquet", "x")
    with pytest.raises(error, match=message):
        list_parts(list_files([str(tmp_path / source)]))


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
@pytest.mark.parametrize("block_bytes", SIZES)
def test_rows_of_csv_keep_their_numbers(tmp_path: Path, ending: str, block_bytes: int) -> None:
    """Quoted line breaks, empty lines, and rows of another width, whatever the block size."""
    text = 'user,x\n1,a\n\n2\n"3\n3","q ""r"""\n4,b,c\n5,\n6,"|"\n7\n'
    blocks = blocks_of(write(tmp_path / f"log.{ending}", text), block_bytes=block_bytes)
    assert users_of(blocks) == [(1, "1"), (3, "3\n3"), (5, "5"), (6, "6")]
    assert malformed_of(blocks) == [(2, "2"), (4, "4,b,c"), (7, "7")]


def test_bytes_that_are_no_text_spoil_their_row_alone(tmp_path: Path) -> None:
    """The rows around it are read, and what is shown of it can be written."""
    path = write(tmp_path / "log.csv", b"user,x\n1,a\n\xff,b\n3,c\n\xff\n")
    [block, *_] = blocks = blocks_of(path)
    cells = block.rows.cells(USER, missing=[""], list_separator="|")
    assert cells.values.to_pylist() == ["1", None, "3"]
    assert cells.wrong_R.tolist() == [False, True, False]
    [record] = block.rows.records(cells.wrong_R.nonzero()[0])
    assert record == {"user": "\ufffd", "x": "b"}
    assert [number for number, _ in malformed_of(blocks)] == [4]


@pytest.mark.parametrize("ending", ["jsonl", "ndjson.gz", "json"])
@pytest.mark.parametrize("block_bytes", SIZES)
def test_lines_of_json_keep_their_numbers(tmp_path: Path, ending: str, block_bytes: int) -> None:
    """Lines that hold no object are told apart from those that do."""
    lines = [
        '{"user": "a"}',
        "",
        '{"user": 7, "x": [1]}',
        "{user: 1}",
        "[1]",
        '{"user": "\\ud800"}',
        '{"x": null}',
        '{"user": 1.0}',
        '{"user": "b", "x": ' + 100_000 * "[" + 100_000 * "]" + "}",
    ]
    blocks = blocks_of(write(tmp_path / f"log.{ending}", "\n".join(lines)), block_bytes=block_bytes)
    assert users_of(blocks) == [(1, "a"), (3, "7"), (7, None), (8, "1")]
    assert [number for number, _ in malformed_of(blocks)] == [4, 5, 6, 9]


def test_json_lists_and_objects_are_no_scalars(tmp_path: Path) -> None:
    """The text of a list is no id."""
    rows: list[Any] = [["a"], {"a": 1}, "a", True, None]
    text = "".join(json.dumps({"user": value}) + "\n" for value in rows)
    [block] = blocks_of(write(tmp_path / "log.jsonl", text))
    scalars = block.rows.cells(USER, missing=[""], list_separator="|")
    assert scalars.wrong_R.tolist() == [True, True, False, False, False]
    assert scalars.values.to_pylist()[2:] == ["a", "true", None]
    column = RawColumn("user", "texts", is_written=True)
    lists = block.rows.cells(column, missing=[""], list_separator="|")
    assert lists.wrong_R.tolist() == [False, True, False, False, False]
    assert lists.values.to_pylist()[0] == ["a"]


def test_parquet_is_cut_into_parts_of_whole_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every row once, with its number in the file."""
    monkeypatch.setattr(raw_files, "PART_ROWS", 25)
    table = pa.table({"user": range(100), "x": [0.5] * 100})
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=10)
    parts = list_parts(list_files([str(tmp_path)]))
    assert [part.row_groups for part in parts] == [(0, 1, 2), (3, 4, 5), (6, 7, 8), (9,)]
    assert [part.index for part in parts] == [0, 1, 2, 3]
    assert users_of(blocks_of(tmp_path)) == [(row + 1, str(row)) for row in range(100)]


def test_a_file_that_breaks_off_is_named(tmp_path: Path) -> None:
    """As an interrupted copy leaves it."""
    path = tmp_path / "log.csv.gz"
    content = gzip.compress(b"user\n" + b"".join(b"%d\n" % n for n in range(100_000)))
    path.write_bytes(content[:-2000])
    with pytest.raises((SchemaError, StorageError), match=r"log\.csv\.gz: "):
        blocks_of(path)
