"""The music service is what it says."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sklearn.metrics import roc_auc_score

from data_loaders.scenarios.music import Lists, Music, Offers
from tests.helpers.truth import observed

NO_IDS = Lists(
    lengths=np.zeros(500, dtype=np.int64),
    missing=np.zeros(500, dtype=bool),
    ids=np.array([], dtype=np.int64),
)


@pytest.fixture(scope="module")
def world() -> Music:
    return Music(examples=50_000, rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def train(world: Music) -> pa.Table:
    return world.draw(np.random.default_rng(1), num_examples=40_000, start=0.0, stop=0.8)


@pytest.fixture(scope="module")
def offers(world: Music) -> Offers:
    return world._offers(np.random.default_rng(2), 500)


def test_columns_hold_what_the_docstring_says(world: Music, train: pa.Table) -> None:
    """Types, gaps, ranges."""
    types = {name: str(train.schema.field(name).type) for name in train.column_names[:16]}
    assert types == {
        "listener_id": "int64",
        "song_id": "string",
        "album_id": "int64",
        "artist_id": "string",
        "genre": "string",
        "mood": "string",
        "hour": "int8",
        "shuffle": "int8",
        "recent_songs": "list<item: string>",
        "liked_artists": "list<item: string>",
        "tempo": "float",
        "song_days": "float",
        "artist_plays": "float",
        "song_play": "int8",
        "artist_follow": "int8",
        "album_save": "int8",
    }
    gaps = {"mood": 0.20, "recent_songs": 0.05, "liked_artists": 0.05}
    gaps |= {"tempo": 0.05, "song_days": 0.10}
    for column in train.column_names[:13]:
        fraction = train[column].null_count / train.num_rows
        assert fraction == pytest.approx(gaps.get(column, 0.0), abs=0.008)
    for column, empty in (("recent_songs", 0.05), ("liked_artists", 0.15)):
        lengths = pc.list_value_length(train[column])
        assert pc.mean(pc.equal(lengths, 0)).as_py() == pytest.approx(empty, abs=0.008)
    songs = {f"song-{index:05d}" for index in range(1, 1_921)}
    artists = {f"artist-{index:05d}" for index in range(1, 49)}
    assert set(train["song_id"].to_pylist()) <= songs
    assert set(pc.list_flatten(train["recent_songs"]).to_pylist()) <= songs
    assert set(train["artist_id"].to_pylist()) == artists
    assert set(pc.list_flatten(train["liked_artists"]).to_pylist()) == artists
    assert set(train["genre"].to_pylist()) == set(world.genres)
    assert set(train["mood"].to_pylist()) == {None, *world.moods}
    assert set(train["hour"].to_pylist()) == set(range(24))
    assert set(train["shuffle"].to_pylist()) == {0, 1}
    for column in ("tempo", "song_days", "artist_plays"):
        assert pc.min(train[column]).as_py() >= 0
        assert not pc.any(pc.is_nan(train[column])).as_py()


def test_a_song_has_one_album_an_album_one_artist_an_artist_one_genre(train: pa.Table) -> None:
    """And a song one tempo, an album one day; an artist has four albums of ten songs each."""
    for owner, columns in (
        ("song_id", ("album_id", "tempo")),
        ("album_id", ("artist_id", "song_days")),
        ("artist_id", ("genre",)),
    ):
        counts = train.group_by(owner).aggregate([(name, "count_distinct") for name in columns])
        for column in columns:
            assert max(counts[f"{column}_count_distinct"].to_pylist()) == 1
    albums = train.group_by("artist_id").aggregate([("album_id", "count_distinct")])
    assert set(albums["album_id_count_distinct"].to_pylist()) == {4}
    songs = train.group_by("album_id").aggregate([("song_id", "count_distinct")])
    assert max(songs["song_id_count_distinct"].to_pylist()) == 10


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rates_and_best_auc_do_not_depend_on_the_seed(seed: int) -> None:
    """Base rates meet their targets, and every task can be learned, but not perfectly."""
    world = Music(examples=50_000, rng=np.random.default_rng(seed))
    train = world.draw(np.random.default_rng(seed + 100), num_examples=40_000, start=0, stop=0.8)
    rates = {"song_play": 0.45, "artist_follow": 0.10, "album_save": 0.08}
    assert list(rates) == list(world.tasks)
    for task, rate in rates.items():
        labels, truth = observed(train, task)
        assert labels.mean() == pytest.approx(rate, rel=0.1)
        assert 0.79 < roc_auc_score(labels, truth) < 0.87


def test_labels_are_as_frequent_as_their_truth_says(world: Music, train: pa.Table) -> None:
    """In each of 10 bins of the truth, the count of ones lies within 4 standard errors; who did not
    hear the song neither follows nor saves."""
    for task in world.tasks:
        labels, truth = observed(train, task)
        for part in np.array_split(np.argsort(truth), 10):
            variance = (truth[part] * (1 - truth[part])).sum()
            assert abs(labels[part].sum() - truth[part].sum()) < 4 * np.sqrt(variance)
    played = pc.equal(train["song_play"], 1)
    assert train["artist_follow"].is_valid().equals(played)
    assert train["album_save"].is_valid().equals(played)


def test_popularity_follows_zipfs_law(train: pa.Table) -> None:
    """The logarithm of the count falls with that of the rank, at the stated slope."""
    for column, ranks in (("listener_id", (5, 300)), ("song_id", (5, 300))):
        counts = train[column].value_counts().field("counts").to_numpy()
        counts = np.sort(counts)[::-1][slice(*ranks)]
        slope, _ = np.polyfit(np.log(np.arange(*ranks)), np.log(counts), deg=1)
        assert slope == pytest.approx(-0.8, abs=0.1)


@pytest.mark.parametrize("column", ["recent_songs", "liked_artists"])
def test_lists_show_the_taste_of_the_listener(train: pa.Table, column: str) -> None:
    """What a heavy listener leans to more than others do, by genre, is the same in both halves."""

    def preferences(half: pa.Table) -> np.ndarray:
        shares = []
        for listener in range(1, 21):
            ids = pc.list_flatten(half.filter(pc.equal(half["listener_id"], listener))[column])
            genres = np.array([int(name.split("-")[1]) - 1 for name in ids.to_pylist()]) % 16
            shares.append(np.bincount(genres, minlength=16) / len(genres))
        return np.array(shares) - np.mean(shares, axis=0)

    middle = train.num_rows // 2
    first, second = preferences(train.slice(0, middle)), preferences(train.slice(middle))
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.8


@pytest.mark.parametrize(
    ("missing", "present"),
    [
        ({"tempos": np.full(500, np.nan)}, {"tempos": np.full(500, Music.tempo[0])}),
        ({"days": np.full(500, np.nan)}, {"days": np.full(500, np.expm1(Music.log_days[0]))}),
        *(
            ({name: dataclasses.replace(NO_IDS, missing=~NO_IDS.missing)}, {name: NO_IDS})
            for name in ("recent", "liked")
        ),
    ],
    ids=["tempo", "song_days", "recent_songs", "liked_artists"],
)
def test_missing_values_mean_to_the_truth_what_they_mean_to_a_model(
    world: Music, offers: Offers, missing: dict[str, Any], present: dict[str, Any]
) -> None:
    """A missing number is the mean, a null list an empty one."""
    left = world._truth(dataclasses.replace(offers, **missing))
    right = world._truth(dataclasses.replace(offers, **present))
    for task in world.tasks:
        np.testing.assert_allclose(left[task], right[task], rtol=1e-12)


def test_an_unknown_mood_is_one_more_mood(world: Music, offers: Offers) -> None:
    """With effects of its own."""
    unknown, calm = (
        world._truth(dataclasses.replace(offers, moods=np.full(500, mood))) for mood in (0, 1)
    )
    for task in world.tasks:
        assert not np.allclose(unknown[task], calm[task])
