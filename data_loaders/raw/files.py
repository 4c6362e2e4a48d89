"""The files of a raw log: found by path, folder or glob, told apart by their ending, and cut into
parts that are read side by side.

    .csv  .jsonl  .ndjson  .json (a JSON object per line), each also with .gz       one part
    .parquet                                                       a part per few row groups
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import pyarrow.fs as pafs

from data_loaders.dataset import open_parquet
from data_loaders.errors import SchemaError, StorageError
from data_loaders.raw.csv_files import first_columns
from data_loaders.raw.json_lines import first_keys
from data_loaders.storage import Location, locate

Format = Literal["csv", "json", "parquet"]
ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".csv.gz": "csv",
    ".jsonl": "json",
    ".jsonl.gz": "json",
    ".ndjson": "json",
    ".ndjson.gz": "json",
    ".json": "json",
    ".json.gz": "json",
    ".parquet": "parquet",
}

HEAD_THREADS = 16
# of Parquet: large enough to be worth a task, small enough to keep every core busy
PART_ROWS = 1_000_000
PART_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Part:
    """What one task reads: a file, or some row groups of one.

    Attributes:
        index: in the order of the input.
        columns: names in the file; of JSON lines, those of its first lines.
        row_groups: of a Parquet file.
        first_row: rows of the file before this part.
        num_bytes: to read, compressed as they lie.
    """

    index: int
    uri: str
    format: Format
    columns: tuple[str, ...]
    num_bytes: int
    row_groups: tuple[int, ...] = ()
    first_row: int = 0


def list_files(sources: Sequence[str]) -> list[Location]:
    """The files in the order of `sources`, within each by path, each once; empty ones left out.

    Args:
        sources: paths or URIs of files, of folders (read to any depth, but for names that begin
            with `.` or `_`), or with `*` and `**`.

    Raises:
        StorageError: a source has no files.
        SchemaError: a file's ending is unknown.
    """
    files: dict[str, Location] = {}
    for source in sources:
        found = sorted(_matches(source), key=lambda file: file.path)
        if not found:
            raise StorageError(f"--source {source}: no such file, folder or match")
        for file in found:
            format_of(file.name, uri=file.uri)
            files.setdefault(file.path, file)
    return list(files.values())


def list_parts(files: Sequence[Location]) -> list[Part]:
    """Cuts the files into parts; the same files give the same parts.

    Raises:
        StorageError: a file cannot be read.
        SchemaError: a file is not what its ending says.
    """
    with ThreadPoolExecutor(HEAD_THREADS) as pool:
        by_file = list(pool.map(_parts_of, files))
    parts = [part for parts in by_file for part in parts]
    return [Part(**{**vars(part), "index": index}) for index, part in enumerate(parts)]


def format_of(name: str, *, uri: str) -> Format:
    """What a file's ending says."""
    for ending, found in ENDINGS.items():
        if name.lower().endswith(ending):
            return found
    raise SchemaError(
        f"{uri}: unknown ending; expected {', '.join(ENDINGS)}; "
        "give --source a glob that leaves other files out, such as 'raw/*.csv'"
    )


def _matches(source: str) -> list[Location]:
    if "*" in source:
        folder, pattern = _before_glob(source)
        expression = _glob_expression(pattern)
        return [
            file
            for file in _files_below(folder)
            if re.fullmatch(expression, file.path[len(folder.path.rstrip("/")) + 1 :])
        ]
    location = locate(source)
    with location.reporting("reached"):
        kind = location.filesystem.get_file_info(location.path).type
    if kind == pafs.FileType.File:
        return [location]
    if kind == pafs.FileType.NotFound:
        return []
    hidden = re.compile(r"(.*/)?[._]")
    prefix = len(location.path.rstrip("/")) + 1
    return [file for file in _files_below(location) if not hidden.match(file.path[prefix:])]


def _before_glob(source: str) -> tuple[Location, str]:
    """The folder above the first `*`, and the pattern below it."""
    before, _, _ = source.partition("*")
    folder, slash, _ = before.rpartition("/")
    pattern = source[len(folder) + len(slash) :]
    return locate(folder or slash or "."), pattern


def _glob_expression(pattern: str) -> str:
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}
    return "".join(
        words.get(token) or re.escape(token) for token in re.split(r"(\*\*/|\*\*|\*)", pattern)
    )


def _files_below(folder: Location) -> list[Location]:
    selector = pafs.FileSelector(folder.path, allow_not_found=True, recursive=True)
    with folder.reporting("listed"):
        infos = folder.filesystem.get_file_info(selector)
    prefix = len(folder.path.rstrip("/")) + 1
    return [folder.child(info.path[prefix:]) for info in infos if info.is_file]


def _parts_of(file: Location) -> list[Part]:
    num_bytes = file.num_bytes()
    if not num_bytes:
        return []
    kind = format_of(file.name, uri=file.uri)
    if kind == "parquet":
        return _parquet_parts(file)
    with file.reporting("read"):
        columns = HEADS[kind](file)
    return [Part(0, file.uri, kind, _distinct(columns, file=file), num_bytes)]


def _parquet_parts(file: Location) -> list[Part]:
    with open_parquet(file) as parquet:
        columns = _distinct(parquet.schema_arrow.names, file=file)
        metadata = parquet.metadata
    parts, groups, first_row, num_rows, num_bytes = [], [], 0, 0, 0
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        groups.append(index)
        num_rows += group.num_rows
        num_bytes += sum(
            group.column(column).total_compressed_size for column in range(group.num_columns)
        )
        is_last = index == metadata.num_row_groups - 1
        if is_last or num_rows >= PART_ROWS or num_bytes >= PART_BYTES:
            parts.append(Part(0, file.uri, "parquet", columns, num_bytes, tuple(groups), first_row))
            first_row, groups, num_rows, num_bytes = first_row + num_rows, [], 0, 0
    return parts


HEADS: dict[Format, Callable[[Location], Iterable[str]]] = {
    "csv": first_columns,
    "json": first_keys,
}


def _distinct(columns: Iterable[str], *, file: Location) -> tuple[str, ...]:
    names = tuple(columns)
    for name in names:
        if names.count(name) > 1:
            raise SchemaError(f"{file.uri}: has the column {name} more than once")
    return names
