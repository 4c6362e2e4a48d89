"""The ids that an embedding table knows, looked up many at once.

    row 0  missing        row 1  rare or unknown        row 2, 3, ...  the vocabulary, in its order

Shape legend: N ids to look up, V ids of the vocabulary.
"""

from __future__ import annotations

import functools
import hashlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_loaders.errors import SchemaError
from data_loaders.hashing import hash_ids
from data_loaders.storage import first_line, locate

RARE_ROW = 1
FIRST_ROW = 2


class IdVocabulary:
    """Known ids and their rows; several threads may look up at once.

    A hash table of 64-bit keys: integers themselves, strings by their hash, and then compared,
    because two strings may have one hash.

    Args:
        ids: integers or strings, not null; id i has row i + 2. Of one that stands twice, the first
            place counts.
    """

    def __init__(self, ids: pa.Array) -> None:
        self._is_unsigned = pa.types.is_uint64(ids.type)
        self._strings = None if pa.types.is_integer(ids.type) else ids.cast(pa.large_string())
        keys_V = self._keys(ids)
        self._places = np.flatnonzero(~pd.Index(keys_V).duplicated())
        self._index = pd.Index(keys_V[self._places])
        self._index.get_indexer(keys_V[:1])  # builds the table now, for all threads

    def __len__(self) -> int:
        return len(self._places)

    def rows(self, column: pa.Array, *, name: str) -> np.ndarray:
        """Table rows, int64 (N,), of ids without nulls; 1 for those that are not known.

        Args:
            column: integers, strings, or a dictionary of strings.
            name: of the column, for messages.

        Raises:
            SchemaError: these are strings and the vocabulary's integers, or the other way round.
        """
        if not len(self):
            return np.full(len(column), RARE_ROW, np.int64)
        is_text = not pa.types.is_integer(column.type)
        if is_text != (self._strings is not None):
            kinds = ("strings", "integers") if is_text else ("integers", "strings")
            raise SchemaError(
                f"column {name}: holds {kinds[0]} and its vocabulary {kinds[1]}; "
                "write both with one type, or use encoding: hash"
            )
        if not is_text:
            return self._known_rows(column)
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        distinct = self._known_rows(column.dictionary)
        return distinct[column.indices.to_numpy(zero_copy_only=False)]

    def _known_rows(self, ids: pa.Array) -> np.ndarray:
        found_N = self._index.get_indexer(self._keys(ids))
        is_known_N = found_N >= 0
        places_N = self._places[np.where(is_known_N, found_N, 0)]
        if self._strings is not None:
            known = self._strings.take(pa.array(places_N))
            is_same = pc.equal(known, ids.cast(pa.large_string()))
            is_known_N &= is_same.to_numpy(zero_copy_only=False)
        elif self._is_unsigned != pa.types.is_uint64(ids.type):
            is_known_N &= self._keys(ids) >= 0  # -1 and 2^64 - 1 have the same bits
        return np.where(is_known_N, places_N + FIRST_ROW, RARE_ROW)

    def _keys(self, ids: pa.Array) -> np.ndarray:
        if self._strings is not None:
            # as a dictionary of themselves: hash_ids need not find out that they are distinct
            themselves = pa.array(np.arange(len(ids), dtype=np.int32))
            return hash_ids(pa.DictionaryArray.from_arrays(themselves, ids)).view(np.int64)
        return ids.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)


@functools.cache
def read_vocabulary(uri: str, *, digest: str, min_count: int, max_ids: int) -> IdVocabulary:
    """The ids of a vocabulary file that are frequent enough, as many as a table has rows for; read
    once a process.

    Args:
        uri: a Parquet file with the columns id and count, the most frequent first.
        digest: as `digest_of` gave it when the run began.
        min_count: rarer ids are left out.
        max_ids: to keep, the first ones.

    Raises:
        SchemaError: the file is another one now, or no vocabulary.
        StorageError: it cannot be read.
    """
    content = read_checked(uri, digest=digest)
    try:
        table = pq.ParquetFile(pa.BufferReader(content)).read(columns=["id", "count"])
    except (pa.ArrowException, OSError) as error:
        raise SchemaError(f"{uri}: not a readable vocabulary ({first_line(error)})") from error
    _check_columns(table, uri=uri)
    frequent = table.filter(pc.greater_equal(table["count"], min_count)).slice(0, max_ids)
    return IdVocabulary(frequent["id"].combine_chunks())


def _check_columns(table: pa.Table, *, uri: str) -> None:
    kinds = dict(zip(table.column_names, table.schema.types, strict=True))
    is_vocabulary = (
        len(kinds) == 2
        and (pa.types.is_integer(kinds["id"]) or _is_text(kinds["id"]))
        and pa.types.is_integer(kinds["count"])
        and not table["id"].null_count
    )
    if not is_vocabulary:
        found = ", ".join(f"{name}: {kind}" for name, kind in kinds.items())
        raise SchemaError(
            f"{uri}: not a vocabulary; expected the columns id (integers or strings, no null) and "
            f"count (integers), found {found or 'neither'}"
        )


def digest_of(uri: str) -> str:
    """Of a vocabulary file's bytes.

    Raises:
        StorageError: it cannot be read.
    """
    return _digest(locate(uri).read_bytes())


def read_checked(uri: str, *, digest: str) -> bytes:
    """A vocabulary file's bytes.

    Raises:
        SchemaError: the file is another one now.
        StorageError: it cannot be read.
    """
    content = locate(uri).read_bytes()
    found = _digest(content)
    if found != digest:
        raise SchemaError(
            f"{uri}: this vocabulary is not the one that the run began with (digest {found}, "
            f"expected {digest}): its ids would have other rows; restore the file"
        )
    return content


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _is_text(found: pa.DataType) -> bool:
    return bool(pa.types.is_string(found) or pa.types.is_large_string(found))
