"""From windows to batches, several steps at once.

    windows of the rank's streams              a round of S steps
    [. . . a a a a b b b b . .]   stream 0     step 0: a a a a A A A A   (B slots)
    [. A A A A B B B B . . . .]   stream 1     step 1: b b b b B B B B

Shape legend: S steps of a round, B examples on this rank, F id features, L list features, D dense
features, T tasks, N ids of the round, R rows of a part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from data_loaders.batch import InteractionBatch, id_feature_names
from data_loaders.config import DataConfig, IdFeature
from data_loaders.label_columns import LabelColumns
from data_loaders.memory import uninitialised, zeros
from data_loaders.placement import (
    PART,
    assign_slots,
    place_ids,
    place_lengths,
    place_lists,
    place_numbers,
)
from data_loaders.rows import EncodedRows
from data_loaders.streams import Cursor


@dataclass(frozen=True)
class Layout:
    """How many columns of each kind a batch has.

    Attributes:
        keys: of the ids, the `num_ids` single ones first.
        num_tasks: columns of labels, and of what else `LabelColumns` has.
        is_weighted: whether the ids of any list carry weights; then all ids do.
    """

    keys: tuple[str, ...]
    num_ids: int
    num_dense: int
    num_tasks: int
    is_weighted: bool

    @classmethod
    def of(cls, config: DataConfig) -> Layout:
        """The layout of a recipe's batches."""
        features = config.features.values()
        return cls(
            keys=tuple(id_feature_names(config)),
            num_ids=sum(isinstance(feature, IdFeature) for feature in features),
            num_dense=config.num_dense_inputs,
            num_tasks=LabelColumns.of(config).num_columns,
            is_weighted=config.has_id_weights,
        )

    @property
    def num_lists(self) -> int:
        return len(self.keys) - self.num_ids


@dataclass(frozen=True)
class Part:
    """R rows of a window that lie in one round.

    Attributes:
        rows: of the whole window.
        first: of them, where in the window it is.
        is_given_R: bool, False for a row that was skipped.
        first_place: of row `first` in its stream, counted from the round's first row.
        rows_per_step: that a step takes of the stream.
    """

    rows: EncodedRows
    first: int
    is_given_R: np.ndarray
    first_place: int
    rows_per_step: int


def collate(
    parts: Sequence[Part],
    *,
    layout: Layout,
    padded_sizes: Sequence[int],
    cursors: Sequence[Cursor],
) -> Iterator[InteractionBatch]:
    """Makes the batches of a round; in each, examples come first and padding behind.

    Args:
        parts: stream by stream, in the order of the rows in each.
        layout: of the parts' columns.
        padded_sizes: B of each step's batch.
        cursors: the position behind each step.
    """
    S, B = len(padded_sizes), max(padded_sizes)
    num_given_S = np.zeros(S, np.int64)
    sources = _Sources.of(parts, num_lists=layout.num_lists)
    where = assign_slots(sources.is_given_R, sources.parts, num_given_S)
    dense_SBD = zeros((S, B, layout.num_dense), np.float32)
    labels_SBT = uninitialised((S, B, layout.num_tasks), np.float32)
    labels_SBT.fill(np.nan)
    place_numbers(sources.addresses_KP[1], sources.parts, *where, dense_SBD)
    place_numbers(sources.addresses_KP[2], sources.parts, *where, labels_SBT)
    given_SB = np.arange(B) < num_given_S[:, None]
    ids = _Ids.place(sources, where, layout=layout, given_SB=given_SB)
    weights, dense, labels = (
        torch.from_numpy(array).unbind()
        for array in (given_SB.astype(np.float32), dense_SBD, labels_SBT)
    )
    for step, (size, cursor) in enumerate(zip(padded_sizes, cursors, strict=True)):
        yield InteractionBatch(
            ids=ids.of_step(step, size=size, keys=layout.keys),
            dense_BD=dense[step][:size],
            labels_BT=labels[step][:size],
            weights_B=weights[step][:size],
            cursor=cursor,
        )


@dataclass(frozen=True)
class _Sources:
    """The parts of a round, as compiled loops take them.

    Attributes:
        parts: of dtype `PART`, (P,).
        addresses_KP: uint64, `EncodedRows.addresses` of each part's window.
        is_given_R: bool, of the rows of all parts.
    """

    parts: np.ndarray
    addresses_KP: np.ndarray
    is_given_R: np.ndarray

    @classmethod
    def of(cls, parts: Sequence[Part], *, num_lists: int) -> _Sources:
        addresses_PK = [part.rows.addresses for part in parts] or np.zeros((0, 3 + 3 * num_lists))
        fields = [
            (part.first, len(part.is_given_R), len(part.rows), part.first_place, part.rows_per_step)
            for part in parts
        ]
        return cls(
            parts=np.array(fields, PART),
            addresses_KP=np.array(addresses_PK, np.uint64).T.copy(),
            is_given_R=np.concatenate([np.zeros(0, bool), *(part.is_given_R for part in parts)]),
        )

    @property
    def lists(self) -> list[np.ndarray]:
        """uint64 (3, P) of each list: addresses of offsets, values and weights."""
        num_kinds, num_parts = self.addresses_KP.shape
        return list(self.addresses_KP[3:].reshape((num_kinds - 3) // 3, 3, num_parts))


@dataclass(frozen=True)
class _Ids:
    """The ids of a round, step after step and feature-major in each."""

    values_S: Sequence[torch.Tensor]
    weights_S: Sequence[torch.Tensor | None]
    lengths_S: Sequence[torch.Tensor]

    @classmethod
    def place(
        cls,
        sources: _Sources,
        where: tuple[np.ndarray, np.ndarray],
        *,
        layout: Layout,
        given_SB: np.ndarray,
    ) -> _Ids:
        S, B = given_SB.shape
        lengths_SFB = uninitialised((S, len(layout.keys), B), np.int32)
        lengths_SFB[:, : layout.num_ids] = given_SB[:, None]
        lengths_SFB[:, layout.num_ids :] = 0
        lengths_LSB = np.moveaxis(lengths_SFB[:, layout.num_ids :], 1, 0)
        for (offsets_P, _, _), lengths_SB in zip(sources.lists, lengths_LSB, strict=True):
            place_lengths(offsets_P, sources.parts, *where, lengths_SB)
        num_given_S = given_SB.sum(axis=1)
        num_listed_SL = lengths_SFB[:, layout.num_ids :].sum(axis=2, dtype=np.int64)
        ends_S = np.cumsum(layout.num_ids * num_given_S + num_listed_SL.sum(axis=1))
        list_starts_SL = (ends_S - num_listed_SL.sum(axis=1))[:, None] + (
            np.cumsum(num_listed_SL, axis=1) - num_listed_SL
        )
        start_S = np.concatenate([[0], ends_S[:-1]])
        values = uninitialised((int(ends_S[-1]),), np.int64)
        weights = np.ones(ends_S[-1], np.float32) if layout.is_weighted else None
        starts_LSB = [
            list_starts_SL[:, index, None] + np.cumsum(lengths, axis=1) - lengths
            for index, lengths in enumerate(lengths_LSB)
        ]
        place_ids(
            *(sources.addresses_KP[0], sources.parts, *where),
            *(start_S, num_given_S, layout.num_ids, values),
        )
        for (offsets_P, values_P, weights_P), starts_SB in zip(
            sources.lists, starts_LSB, strict=True
        ):
            place_lists(values_P, offsets_P, sources.parts, *where, starts_SB, values)
            if weights is not None and weights_P.all():
                place_lists(weights_P, offsets_P, sources.parts, *where, starts_SB, weights)
        sizes = np.diff(ends_S, prepend=0).tolist()
        none = [None] * S
        return cls(
            values_S=torch.from_numpy(values).split(sizes),
            weights_S=none if weights is None else torch.from_numpy(weights).split(sizes),
            lengths_S=torch.from_numpy(lengths_SFB).unbind(),
        )

    def of_step(self, step: int, *, size: int, keys: Sequence[str]) -> KeyedJaggedTensor:
        """The ids of one batch of `size` examples and padding."""
        return KeyedJaggedTensor(
            keys=list(keys),
            values=self.values_S[step],
            weights=self.weights_S[step],
            lengths=self.lengths_S[step][:, :size].reshape(-1),
            stride=size,
        )
