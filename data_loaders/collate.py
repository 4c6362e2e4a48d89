"""From windows to batches, several steps at once.

    windows of the rank's streams              a round of S steps
    [. . . a a a a b b b b . .]   stream 0     step 0: a a a a A A A A   (B slots)
    [. A A A A B B B B . . . .]   stream 1     step 1: b b b b B B B B

Shape legend: S steps of a round, B examples on this rank, K keys (id features, then list features),
D dense features, T tasks, N ids of the round, P parts, A addresses of a window, R rows of a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from data_loaders.batch import InteractionBatch, id_feature_names
from data_loaders.config import DataConfig, IdFeature
from data_loaders.label_columns import LabelColumns
from data_loaders.memory import uninitialised
from data_loaders.round_placement import LISTS, PART, fill_round, plan_round
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
    S, B, K = len(padded_sizes), max(padded_sizes), len(layout.keys)
    parts_P, addresses_PA, no_ids = _sources(parts, layout=layout)
    is_given_R = np.concatenate([np.zeros(0, bool), *(part.is_given_R for part in parts)])
    num_given_S = np.empty(S, np.int64)
    lengths_SKB = uninitialised((S, K, B), np.int32)
    runs, sums_SK = plan_round(
        is_given_R, parts_P, addresses_PA, layout.num_ids, num_given_S, lengths_SKB
    )
    num_ids_S = sums_SK.sum(axis=1)
    values = uninitialised((int(num_ids_S.sum()),), np.int64)
    id_weights = np.ones(len(values) if layout.is_weighted else 0, np.float32)
    dense_SBD = uninitialised((S, B, layout.num_dense), np.float32)
    labels_SBT = uninitialised((S, B, layout.num_tasks), np.float32)
    weights_SB = uninitialised((S, B), np.float32)
    fill_round(
        *(addresses_PA, parts_P, runs, num_given_S, layout.num_ids, no_ids),
        np.cumsum(sums_SK).reshape(S, K) - sums_SK,
        *(values, id_weights, dense_SBD, labels_SBT, weights_SB),
    )
    keys, sizes = list(layout.keys), num_ids_S.tolist()
    of_each_step = zip(
        padded_sizes,
        cursors,
        torch.from_numpy(values).split(sizes),
        torch.from_numpy(id_weights).split(sizes) if layout.is_weighted else [None] * S,
        *(
            torch.from_numpy(array).unbind()
            for array in (lengths_SKB, dense_SBD, labels_SBT, weights_SB)
        ),
        strict=True,
    )
    return [_batch(keys, *of_step) for of_step in of_each_step]


def _batch(
    keys: list[str],
    size: int,
    cursor: Cursor,
    ids_N: Tensor,
    id_weights_N: Tensor | None,
    lengths_KB: Tensor,
    dense_BD: Tensor,
    labels_BT: Tensor,
    weights_B: Tensor,
) -> InteractionBatch:
    """The first `size` slots of a step."""
    if size < len(weights_B):  # at the end of an epoch
        lengths_KB = lengths_KB[:, :size].contiguous()
        dense_BD, labels_BT, weights_B = dense_BD[:size], labels_BT[:size], weights_B[:size]
    ids = KeyedJaggedTensor(
        keys=keys, values=ids_N, weights=id_weights_N, lengths=lengths_KB.view(-1), stride=size
    )
    return InteractionBatch(
        ids=ids, dense_BD=dense_BD, labels_BT=labels_BT, weights_B=weights_B, cursor=cursor
    )


def _sources(parts: Sequence[Part], *, layout: Layout) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The parts as compiled loops take them: of dtype `PART` (P,), uint64 (P, A) the addresses of
    their windows, and (0,) of the type that their ids have.
    """
    fields = [
        (part.first, len(part.is_given_R), len(part.rows), part.first_place, part.rows_per_step)
        for part in parts
    ]
    addresses = [part.rows.addresses for part in parts]
    addresses_PA = np.array(addresses or np.zeros((0, LISTS + 3 * layout.num_lists)), np.uint64)
    id_dtypes = {part.rows.ids_FR.dtype for part in parts}
    assert len(id_dtypes) <= 1
    no_ids = np.zeros(0, id_dtypes.pop() if id_dtypes else np.int32)
    return np.array(fields, PART), addresses_PA, no_ids
