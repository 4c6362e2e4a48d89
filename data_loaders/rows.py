"""Encoded log rows.

Shape legend: R rows, F id features, D dense features, T tasks, N ids of a list feature.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Ragged:
    """A list per row.

    rows      0      1   2
    values    5 9    .   4 4 1        offsets  0 2 2 5

    Attributes:
        values_N: int32 or int64, as `EncodedRows.ids_FR`; the lists behind one another.
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
        ids_FR: table rows of the `id` features, in the recipe's order; int32, or int64 where a
            table has more rows than that can count: half the bytes take half the time to move.
        lists: of the `id_list` features, in the recipe's order.
        dense_DR: float32, standardised, no NaN.
        labels_TR: float32, columns as in `LabelColumns`, labels in the units of the loss; NaN where
            not observed.
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
        weights (0 if there are none) of each list; every array must be contiguous, and all ids of
        one type.
        """
        arrays: list[np.ndarray | None] = [self.ids_FR, self.dense_DR, self.labels_TR]
        for ragged in self.lists:
            arrays += [ragged.offsets_R, ragged.values_N, ragged.weights_N]
        assert all(array is None or array.flags.c_contiguous for array in arrays)
        assert all(ragged.values_N.dtype == self.ids_FR.dtype for ragged in self.lists)
        return np.array([0 if item is None else item.ctypes.data for item in arrays], np.uint64)
