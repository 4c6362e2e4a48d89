"""Where the rows of a prepared log go: which split, which file, in row groups of what size.

Shape legend: G row groups, S splits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from data_loaders.dataset import SPLITS
from data_loaders.errors import InputError
from data_loaders.exact_numbers import ValueCounts
from data_loaders.prepare_config import PrepareConfig, SplitConfig
from data_loaders.raw.staging import FilePlan, Piece, SplitPart
from data_loaders.statistics import ColumnKind
from data_loaders.storage import Location

# A row group is read at once; small ones cost more to find than to read.
ROW_GROUP_ROWS = (1_024, 65_536)
ROW_GROUP_BYTES = 64 * 2**20
FILE_ROWS = 2**20
FILE_BYTES = 512 * 2**20


def split_starts(split: SplitConfig, *, scores: ValueCounts) -> tuple[float, float]:
    """The least scores of valid and of test.

    Args:
        split: the fractions.
        scores: of all rows, where time decides; else they are evenly spread in [0, 1).
    """
    if split.time is None:
        return 1 - split.valid - split.test, 1 - split.test
    num_rows = int(scores.count_K.sum())
    num_test = math.floor(num_rows * split.test)
    num_valid = math.floor(num_rows * split.valid)
    test = scores.at_rank(num_rows - num_test) if num_test else math.inf
    held_out = num_test + num_valid
    return (scores.at_rank(num_rows - held_out) if num_valid else test), test


def plan_files(
    parts: Sequence[SplitPart],
    *,
    root: Location,
    prepare: PrepareConfig,
    num_streams: int,
    bytes_per_row: float,
    fitted: dict[str, ColumnKind],
) -> list[FilePlan]:
    """The files of all splits; rows keep the order of the input.

    Args:
        parts: in the order of the input.
        root: of the data set.
        prepare: may say how large row groups and files are.
        num_streams: of the loader; a row group for each, where there are rows enough.
        bytes_per_row: compressed.
        fitted: columns whose statistics the training split's files yield.

    Raises:
        InputError: the training split is empty.
    """
    plans = []
    for code, split in enumerate(SPLITS):
        num_rows = sum(int(part.num_rows_GS[:, code].sum()) for part in parts)
        if not num_rows and split == "train":
            raise InputError(
                "prepare.split: no row is left for train, because all have the same time or the "
                "same value of `by`, or are too few; correct the split"
            )
        in_group = prepare.rows_per_row_group or _rows_per_row_group(
            num_rows, num_streams=num_streams, bytes_per_row=bytes_per_row
        )
        in_file = prepare.rows_per_file or _rows_per_file(in_group, bytes_per_row=bytes_per_row)
        for index, pieces in enumerate(_cut(_pieces(parts, code=code), num_rows=in_file)):
            plans.append(
                FilePlan(
                    target=root.child(f"{split}/part-{index:05d}.parquet").uri,
                    split=split,
                    pieces=tuple(pieces),
                    rows_per_row_group=in_group,
                    fitted=fitted if split == "train" else {},
                )
            )
    return plans


def _rows_per_row_group(num_rows: int, *, num_streams: int, bytes_per_row: float) -> int:
    least, most = ROW_GROUP_ROWS
    most = max(1, min(most, int(ROW_GROUP_BYTES / bytes_per_row)))
    return min(most, max(least, math.ceil(num_rows / num_streams)))


def _rows_per_file(rows_per_row_group: int, *, bytes_per_row: float) -> int:
    """Whole row groups."""
    num_rows = min(FILE_ROWS, int(FILE_BYTES / bytes_per_row))
    return max(1, num_rows // rows_per_row_group) * rows_per_row_group


def _pieces(parts: Sequence[SplitPart], *, code: int) -> Iterator[Piece]:
    for part in parts:
        counts_G = part.num_rows_GS[:, code]
        for group in np.flatnonzero(counts_G):
            yield Piece(part.index, int(group), skip=0, take=int(counts_G[group]))


def _cut(pieces: Iterator[Piece], *, num_rows: int) -> Iterator[list[Piece]]:
    """The pieces in files of `num_rows` rows, the last one shorter."""
    held: list[Piece] = []
    room = num_rows
    for whole in pieces:
        piece = whole
        while piece.take >= room:
            yield [*held, Piece(piece.part, piece.group, piece.skip, room)]
            piece = Piece(piece.part, piece.group, piece.skip + room, piece.take - room)
            held, room = [], num_rows
        if piece.take:
            held.append(piece)
            room -= piece.take
    if held:
        yield held
