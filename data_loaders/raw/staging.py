"""The steps of `polytower prepare`, as functions of files: each reads some and writes others.

    clean_part       raw part U            -> clean-U, keys-U-G, rejected/part-U    per part U
    find_duplicates  keys-*, row group P   -> duplicates-P                          per hash range P
    assign_splits    clean-U, duplicates-* -> splits-U, rejected/duplicates-U       per part U
    write_file       clean-*, splits-*     -> train/part-N, ...                     per file N

A row is known by its part and its place among the part's clean rows, so what is written depends on
the raw files and the recipe alone, not on which step ran where or when. Files are named by what
they hold: a step that is done twice writes them twice. A step yields how much it has done (bytes or
rows) and, at last, its result.

Shape legend: R rows, K the two halves of a key, G row groups, S splits.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_loaders.dataset import SPLITS, RowGroupWriter, Split, open_parquet
from data_loaders.exact_numbers import ValueCounts
from data_loaders.raw.cleaning import (
    ROW_NUMBER,
    SCORE,
    clean,
    duplicates_as_rejected,
)
from data_loaders.raw.files import Part
from data_loaders.raw.rows import BLOCK_ROWS, read_part
from data_loaders.raw.staged_files import (
    Job,
    KeyWriter,
    RejectedRows,
    clean_file,
    duplicates_file,
    key_file,
    splits_file,
)
from data_loaders.statistics import ColumnKind, Fitter
from data_loaders.storage import locate

# Rows of duplicates-P, which is read a part at a time.
DUPLICATES_PER_ROW_GROUP = 8_192

DUPLICATES_SCHEMA = pa.schema({"part": pa.int32(), "row": pa.int64()})
SPLITS_SCHEMA = pa.schema({"split": pa.int8()})
NO_SPLIT = -1


@dataclass(frozen=True)
class CleanPart:
    """A cleaned part.

    Attributes:
        num_rows: clean ones.
        num_bytes: of clean-U.
        num_key_files: of keys-U-G.
        rejected: rows by reason.
    """

    index: int
    uri: str
    num_rows: int
    num_bytes: int
    num_key_files: int
    rejected: dict[str, int]


@dataclass(frozen=True)
class DuplicatesFound:
    """What a hash range holds: the duplicates' number, and the scores of the rows that stay."""

    index: int
    num_duplicates: int
    scores: ValueCounts


@dataclass(frozen=True)
class SplitPart:
    """Rows of each split in each row group of clean-U: int64 (G, S)."""

    index: int
    num_rows_GS: np.ndarray


@dataclass(frozen=True)
class Piece:
    """Rows of a split within one row group of clean-U: `take` of them, behind the first `skip`."""

    part: int
    group: int
    skip: int
    take: int


@dataclass(frozen=True)
class FilePlan:
    """A file of the result."""

    target: str
    split: Split
    pieces: tuple[Piece, ...]
    rows_per_row_group: int
    fitted: dict[str, ColumnKind] = field(default_factory=dict)


def clean_part(part: Part, *, job: Job) -> Iterator[int | CleanPart]:
    """Reads a raw part and writes the rows that fit, their keys, and the rows that do not fit."""
    schema = job.schema.append(pa.field(ROW_NUMBER, pa.int64()))
    target = job.staged(clean_file(part.index))
    reasons: Counter[str] = Counter()
    keys = KeyWriter(part.index, job=job)
    rejected = RejectedRows(locate(job.rejected).child(f"part-{part.index:05d}.parquet"))
    wanted = None if job.prepare.unique is None else [column.name for column in job.columns]
    bytes_read = 0
    with (
        rejected,
        RowGroupWriter(
            target,
            schema=schema.append(pa.field(SCORE, pa.float64())),
            rows_per_row_group=BLOCK_ROWS,
        ) as writer,
    ):
        for block in read_part(part, columns=wanted, block_bytes=job.block_bytes):
            rows = clean(block, columns=job.columns, prepare=job.prepare, source=part.uri)
            writer.write(rows.table)
            keys.add(rows.keys_RK, scores=rows.table[SCORE])
            reasons.update(rows.rejected["reason"].to_pylist())
            rejected.write(rows.rejected)
            yield block.bytes_read - bytes_read
            bytes_read = block.bytes_read
    keys.flush()
    yield CleanPart(
        index=part.index,
        uri=part.uri,
        num_rows=keys.num_rows,
        num_bytes=target.num_bytes(),
        num_key_files=keys.num_files,
        rejected=dict(reasons),
    )


def find_duplicates(
    index: int, *, job: Job, parts: Sequence[CleanPart]
) -> Iterator[int | DuplicatesFound]:
    """Writes which rows of a hash range equal one before them, by part and row."""
    has_time = job.prepare.split.time is not None
    names = ["first", "second", "row", *(["score"] if has_time else [])]
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in (*names, "part")}
    for part in parts:
        for number in range(part.num_key_files):
            with open_parquet(job.staged(key_file(part.index, number))) as parquet:
                table = parquet.read_row_group(index, columns=names)
            for name in names:
                pieces[name].append(table[name].to_numpy())
            pieces["part"].append(np.full(table.num_rows, part.index, np.int32))
            yield table.num_rows
    keys = {name: np.concatenate(pieces.pop(name)) for name in list(pieces)}
    # stable, so that of equal keys the first row of the input stays the first
    order = np.lexsort((keys["second"], keys["first"]))
    is_repeated = np.zeros(len(order), bool)
    if job.prepare.unique != []:
        is_equal = np.diff(keys["first"][order]) == 0
        is_equal &= np.diff(keys["second"][order]) == 0
        is_repeated[order[1:]] = is_equal
    columns = [keys[name][is_repeated] for name in DUPLICATES_SCHEMA.names]
    found = pa.table(columns, schema=DUPLICATES_SCHEMA)  # in the order of the input
    with RowGroupWriter(
        job.staged(duplicates_file(index)),
        schema=DUPLICATES_SCHEMA,
        rows_per_row_group=DUPLICATES_PER_ROW_GROUP,
    ) as writer:
        writer.write(found)
    scores = ValueCounts()
    if has_time:
        scores.add(keys["score"][~is_repeated])
    yield DuplicatesFound(index, found.num_rows, scores)


def assign_splits(
    part: CleanPart, *, job: Job, starts: tuple[float, float], ranges: Sequence[int]
) -> Iterator[int | SplitPart]:
    """Writes the split of each clean row of a part, and its duplicates as rejected rows.

    Args:
        starts: the least scores of valid and of test.
        ranges: hash ranges that hold duplicates.
    """
    repeated = np.zeros(part.num_rows, bool)
    for index in ranges:
        location = job.staged(duplicates_file(index))
        found = pq.read_table(
            location.path, filesystem=location.filesystem, filters=[("part", "=", part.index)]
        )
        repeated[found["row"].to_numpy()] = True
    counts, start = [], 0
    rejected = RejectedRows(locate(job.rejected).child(f"duplicates-{part.index:05d}.parquet"))
    with (
        rejected,
        open_parquet(job.staged(clean_file(part.index))) as clean_rows,
        RowGroupWriter(
            job.staged(splits_file(part.index)),
            schema=SPLITS_SCHEMA,
            rows_per_row_group=BLOCK_ROWS,
        ) as writer,
    ):
        for group in range(clean_rows.num_row_groups):
            score_R = clean_rows.read_row_group(group, columns=[SCORE])[SCORE].to_numpy()
            split_R = np.searchsorted(np.asarray(starts), score_R, side="right").astype(np.int8)
            repeated_R = repeated[start : start + len(score_R)]
            split_R[repeated_R] = NO_SPLIT
            start += len(score_R)
            counts.append([int((split_R == code).sum()) for code in range(len(SPLITS))])
            writer.write(pa.table({"split": split_R}, SPLITS_SCHEMA))
            if repeated_R.any():
                rows = clean_rows.read_row_group(group).filter(pa.array(repeated_R))
                rejected.write(duplicates_as_rejected(rows, source=part.uri))
            yield len(score_R)
    yield SplitPart(part.index, np.array(counts, np.int64).reshape(-1, len(SPLITS)))


def write_file(plan: FilePlan, *, job: Job) -> Iterator[int | tuple[Split, Fitter]]:
    """Writes a file of the result; returns its split and the statistics of its columns."""
    code = SPLITS.index(plan.split)
    fitter = Fitter(plan.fitted)
    with RowGroupWriter(
        locate(plan.target), schema=job.schema, rows_per_row_group=plan.rows_per_row_group
    ) as writer:
        for part, pieces in itertools.groupby(plan.pieces, key=lambda piece: piece.part):
            with (
                open_parquet(job.staged(splits_file(part))) as splits,
                open_parquet(job.staged(clean_file(part))) as clean_rows,
            ):
                for piece in pieces:
                    is_ours = pc.equal(splits.read_row_group(piece.group)["split"], code)
                    table = clean_rows.read_row_group(piece.group, columns=job.schema.names)
                    table = table.filter(is_ours).slice(piece.skip, piece.take)
                    fitter.add(table)
                    writer.write(table)
                    yield table.num_rows
    yield plan.split, fitter
