"""Dropped ids, against a draw for each id in plain Python."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loaders.config import DataConfig
from data_loaders.hashing import mix64
from data_loaders.id_dropout import drop_ids
from data_loaders.rows import EncodedRows, Ragged
from tests.helpers.encoded_rows import joined, taken

FRACTIONS = {"user": 0.5, "history": 0.25, "item": 0.0, "seen": 0.0, "ad": 0.9}
LISTS = ("history", "seen")


def make_config(fractions: dict[str, float] = FRACTIONS) -> DataConfig:
    features: dict[str, Any] = {
        name: {
            "kind": "id_list" if name in LISTS else "id",
            "encoding": "vocabulary",
            "dropout": fraction,
        }
        for name, fraction in fractions.items()
    }
    return DataConfig.model_validate({"features": features, "tasks": {"t": {"kind": "binary"}}})


@st.composite
def encoded_rows(draw: st.DrawFn) -> EncodedRows:
    """Some rows, many of their ids missing or rare, some lists empty."""
    num_rows = draw(st.integers(0, 6))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    lists = []
    for name in LISTS:
        offsets = np.concatenate([[0], np.cumsum(random.integers(0, 4, num_rows))])
        weights = random.random(offsets[-1]).astype(np.float32) if name == "seen" else None
        values = random.integers(0, 5, offsets[-1])
        lists.append(Ragged(values_N=values, offsets_R=offsets, weights_N=weights))
    return EncodedRows(
        ids_FR=random.integers(0, 5, (3, num_rows)),
        lists=tuple(lists),
        dense_DR=random.random((2, num_rows), np.float32),
        labels_TR=random.random((1, num_rows), np.float32),
    )


def mixed(value: int) -> int:
    return int(mix64(np.array([value], np.uint64))[0])


def naive_id(row: int, *, key: int, name: str) -> int:
    salt = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    is_dropped = mixed(key ^ salt) < FRACTIONS[name] * 2**64
    return 1 if is_dropped and row != 0 else row


@settings(deadline=None)
@given(encoded_rows(), st.integers(0, 2**63))
def test_dropping_is_a_draw_per_id(rows: EncodedRows, seed: int) -> None:
    """Missing ids stay missing; weights, numbers, labels and the given rows stay as they are."""
    keys = [mixed(seed + index) for index in range(len(rows))]
    before = rows.ids_FR.copy()
    dropped = drop_ids(rows, config=make_config(), key_R=np.array(keys, np.uint64))
    for index, name in enumerate(["user", "item", "ad"]):
        expected = [
            naive_id(int(row), key=key, name=name)
            for row, key in zip(rows.ids_FR[index], keys, strict=True)
        ]
        assert dropped.ids_FR[index].tolist() == expected
    for old, new, name in zip(rows.lists, dropped.lists, LISTS, strict=True):
        expected = [
            naive_id(int(row), key=mixed(key ^ mixed(place)), name=name)
            for key, start, stop in zip(keys, old.offsets_R, old.offsets_R[1:], strict=False)
            for place, row in enumerate(old.values_N[start:stop])
        ]
        assert new.values_N.tolist() == expected
        np.testing.assert_array_equal(new.offsets_R, old.offsets_R)
        assert new.weights_N is old.weights_N
    assert dropped.dense_DR is rows.dense_DR
    assert dropped.labels_TR is rows.labels_TR
    np.testing.assert_array_equal(rows.ids_FR, before)


@settings(deadline=None)
@given(encoded_rows(), st.randoms(use_true_random=False))
def test_what_is_dropped_does_not_depend_on_the_rows_around_it(
    rows: EncodedRows, random: Any
) -> None:
    """Picked before or after, alone or joined: the key of a row decides."""
    config, key_R = make_config(), mix64(np.arange(len(rows), dtype=np.uint64))
    picked = np.array([random.randrange(len(rows)) for _ in range(4)] if len(rows) else [], int)
    after = taken(drop_ids(rows, config=config, key_R=key_R), picked)
    parts = [
        drop_ids(taken(rows, picked[[index]]), config=config, key_R=key_R[picked[[index]]])
        for index in range(len(picked))
    ]
    before = joined([*parts, taken(rows, np.zeros(0, np.int64))])
    np.testing.assert_array_equal(before.ids_FR, after.ids_FR)
    for one, two in zip(before.lists, after.lists, strict=True):
        np.testing.assert_array_equal(one.values_N, two.values_N)


@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.99])
def test_the_fraction_is_met(fraction: float) -> None:
    """Within five standard deviations, for single ids and in lists; features differ."""
    num_rows = 20_000
    lists = tuple(
        Ragged(values_N=np.full(2 * num_rows, 7), offsets_R=np.arange(0, 2 * num_rows + 1, 2))
        for _ in LISTS
    )
    rows = EncodedRows(
        ids_FR=np.full((3, num_rows), 7),
        lists=lists,
        dense_DR=np.zeros((0, num_rows), np.float32),
        labels_TR=np.zeros((1, num_rows), np.float32),
    )
    config = make_config(dict.fromkeys(FRACTIONS, fraction))
    dropped = drop_ids(rows, config=config, key_R=mix64(np.arange(num_rows, dtype=np.uint64)))
    for ids in (*dropped.ids_FR, *(ragged.values_N for ragged in dropped.lists)):
        deviation = (fraction * (1 - fraction) / len(ids)) ** 0.5
        assert abs((ids == 1).mean() - fraction) < 5 * deviation
    assert (dropped.ids_FR[0] != dropped.ids_FR[1]).any()
    first, second = dropped.lists[0].values_N.reshape(-1, 2).T
    assert (first != second).any()


def test_without_dropout_rows_are_handed_on() -> None:
    """Nothing is copied."""
    rows = EncodedRows(
        ids_FR=np.full((3, 2), 7),
        lists=(),
        dense_DR=np.zeros((0, 2), np.float32),
        labels_TR=np.zeros((1, 2), np.float32),
    )
    config = make_config(dict.fromkeys(FRACTIONS, 0.0))
    assert drop_ids(rows, config=config, key_R=np.zeros(2, np.uint64)) is rows
