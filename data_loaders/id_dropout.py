"""Teaches the row of rare ids: in training, some known ids are taken for unknown ones.

The row of rare ids serves ids that training has not seen. Were it only trained on what is rare in
training, it would stand for that; dropped ids make it stand for an id of any kind.

Shape legend: R rows, N ids of a list feature.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from data_loaders.config import DataConfig, IdFeature, IdListFeature
from data_loaders.hashing import mix64
from data_loaders.id_encoding import MISSING_ROW
from data_loaders.id_vocabulary import RARE_ROW
from data_loaders.rows import EncodedRows, Ragged


def drop_ids(rows: EncodedRows, *, config: DataConfig, key_R: np.ndarray) -> EncodedRows:
    """Puts the row of rare ids in the place of a fraction of all ids that are not missing: the
    feature's `dropout`.

    Args:
        rows: of an `Encoder` with this configuration; not changed.
        config: features.
        key_R: uint64, of each row; what is dropped depends on it, on the feature's name and on the
            place in a list alone.
    """
    features = config.features.items()
    of_ids = {name: item.dropout for name, item in features if isinstance(item, IdFeature)}
    of_lists = {name: item.dropout for name, item in features if isinstance(item, IdListFeature)}
    if not any((*of_ids.values(), *of_lists.values())):
        return rows
    ids_FR = rows.ids_FR.copy()
    for ids_R, (name, fraction) in zip(ids_FR, of_ids.items(), strict=True):
        if fraction:
            ids_R[:] = _dropped(ids_R, key_N=key_R, fraction=fraction, name=name)
    return replace(
        rows,
        ids_FR=ids_FR,
        lists=tuple(
            _dropped_in_lists(ragged, key_R=key_R, fraction=fraction, name=name)
            for ragged, (name, fraction) in zip(rows.lists, of_lists.items(), strict=True)
        ),
    )


def _dropped_in_lists(ragged: Ragged, *, key_R: np.ndarray, fraction: float, name: str) -> Ragged:
    """Each id of a list has a draw of its own."""
    if not fraction:
        return ragged
    lengths_R = ragged.lengths_R
    places_N = np.arange(len(ragged.values_N)) - np.repeat(ragged.offsets_R[:-1], lengths_R)
    key_N = mix64(np.repeat(key_R, lengths_R) ^ mix64(places_N.astype(np.uint64)))
    values_N = _dropped(ragged.values_N, key_N=key_N, fraction=fraction, name=name)
    return replace(ragged, values_N=values_N)


def _dropped(ids_N: np.ndarray, *, key_N: np.ndarray, fraction: float, name: str) -> np.ndarray:
    draw_N = mix64(key_N ^ _salt(name))
    is_dropped_N = (draw_N < np.uint64(int(fraction * 2.0**64))) & (ids_N != MISSING_ROW)
    return np.where(is_dropped_N, RARE_ROW, ids_N)


def _salt(name: str) -> np.uint64:
    """The same on every machine, and apart from those of other names."""
    return np.uint64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
