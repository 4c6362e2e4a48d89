"""Negative examples for logs that hold only positives: drawn items in the place of the real one.

    log row                  user 7   item 3   click 1
    k rows that follow it    user 7   item 9   click 0       items of the catalogue
                             user 7   item 1   click 0

What is drawn depends on a row's key alone, so on seed, epoch, row group and row: not on the number
of ranks, nor on where a run was taken up. A drawn item may be the positive itself, as often as the
catalogue's frequencies say.

Shape legend: R log rows, N = R * k drawn ones, I items, C columns, T columns of labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from data_loaders.catalogue import open_catalogue
from data_loaders.config import (
    BinaryTask,
    DataConfig,
    DenseVectorFeature,
    IdFeature,
    IdListFeature,
    RankingTask,
)
from data_loaders.errors import SchemaError
from data_loaders.hashing import mix64
from data_loaders.label_columns import LabelColumns
from data_loaders.memory import uninitialised
from data_loaders.rows import EncodedRows
from data_loaders.transforms import Encoder

# keeps these draws apart from all others that a row's key decides
SALT = np.uint64(0x6E65_6761_7469_7665)
HALF = np.uint64(32)  # bits


@dataclass(frozen=True)
class KeyedRows:
    """Rows on their way into a window.

    Attributes:
        rows: R of them.
        key_R: uint64, decides what is drawn for each.
        place_R: uint32, of each in its window.
    """

    rows: EncodedRows
    key_R: np.ndarray
    place_R: np.ndarray


class NegativeSampler:
    """Draws items for log rows; several threads may share one.

    Args:
        config: the recipe's section `data`, fitted, with `negatives`.
        num_rows: rows of the embedding table of each id feature.

    Attributes:
        fingerprint: of the catalogue's file.

    Raises:
        StorageError: the catalogue cannot be read.
        SchemaError: it does not suit the recipe.
    """

    def __init__(self, config: DataConfig, *, num_rows: Mapping[str, int]) -> None:
        assert config.negatives is not None
        catalogue = open_catalogue(config, negatives=config.negatives)
        table = catalogue.read()
        try:
            self._items = Encoder(catalogue.items, num_rows=num_rows).encode(table)
        except SchemaError as error:
            raise SchemaError(f"{catalogue.location.uri}: {error}") from error
        weights_I = catalogue.weights(table, negatives=config.negatives)
        self.fingerprint = catalogue.fingerprint
        self._per_example = config.negatives.per_example
        self._keep_I, self._other_I = _alias_table(weights_I / weights_I.mean())
        self._is_drawn = _Columns.of(config, is_drawn=lambda name: name in catalogue.items.features)
        self._is_zero_T = np.array(
            [
                isinstance(task, BinaryTask | RankingTask) and task.where is None
                for task in config.tasks.values()
            ]
        )
        self._label_columns = LabelColumns.of(config)
        self._log_q = None
        if self._label_columns.log_q is not None:
            name = str(config.negatives.item)
            if name not in catalogue.items.features:
                raise SchemaError(
                    f"{catalogue.location.uri}: has no column of the feature {name} "
                    "(data.negatives.item); expected one that tells the items apart"
                )
            rows_I = self._items.ids_FR[_place_of(name, catalogue.items)]
            self._log_q = _LogQ(rows_I, weights_I, place=_place_of(name, config))

    def grown(self, examples: KeyedRows) -> tuple[KeyedRows, KeyedRows]:
        """Log rows as they are, and the drawn ones, whose places follow those of their log rows.

        Args:
            examples: their places count log rows; those of the result count all.
        """
        k = self._per_example
        nth_k = np.arange(1, 1 + k, dtype=np.uint32)
        first_R = examples.place_R * (1 + k)
        state_R = mix64(examples.key_R ^ SALT)
        key_N = mix64(state_R[:, None] + nth_k.astype(np.uint64)).reshape(-1)
        drawn = KeyedRows(
            rows=self._with_items(examples.rows, item_N=self._draw(key_N)),
            key_R=key_N,
            place_R=(first_R[:, None] + nth_k).reshape(-1),
        )
        return KeyedRows(self._with_log_q(examples.rows), examples.key_R, first_R), drawn

    def _draw(self, key_N: np.ndarray) -> np.ndarray:
        """int64 (N,): an item by the key's upper half, that item or its alias by the lower."""
        item_N = ((key_N >> HALF) * np.uint64(len(self._keep_I)) >> HALF).astype(np.int64)
        fraction_N = key_N.astype(np.uint32) / 2.0**32
        return np.where(fraction_N < self._keep_I[item_N], item_N, self._other_I[item_N])

    def _with_items(self, rows: EncodedRows, *, item_N: np.ndarray) -> EncodedRows:
        """k times each row, with drawn items in place of its own."""
        items, is_drawn = self._items, self._is_drawn
        row_N = np.repeat(np.arange(len(rows)), self._per_example)
        labels_TN = rows.labels_TR.take(row_N, axis=1)  # example weights are the log row's
        labels_TN[: len(self._is_zero_T)] = np.where(self._is_zero_T, 0.0, np.nan)[:, None]
        drawn_lists = iter(items.lists)
        drawn = EncodedRows(
            ids_FR=_mixed(rows.ids_FR, row_N, items.ids_FR, item_N, is_drawn.ids),
            lists=tuple(
                next(drawn_lists).take(item_N) if is_item else ragged.take(row_N)
                for ragged, is_item in zip(rows.lists, is_drawn.lists, strict=True)
            ),
            dense_DR=_mixed(rows.dense_DR, row_N, items.dense_DR, item_N, is_drawn.dense),
            labels_TR=labels_TN,
        )
        return self._with_log_q(drawn)

    def _with_log_q(self, rows: EncodedRows) -> EncodedRows:
        """With how often each row's item is drawn, where a task asks for it."""
        if self._log_q is None:
            return rows
        labels_TR = rows.labels_TR.copy()
        labels_TR[self._label_columns.log_q] = self._log_q.of(rows.ids_FR[self._log_q.place])
        return replace(rows, labels_TR=labels_TR)


class _LogQ:
    """How often items are drawn, by the row of their embedding table: items that share a row, which
    the model cannot tell apart, are drawn as often as all of them together.

    Args:
        rows_I: int32 or int64, of the catalogue's items.
        weights_I: float64, how often each is drawn, relative to the others.
        place: of the feature among the `id` features of encoded rows.
    """

    def __init__(self, rows_I: np.ndarray, weights_I: np.ndarray, *, place: int) -> None:
        self.place = place
        is_drawn_I = weights_I > 0
        self._rows, index_I = np.unique(rows_I[is_drawn_I], return_inverse=True)
        sums = np.bincount(index_I, weights=weights_I[is_drawn_I])
        self._log_q = np.log(sums / sums.sum()).astype(np.float32)

    def of(self, rows_R: np.ndarray) -> np.ndarray:
        """float32 (R,), nats; an item that is never drawn counts as the rarest that is."""
        nearest_R = np.minimum(np.searchsorted(self._rows, rows_R), len(self._rows) - 1)
        is_known_R = self._rows[nearest_R] == rows_R
        return np.where(is_known_R, self._log_q[nearest_R], self._log_q.min())


def _place_of(name: str, config: DataConfig) -> int:
    """Of an `id` feature among those of encoded rows."""
    return [key for key, item in config.features.items() if isinstance(item, IdFeature)].index(name)


@dataclass(frozen=True)
class _Columns:
    """Of each column of encoded rows, whether it is the drawn item's."""

    ids: list[bool]
    lists: list[bool]
    dense: list[bool]

    @classmethod
    def of(cls, config: DataConfig, *, is_drawn: Callable[[str], bool]) -> _Columns:
        found = cls([], [], [])
        for name, feature in config.features.items():
            if isinstance(feature, IdFeature):
                found.ids.append(is_drawn(name))
            elif isinstance(feature, IdListFeature):
                found.lists.append(is_drawn(name))
            else:
                width = feature.length if isinstance(feature, DenseVectorFeature) else 1
                found.dense.extend([is_drawn(name)] * width)
        return found


def _mixed(
    rows_CR: np.ndarray,
    row_N: np.ndarray,
    items_CI: np.ndarray,
    item_N: np.ndarray,
    is_drawn_C: list[bool],
) -> np.ndarray:
    """(C, N): those columns that are the item's from there, the others from the log row."""
    mixed_CN = uninitialised((len(is_drawn_C), len(item_N)), rows_CR.dtype)
    of_items = iter(items_CI)
    for mixed_N, values_R, is_drawn in zip(mixed_CN, rows_CR, is_drawn_C, strict=True):
        if is_drawn:
            np.take(next(of_items), item_N, out=mixed_N, mode="clip")  # raise would make a copy
        else:
            np.take(values_R, row_N, out=mixed_N, mode="clip")
    return mixed_CN


@njit(cache=True, nogil=True)
def _alias_table(weights_I: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turns weights into draws that cost the same for any number of items: first evenly one of the
    items, then that item with its probability `keep`, or else the item's alias.

    Args:
        weights_I: float64, not negative, of mean 1.

    Returns:
        float64 (I,) keep, and int64 (I,) alias.

    Source: Vose, "A linear algorithm for generating random numbers with a given distribution", IEEE
    Transactions on Software Engineering 17, 1991.
    """
    num_items = len(weights_I)
    keep_I, alias_I, left_I = np.ones(num_items), np.arange(num_items), weights_I.copy()
    # items with less than their even share, and those with more, from both ends of one stack
    stack_I = np.empty(num_items, np.int64)
    num_small, first_large = 0, num_items
    for item in range(num_items):
        if left_I[item] < 1:
            stack_I[num_small] = item
            num_small += 1
        else:
            first_large -= 1
            stack_I[first_large] = item
    while num_small and first_large < num_items:
        small, large = stack_I[num_small - 1], stack_I[first_large]
        keep_I[small], alias_I[small] = left_I[small], large
        left_I[large] -= 1 - left_I[small]
        num_small -= 1
        if left_I[large] < 1:
            first_large += 1
            stack_I[num_small] = large
            num_small += 1
    return keep_I, alias_I
