"""Encoded log rows, and how they are picked and joined.

Shape legend: R rows, F id features, D dense features, T tasks, N ids of a list feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Ragged:
    """A list per row.

    rows      0      1   2
    values    5 9    .   4 4 1        offsets  0 2 2 5

    Attributes:
        values_N: int64, the lists behind one another.
        offsets_R: int64 (R + 1,).
        weights_N: float32, of each id when a bag is pooled; None where all weigh 1.
    """

    values_N: np.ndarray
    offsets_R: np.ndarray
    weights_N: np.ndarray | None = None

    @property
    def lengths_R(self) -> np.ndarray:
        return np.diff(self.offsets_R)

    def take(self, rows: np.ndarray) -> Ragged:
        """The lists of some rows, in that order."""
        lengths = self.lengths_R[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        source = np.repeat(self.offsets_R[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Ragged(
            values_N=self.values_N[source],
            offsets_R=offsets,
            weights_N=None if self.weights_N is None else self.weights_N[source],
        )


@dataclass(frozen=True)
class EncodedRows:
    """Log rows ready for batches.

    Attributes:
        ids_FR: int64, table rows of the `id` features, in the recipe's order.
        lists: of the `id_list` features, in the recipe's order.
        dense_DR: float32, standardised, no NaN.
        labels_TR: float32, in the units of the loss; NaN where not observed.
    """

    ids_FR: np.ndarray
    lists: tuple[Ragged, ...]
    dense_DR: np.ndarray
    labels_TR: np.ndarray

    def __len__(self) -> int:
        return int(self.labels_TR.shape[1])

    @cached_property
    def addresses(self) -> np.ndarray:
        """uint64 (3 + 3 L,): where ids, dense and labels lie in memory, then offsets, values and
        weights (0 if there are none) of each list; every array must be contiguous.
        """
        arrays: list[np.ndarray | None] = [self.ids_FR, self.dense_DR, self.labels_TR]
        for ragged in self.lists:
            arrays += [ragged.offsets_R, ragged.values_N, ragged.weights_N]
        assert all(array is None or array.flags.c_contiguous for array in arrays)
        return np.array([0 if item is None else item.ctypes.data for item in arrays], np.uint64)

    def take(self, rows: np.ndarray) -> EncodedRows:
        """Some rows, in that order."""
        return EncodedRows(
            ids_FR=self.ids_FR[:, rows],
            lists=tuple(ragged.take(rows) for ragged in self.lists),
            dense_DR=self.dense_DR[:, rows],
            labels_TR=self.labels_TR[:, rows],
        )


def concat_rows(parts: Sequence[EncodedRows]) -> EncodedRows:
    """The rows of all parts, behind one another."""
    if len(parts) == 1:
        return parts[0]
    return EncodedRows(
        ids_FR=np.concatenate([part.ids_FR for part in parts], axis=1),
        lists=tuple(
            _concat_ragged(lists) for lists in zip(*(part.lists for part in parts), strict=True)
        ),
        dense_DR=np.concatenate([part.dense_DR for part in parts], axis=1),
        labels_TR=np.concatenate([part.labels_TR for part in parts], axis=1),
    )


def _concat_ragged(parts: Sequence[Ragged]) -> Ragged:
    starts = np.cumsum([0, *(len(part.values_N) for part in parts)])
    offsets = [part.offsets_R[1:] + start for part, start in zip(parts, starts, strict=False)]
    weights = [part.weights_N for part in parts if part.weights_N is not None]
    return Ragged(
        values_N=np.concatenate([part.values_N for part in parts]),
        offsets_R=np.concatenate([[0], *offsets]),
        weights_N=np.concatenate(weights) if weights else None,
    )
