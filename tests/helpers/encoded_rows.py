"""Encoded rows picked and joined, as tests want them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_loaders.placement import in_order
from data_loaders.rows import EncodedRows


def taken(rows: EncodedRows, picked: np.ndarray) -> EncodedRows:
    """Some rows, in that order."""
    return EncodedRows(
        ids_FR=rows.ids_FR[:, picked],
        lists=tuple(ragged.take(picked) for ragged in rows.lists),
        dense_DR=rows.dense_DR[:, picked],
        labels_TR=rows.labels_TR[:, picked],
    )


def joined(parts: Sequence[EncodedRows]) -> EncodedRows:
    """The rows of all parts, behind one another."""
    ends = np.cumsum([len(part) for part in parts])
    places = np.split(np.arange(ends[-1], dtype=np.uint32), ends[:-1])
    return in_order(list(zip(parts, places, strict=True)), num_rows=int(ends[-1]))
