"""JSON lines: a JSON object per line, as Python reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from data_loaders.storage import Location

HEAD_LINES = 1_000
HEAD_BYTES = 2**20


def open_text(file: Location) -> tuple[pa.NativeFile, pa.NativeFile]:
    """The content of a file that may be compressed (.gz), and the file as it lies, whose position
    tells how much of it has been read.
    """
    raw = file.filesystem.open_input_file(file.path)
    if file.name.lower().endswith(".gz"):
        return pa.CompressedInputStream(raw, "gzip"), raw
    return raw, raw


def blocks_of_lines(stream: pa.NativeFile, *, block_bytes: int) -> Iterator[list[bytes]]:
    """All lines, without their ends, in blocks of about `block_bytes`."""
    rest = b""
    while block := stream.read(block_bytes):
        *lines, rest = (rest + block).split(b"\n")
        if lines:
            yield lines
    if rest:
        yield [rest]


def parsed(line: bytes) -> dict[str, Any] | str:
    """The object of a line, or why there is none."""
    try:
        record = json.loads(line)
        if b"\\ud" in line.lower():  # half a surrogate pair is no text
            json.dumps(record, ensure_ascii=False).encode()
    except (ValueError, RecursionError):  # the latter of what is nested a thousand times
        return "not JSON"
    return record if isinstance(record, dict) else "not a JSON object"


def first_keys(file: Location) -> list[str]:
    """The keys of the first lines, each once."""
    keys: dict[str, None] = {}
    stream, raw = open_text(file)
    with raw, stream:
        lines = next(blocks_of_lines(stream, block_bytes=HEAD_BYTES), [])
    for line in lines[:HEAD_LINES]:
        record = parsed(line)
        if isinstance(record, dict):
            keys |= dict.fromkeys(record)
    return list(keys)
