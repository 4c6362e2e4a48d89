"""A music service.

Shape legend: N examples, I ids in all their lists, K latent factors, G genres, M moods.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.random import Generator

from data_loaders.oracle import TaskKind
from data_loaders.scenarios.calibration import (
    NUM_PILOT_EXAMPLES,
    Target,
    binary_labels,
    calibrate,
    truth_of,
)
from data_loaders.scenarios.draws import (
    NUM_FACTORS,
    Bools,
    Floats,
    Ints,
    lists,
    means,
    normal,
    products,
    standardized,
    zipf,
)


@dataclass(frozen=True)
class Lists:
    """One list of ids for each example: their lengths, and all ids, one list after the other."""

    lengths: Ints
    missing: Bools
    ids: Ints

    def named(self, names: pa.Array) -> pa.ListArray:
        ids = names.take(pa.array(self.ids))
        return lists(ids, lengths=self.lengths, missing=self.missing)


@dataclass(frozen=True)
class Offers:
    """The examples of a chunk before labels; ids count from 1, a missing number is NaN."""

    listeners: Ints
    songs: Ints
    moods: Ints  # 0: not known
    hours: Ints
    shuffled: Bools
    recent: Lists  # songs
    liked: Lists  # artists
    tempos: Floats
    days: Floats
    plays: Floats


class Music:
    """A music service: a listener is offered a song; who hears it out may follow and save.

    listener_id       int64; examples / 150 listeners, at least 1,000, at most 10 million
    song_id           string, `song-00001` ...; ten on each album
    album_id          int64, that of the song; four by each artist
    artist_id         string, `artist-00001` ..., that of the album; examples / 2,500 artists, at
                      least 48, at most 50,000
    genre             string, that of the artist, one of 16
    mood              string, of the session, one of 5; 20% null
    hour              int8, 0 to 23, most of them in the evening
    shuffle           int8, 1: the service chooses the order
    recent_songs      list of song ids: heard last, partly of the listener's taste; 5% null, 5%
                      empty
    liked_artists     list of artist ids, by the listener's taste; 5% null, 15% empty
    tempo             float32, of the song, beats per minute; 5% null
    song_days         float32, since the song came out; 10% null
    artist_plays      float32: how often the listener heard the artist in the last month, more often
                      by taste
    song_play         int8, played to the end; 45% are 1
    artist_follow     int8, null without a play; 10% of the others are 1
    album_save        int8, null without a play; 8% of the others are 1

    Popularity follows Zipf's law, number 1 first. Each task's signal, a sum of effects of the ids,
    of taste (products of latent factors) and of curves of the numbers, is scaled on a pilot sample:
    the rates and the best AUCs (0.80 to 0.85) hardly depend on the seed or the size.
    """

    genres = (
        *("ambient", "blues", "classical", "country", "dance", "electronic", "folk", "funk"),
        *("hiphop", "indie", "jazz", "metal", "pop", "reggae", "rock", "soul"),
    )
    moods = ("calm", "focus", "party", "sad", "workout")
    # The tempo that suits a mood, in standard deviations; first that of an unknown one.
    mood_tempo = (0.0, -1.2, -0.4, 0.8, -0.8, 1.4)
    tasks: ClassVar[dict[str, TaskKind]] = {
        "song_play": "binary",
        "artist_follow": "binary",
        "album_save": "binary",
    }
    targets: ClassVar[dict[str, Target]] = {
        "song_play": Target(0.45, spread=1.6),
        "artist_follow": Target(0.10, spread=1.6, given="song_play"),
        "album_save": Target(0.08, spread=1.6, given="song_play"),
    }
    # Means and standard deviations, for a recipe to repeat.
    tempo = (118.0, 24.0)
    log_days = (5.5, 1.4)  # log(1 + song_days)
    log_plays = (1.2, 0.8)  # log(1 + artist_plays)

    def __init__(self, *, examples: int, rng: Generator) -> None:
        G, K = len(self.genres), NUM_FACTORS
        self.num_listeners = min(max(examples // 150, 1_000), 10_000_000)
        self.num_artists = min(max(examples // 2_500, 48), 50_000) // G * G
        self.num_albums = 4 * self.num_artists
        self.num_songs = 10 * self.num_albums
        self.description = (
            f"a music service with {self.num_listeners:,} listeners and {self.num_songs:,} songs "
            f"on {self.num_albums:,} albums of {self.num_artists:,} artists in {G} genres"
        )
        # Effects by id, row 0 for "no id"; float32, because the largest have ten million rows.
        listeners, songs = self.num_listeners + 1, self.num_songs + 1
        albums, artists = self.num_albums + 1, self.num_artists + 1
        genre = (np.arange(artists) - 1) % G
        self.genre_factors = standardized(normal(rng, G, K))
        apart = standardized(normal(rng, artists, K))
        self.artist_factors = 0.8 * self.genre_factors[genre] + 0.6 * apart
        self.listener_factors = normal(rng, listeners, K)
        loved, loyal, prized = standardized(normal(rng, G, 3)).T[:, genre]
        star, idol, crafted = standardized(normal(rng, artists, 3)).T
        self.artist_effect = {
            "song_play": 0.6 * loved + 0.6 * star,
            "artist_follow": 0.8 * loyal + 0.6 * idol - 0.3 * star,
            "album_save": 0.8 * prized + 0.5 * crafted,
        }
        self.song_effect = normal(rng, songs)
        self.album_effect = standardized(normal(rng, albums))
        self.mood_effect = standardized(normal(rng, len(self.moods) + 1, 3))
        patient = normal(rng, listeners)
        self.listener_effect = {
            "song_play": patient,
            "artist_follow": normal(rng, listeners),
            "album_save": 0.5 * patient + 0.9 * normal(rng, listeners),
        }
        speed = np.clip(normal(rng, songs), -2.5, 2.5)
        self.song_tempo = (self.tempo[0] + self.tempo[1] * speed).round()
        days = np.clip(normal(rng, albums), -2.5, 2.5)
        self.album_days = np.expm1(self.log_days[0] + self.log_days[1] * days).round()
        self.song_names = pa.array(["", *(f"song-{index:05d}" for index in range(1, songs))])
        self.artist_names = pa.array(["", *(f"artist-{index:05d}" for index in range(1, artists))])
        pilot = self._signals(self._offers(rng, NUM_PILOT_EXAMPLES))
        self.scales = calibrate(pilot, tasks=self.tasks, targets=self.targets)

    def draw(self, rng: Generator, *, num_examples: int, start: float, stop: float) -> pa.Table:
        """The next examples of the log: features, labels and truth; any day is like any other."""
        offers = self._offers(rng, num_examples)
        truth = self._truth(offers)
        albums = _turn(offers.songs, self.num_albums)
        artists = _turn(albums, self.num_artists)
        genres = pa.array(self.genres).take(pa.array(_turn(artists, len(self.genres)) - 1))
        moods = pa.array((None, *self.moods)).take(pa.array(offers.moods))
        columns = {
            "listener_id": pa.array(offers.listeners),
            "song_id": self.song_names.take(pa.array(offers.songs)),
            "album_id": pa.array(albums),
            "artist_id": self.artist_names.take(pa.array(artists)),
            "genre": genres,
            "mood": moods,
            "hour": pa.array(offers.hours, pa.int8()),
            "shuffle": pa.array(offers.shuffled.astype(np.int8)),
            "recent_songs": offers.recent.named(self.song_names),
            "liked_artists": offers.liked.named(self.artist_names),
            "tempo": pa.array(offers.tempos, pa.float32(), from_pandas=True),
            "song_days": pa.array(offers.days, pa.float32(), from_pandas=True),
            "artist_plays": pa.array(offers.plays, pa.float32()),
        }
        columns |= binary_labels(rng, truth=truth, tasks=self.tasks, targets=self.targets)
        columns |= {f"truth_{task}": pa.array(truth_N) for task, truth_N in truth.items()}
        return pa.table(columns)

    def _offers(self, rng: Generator, num_examples: int) -> Offers:
        N = num_examples
        listeners = zipf(rng, num_ids=self.num_listeners, exponent=0.8, size=N)
        songs = zipf(rng, num_ids=self.num_songs, exponent=0.8, size=N)
        moods = 1 + rng.choice(len(self.moods), p=(0.2, 0.25, 0.2, 0.15, 0.2), size=N)
        crowd = 1 + 0.6 * np.cos((np.arange(24) - 19) * math.tau / 24)
        artists = _turn(songs, self.num_artists)
        taste = products(self.listener_factors[listeners], self.artist_factors[artists])
        log_plays = self.log_plays[0] + 0.4 * taste + 0.7 * rng.standard_normal(N)
        days = self.album_days[_turn(songs, self.num_albums)]
        # Forty songs of each favourite artist, the first one most often.
        recent = self._favourites(rng, listeners, empty=0.05, mean_length=5.5)
        rank = zipf(rng, num_ids=40, exponent=0.8, size=len(recent.ids))
        recent = replace(recent, ids=recent.ids + (rank - 1) * self.num_artists)
        return Offers(
            listeners=listeners,
            songs=songs,
            moods=np.where(rng.random(N) < 0.20, 0, moods),
            hours=rng.choice(24, p=crowd / crowd.sum(), size=N),
            shuffled=rng.random(N) < 0.4,
            recent=recent,
            liked=self._favourites(rng, listeners, empty=0.15, mean_length=4.0),
            tempos=np.where(rng.random(N) < 0.05, np.nan, self.song_tempo[songs]),
            days=np.where(rng.random(N) < 0.10, np.nan, days),
            plays=np.expm1(np.clip(log_plays, 0, 5)).round(),
        )

    def _favourites(
        self, rng: Generator, listeners: Ints, *, empty: float, mean_length: float
    ) -> Lists:
        """Artists, 70% of a list's from one genre, by the listener's taste (Gumbel's trick)."""
        N, G = len(listeners), len(self.genres)
        missing, is_empty = rng.random((2, N)) < [[0.05], [empty]]
        lengths = np.where(missing | is_empty, 0, 1 + rng.poisson(mean_length - 1, N))
        taste_NG = self.listener_factors[listeners] @ self.genre_factors.T
        favourite_N = np.argmax(taste_NG + rng.gumbel(size=(N, G)), axis=1)
        favourite_I = np.repeat(favourite_N, lengths)
        any_I = zipf(rng, num_ids=self.num_artists, exponent=0.6, size=len(favourite_I))
        rank_I = zipf(rng, num_ids=self.num_artists // G, exponent=0.6, size=len(favourite_I))
        of_favourite_I = (rank_I - 1) * G + favourite_I + 1
        ids = np.where(rng.random(len(favourite_I)) < 0.7, of_favourite_I, any_I)
        return Lists(lengths=lengths, missing=missing, ids=ids)

    def _signals(self, offers: Offers) -> dict[str, Floats]:
        """Each task's true logit before its scale."""
        albums = _turn(offers.songs, self.num_albums)
        artists = _turn(albums, self.num_artists)
        artist = {task: effect[artists] for task, effect in self.artist_effect.items()}
        listener = {task: effect[offers.listeners] for task, effect in self.listener_effect.items()}
        cheered, opened, stirred = self.mood_effect[offers.moods].T
        fast = np.nan_to_num((offers.tempos - self.tempo[0]) / self.tempo[1])
        misfit = np.abs(fast - np.array(self.mood_tempo)[offers.moods])
        old = np.nan_to_num((np.log1p(offers.days) - self.log_days[0]) / self.log_days[1])
        known = np.tanh((np.log1p(offers.plays) - self.log_plays[0]) / self.log_plays[1])
        evening = np.cos((offers.hours - 20) * math.tau / 24)
        listener_NK = self.listener_factors[offers.listeners]
        artist_NK = self.artist_factors[artists]
        recent_artists = _turn(offers.recent.ids, self.num_artists)
        recent_NK = means(self.artist_factors[recent_artists], lengths=offers.recent.lengths)
        liked_NK = means(self.artist_factors[offers.liked.ids], lengths=offers.liked.lengths)
        taste = products(listener_NK, artist_NK)
        recent, liked = products(recent_NK, artist_NK), products(liked_NK, artist_NK)
        return {
            "song_play": artist["song_play"] + 0.3 * self.song_effect[offers.songs]
            + 0.4 * listener["song_play"] + 0.15 * taste + 0.15 * recent - 0.6 * misfit
            + 0.5 * known + 0.4 * cheered + 0.3 * evening - 0.5 * offers.shuffled,
            "artist_follow": artist["artist_follow"] + 0.2 * listener["artist_follow"]
            + 0.1 * taste + 0.2 * liked + 0.9 * known + 0.4 * opened - 0.5 * offers.shuffled,
            "album_save": artist["album_save"] + 0.3 * self.album_effect[albums]
            + 0.2 * listener["album_save"] + 0.1 * taste + 0.15 * recent - 0.6 * old
            + 0.3 * known + 0.4 * stirred + 0.3 * evening,
        }  # fmt: skip

    def _truth(self, offers: Offers) -> dict[str, Floats]:
        signals = self._signals(offers)
        return truth_of(signals, tasks=self.tasks, targets=self.targets, scales=self.scales)


def _turn(numbers: Ints, size: int) -> Ints:
    """Songs, albums, artists and genres take turns: each has popular ones and rare ones."""
    return (numbers - 1) % size + 1
