"""What a news site publishes, and when which of it is shown.

Shape legend: N shows, A articles and a row 0 for none, T topics, W words of the longest headline.
"""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
from numpy.random import Generator

from data_loaders.scenarios.draws import Floats, Ints, normal, zipf

FADE_HOURS = 10.0  # an article's readers fall by a factor of e in that time
GUIDE_FRACTION = 0.35  # of the shows are of a guide: an article that does not fade


class Articles:
    """Articles count from 1: first the news, `num_hourly` each hour, then the guides.

    Attributes:
        names: (A,)
        published: hours since the log began, whole ones for news.
        publishers: from 1.
        topics: from 0.
        minutes: to read it.
        words_AW: of its headline, from 1; 0 stands behind the last one. 60% belong to the topic.
    """

    span_hours = 96  # of the log
    past_hours = 48  # of news from before the log
    headline_lengths = (4, 9)

    def __init__(
        self,
        *,
        num_hourly: int,
        num_guides: int,
        num_publishers: int,
        num_topics: int,
        num_words: int,
        log_minutes: tuple[float, float],
        rng: Generator,
    ) -> None:
        self.num_hourly, self.num_guides = num_hourly, num_guides
        self.num_news = num_hourly * (self.past_hours + self.span_hours)
        self.num_articles = self.num_news + num_guides
        T, A = num_topics, 1 + self.num_articles
        self.names = pa.array(["", *(f"a-{index:05d}" for index in range(1, A))])
        news_hours = np.repeat(np.arange(-self.past_hours, self.span_hours), num_hourly)
        guide_hours = -np.exp(rng.uniform(np.log(24), np.log(24 * 60), num_guides))
        self.published = np.concatenate([[0], news_hours, guide_hours])
        self.publishers = zipf(rng, num_ids=num_publishers, exponent=0.7, size=A)
        self.topics = rng.integers(T, size=A).astype(np.int8)
        mean, std = log_minutes
        self.minutes = np.expm1(mean + std * np.clip(normal(rng, A), -2.5, 2.5)).round(1)
        low, W = self.headline_lengths
        of_topic = zipf(rng, num_ids=num_words // T, exponent=0.6, size=A * W).reshape(A, W)
        of_topic = (of_topic - 1) * T + self.topics[:, None] + 1
        anything = zipf(rng, num_ids=num_words, exponent=0.6, size=A * W).reshape(A, W)
        words_AW = np.where(rng.random((A, W)) < 0.6, of_topic, anything).astype(np.int16)
        is_behind_AW = np.arange(W) >= rng.integers(low, W + 1, size=A)[:, None]
        self.words_AW = np.where(is_behind_AW, 0, words_AW)

    def shown(self, rng: Generator, times: Floats) -> Ints:
        """Which article is shown at each of these times, in hours; (N,)."""
        N = len(times)
        # How long ago the hour began in which the article came out: exponential, but within reach.
        reach = 1 - math.exp(-(self.past_hours - 1) / FADE_HOURS)
        age = -FADE_HOURS * np.log1p(-reach * rng.random(N))
        hour = np.floor(times - age).astype(np.int64) + self.past_hours
        news = hour * self.num_hourly + zipf(rng, num_ids=self.num_hourly, exponent=0.7, size=N)
        guide = self.num_news + zipf(rng, num_ids=self.num_guides, exponent=0.7, size=N)
        return np.where(rng.random(N) < GUIDE_FRACTION, guide, news)
