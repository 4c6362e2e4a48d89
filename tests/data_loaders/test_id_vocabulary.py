"""Known ids, against a dictionary of Python."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loaders import hashing
from data_loaders.errors import SchemaError, StorageError
from data_loaders.id_vocabulary import IdVocabulary, digest_of, read_vocabulary

SIGNED = [pa.int8(), pa.int16(), pa.int32(), pa.int64()]
UNSIGNED = [pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
EDGES = [0, 1, -1, 127, 255, 2**31, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)]


def naive_rows(vocabulary: list[Any], ids: list[Any]) -> list[int]:
    row_of: dict[Any, int] = {}
    for place, known in enumerate(vocabulary):
        row_of.setdefault(known, place + 2)
    return [row_of.get(item, 1) for item in ids]


def fitting(values: list[int], kind: pa.DataType) -> list[int]:
    """Those that an array of this type can hold."""
    info = np.iinfo(kind.to_pandas_dtype())
    return [value for value in values if info.min <= value <= info.max]


INTEGERS = st.lists(st.integers(-5, 9) | st.sampled_from(EDGES), max_size=12)


@settings(deadline=None)
@given(
    INTEGERS,
    INTEGERS,
    st.sampled_from([pa.int64(), pa.uint64()]),
    st.sampled_from(SIGNED + UNSIGNED),
)
def test_integers_have_the_rows_of_a_dictionary(
    vocabulary: list[int], ids: list[int], known_type: pa.DataType, kind: pa.DataType
) -> None:
    """Whatever their width and sign: 2^64 - 1 is not -1, though their bits are the same."""
    vocabulary, ids = fitting(vocabulary, known_type), fitting(ids, kind)
    known = IdVocabulary(pa.array(vocabulary, known_type))
    rows = known.rows(pa.array(ids, kind), name="x")
    assert rows.dtype == np.int64
    assert rows.tolist() == naive_rows(vocabulary, ids)


TEXTS = st.lists(st.text(max_size=2), max_size=12)


@settings(deadline=None)
@given(TEXTS, TEXTS, st.sampled_from([pa.string(), pa.large_string(), None]))
def test_strings_have_the_rows_of_a_dictionary(
    vocabulary: list[str], ids: list[str], kind: pa.DataType | None
) -> None:
    """Plain, large, and as a dictionary; an id that stands twice has its first row."""
    column = pa.array(ids, kind or pa.string())
    column = column if kind is not None else column.dictionary_encode()
    known = IdVocabulary(pa.array(vocabulary, pa.string()))
    assert known.rows(column, name="x").tolist() == naive_rows(vocabulary, ids)


def test_two_strings_of_one_hash_are_not_taken_for_one_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a hash of one bit the first of each half is known; of the others none has its row."""

    def halved(_text: np.ndarray, offsets: np.ndarray, *_keys: Any) -> np.ndarray:
        return (np.diff(offsets) % 2).astype(np.uint64)

    monkeypatch.setattr(hashing, "_sip_hashes", halved)
    known = IdVocabulary(pa.array(["a", "bb", "c", "dd"]))
    rows = known.rows(pa.array(["a", "bb", "c", "dd", "e", "ff", ""]), name="x")
    assert rows.tolist() == [2, 3, 1, 1, 1, 1, 1]


def test_threads_look_up_at_once() -> None:
    """Row groups are encoded by several threads with one vocabulary."""
    random = np.random.default_rng(0)
    names = [f"id-{index}" for index in range(5000)]
    for vocabulary in (pa.array(names), pa.array(random.permutation(5000))):
        known = IdVocabulary(vocabulary)
        columns = [vocabulary.take(pa.array(random.integers(0, 5000, 3000))) for _ in range(16)]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(functools.partial(known.rows, name="x"), columns))
        for column, rows in zip(columns, found, strict=True):
            assert vocabulary.take(pa.array(rows - 2)).equals(column)


@pytest.mark.parametrize(
    ("vocabulary", "ids", "message"),
    [
        ([1, 2], ["a"], "column x: holds strings and its vocabulary integers"),
        (["a"], [1], "column x: holds integers and its vocabulary strings"),
    ],
)
def test_ids_of_another_kind_than_the_vocabulary_are_refused(
    vocabulary: list[Any], ids: list[Any], message: str
) -> None:
    """All of them would count as unknown, in silence."""
    with pytest.raises(SchemaError, match=message):
        IdVocabulary(pa.array(vocabulary)).rows(pa.array(ids), name="x")
    nothing = IdVocabulary(pa.array(vocabulary[:0], pa.string()))
    assert nothing.rows(pa.array(ids), name="x").tolist() == [1]


def write_counts(path: Path, ids: list[Any], counts: list[Any]) -> str:
    pq.write_table(pa.table({"id": ids, "count": counts}), path)
    return str(path)


@pytest.mark.parametrize(
    ("min_count", "max_ids", "kept"),
    [(1, 9, "abcd"), (3, 9, "ab"), (1, 3, "abc"), (9, 9, "ab"), (10, 9, "a"), (99, 9, "")],
)
def test_a_table_keeps_the_ids_that_are_frequent_enough_and_have_room(
    tmp_path: Path, min_count: int, max_ids: int, kept: str
) -> None:
    """The first ones of the file; `min_count` is the least count that stays."""
    uri = write_counts(tmp_path / "v.parquet", list("abcd"), [10, 9, 2, 1])
    known = read_vocabulary(uri, digest=digest_of(uri), min_count=min_count, max_ids=max_ids)
    assert len(known) == len(kept)
    expected = naive_rows(list(kept), list("abcde"))
    assert known.rows(pa.array(list("abcde")), name="x").tolist() == expected


def test_a_vocabulary_that_was_written_anew_is_refused(tmp_path: Path) -> None:
    """Its ids would have other rows than those that the model was trained with."""
    uri = write_counts(tmp_path / "v.parquet", [1, 2], [2, 1])
    digest = digest_of(uri)
    write_counts(tmp_path / "v.parquet", [2, 1], [2, 1])
    with pytest.raises(
        SchemaError, match=rf"v\.parquet: .*digest {digest_of(uri)}, expected {digest}"
    ):
        read_vocabulary(uri, digest=digest, min_count=1, max_ids=9)


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ({"id": [1.5], "count": [1]}, "id: double, count: int64"),
        ({"id": [1, None], "count": [1, 1]}, "id: int64, count: int64"),
        ({"id": ["a"], "count": ["b"]}, "id: string, count: string"),
        ({"id": ["a"]}, "id: string"),
        ({"name": ["a"]}, "neither"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_refused(
    tmp_path: Path, table: dict[str, Any], found: str
) -> None:
    """In one line that says which columns it should have."""
    path = tmp_path / "v.parquet"
    pq.write_table(pa.table(table), path)
    digest = digest_of(str(path))
    with pytest.raises(SchemaError, match=rf"^{path}: not a vocabulary; .*found {found}$"):
        read_vocabulary(str(path), digest=digest, min_count=1, max_ids=9)


def test_a_vocabulary_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """Missing, or no Parquet file at all."""
    with pytest.raises(StorageError, match="no such file"):
        digest_of(str(tmp_path / "v.parquet"))
    (tmp_path / "v.parquet").write_text("ids\n")
    uri = str(tmp_path / "v.parquet")
    with pytest.raises(SchemaError, match="not a readable vocabulary"):
        read_vocabulary(uri, digest=digest_of(uri), min_count=1, max_ids=9)
