"""From windows to batches, several steps at once.

    windows of the rank's streams              a round of S steps
    [. . . a a a a b b b b . .]   stream 0     step 0: a a a a A A A A   (B slots)
    [. A A A A B B B B . . . .]   stream 1     step 1: b b b b B B B B

Shape legend: S steps of a round, B examples on this rank, F id features, L list features, D dense
features, T tasks, N ids of the round, R rows of a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from data_loaders.batch import InteractionBatch, id_feature_names
from data_loaders.config import DataConfig, IdFeature
from data_loaders.label_columns import LabelColumns
from data_loaders.memory import uninitialised
from data_loaders.placement import (
    DENSE,
    LABELS,
    LISTS,
    PART,
    place_ids,
    place_lengths,
    place_numbers,
    runs_of,
)
from data_loaders.rows import EncodedRows
from data_loaders.streams import Cursor


@dataclass(frozen=True)
class Layout:
    """How many columns of each kind a batch has.

    Attributes:
        keys: of the ids, the `num_ids` single ones first.
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
) -> list[InteractionBatch]:
    """Makes the batches of a round; in each, examples come first and padding behind.

    Args:
        parts: stream by stream, in the order of the rows in each.
        layout: of the parts' columns.
        padded_sizes: B of each step's batch.
        cursors: the position behind each step.
    """
    S, B = len(padded_sizes), max(padded_sizes)
    num_given_S = np.zeros(S, np.int64)
    sources = _Sources.of(parts, num_lists=layout.num_lists, num_given_S=num_given_S)
    dense_SBD = uninitialised((S, B, layout.num_dense), np.float32)
    labels_SBT = uninitialised((S, B, layout.num_tasks), np.float32)
    for column, padding, target_SBC in ((DENSE, 0.0, dense_SBD), (LABELS, np.nan, labels_SBT)):
        place_numbers(
            sources.addresses_PA[:, column].copy(),
            *(sources.parts, sources.runs, num_given_S, padding, target_SBC),
        )
    ids = _Ids.place(sources, num_given_S, layout=layout, num_slots=B)
    given_SB = np.arange(B) < num_given_S[:, None]
    weights, dense, labels = (
        torch.from_numpy(array).unbind()
        for array in (given_SB.astype(np.float32), dense_SBD, labels_SBT)
    )
    return [
        InteractionBatch(
            ids=ids.of_step(step, size=size, keys=layout.keys),
            dense_BD=dense[step][:size],
            labels_BT=labels[step][:size],
            weights_B=weights[step][:size],
            cursor=cursor,
        )
        for step, (size, cursor) in enumerate(zip(padded_sizes, cursors, strict=True))
    ]


@dataclass(frozen=True)
class _Sources:
    """The parts of a round, as compiled loops take them.

    Attributes:
        parts: of dtype `PART`, (P,).
        addresses_PA: uint64, `EncodedRows.addresses` of each part's window.
        runs: of dtype `RUN`.
        no_ids: (0,), of the type that ids have.
    """

    parts: np.ndarray
    addresses_PA: np.ndarray
    runs: np.ndarray
    no_ids: np.ndarray

    @classmethod
    def of(cls, parts: Sequence[Part], *, num_lists: int, num_given_S: np.ndarray) -> _Sources:
        fields = [
            (part.first, len(part.is_given_R), len(part.rows), part.first_place, part.rows_per_step)
            for part in parts
        ]
        parts_P = np.array(fields, PART)
        addresses = [part.rows.addresses for part in parts] or np.zeros((0, LISTS + 3 * num_lists))
        id_dtypes = {part.rows.ids_FR.dtype for part in parts}
        assert len(id_dtypes) <= 1
        is_given_R = np.concatenate([np.zeros(0, bool), *(part.is_given_R for part in parts)])
        return cls(
            parts=parts_P,
            addresses_PA=np.array(addresses, np.uint64),
            runs=runs_of(is_given_R, parts_P, num_given_S),
            no_ids=np.zeros(0, id_dtypes.pop() if id_dtypes else np.int32),
        )


@dataclass(frozen=True)
class _Ids:
    """The ids of a round, step after step and feature-major in each."""

    values_S: Sequence[torch.Tensor]
    weights_S: Sequence[torch.Tensor | None]
    lengths_S: Sequence[torch.Tensor]

    @classmethod
    def place(
        cls, sources: _Sources, num_given_S: np.ndarray, *, layout: Layout, num_slots: int
    ) -> _Ids:
        S, K = len(num_given_S), len(layout.keys)
        where = (sources.addresses_PA, sources.parts, sources.runs)
        lengths_SKB = uninitialised((S, K, num_slots), np.int32)
        sums_SK = place_lengths(*where, num_given_S, layout.num_ids, lengths_SKB)
        ends_S = np.cumsum(sums_SK.sum(axis=1))
        start_SK = np.cumsum(sums_SK).reshape(S, K) - sums_SK
        values = uninitialised((int(ends_S[-1]),), np.int64)
        weights = np.ones(ends_S[-1] if layout.is_weighted else 0, np.float32)
        place_ids(*where, layout.num_ids, sources.no_ids, start_SK, values, weights)
        sizes = np.diff(ends_S, prepend=0).tolist()
        none = [None] * S
        return cls(
            values_S=torch.from_numpy(values).split(sizes),
            weights_S=none if not layout.is_weighted else torch.from_numpy(weights).split(sizes),
            lengths_S=torch.from_numpy(lengths_SKB).unbind(),
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
