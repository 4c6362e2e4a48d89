"""A news site.

Shape legend: N examples, I entries in all their lists, K latent factors, T topics, W words of the
    longest headline.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.random import Generator

from data_loaders.oracle import TaskKind
from data_loaders.scenarios.articles import Articles
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
class Views:
    """The examples of a chunk before labels; ids count from 1, a missing number is NaN."""

    users: Ints
    articles: Ints
    publishers: Ints  # 0: not known
    times: Floats  # hours since the log began
    ages: Floats  # hours
    minutes: Floats
    devices: Ints  # from 0
    ads: Ints  # 0: an ad without an id
    word_lengths: Ints
    word_missing: Bools
    listed_words: Ints  # of all headlines, one after the other
    topic_lengths: Ints
    topic_missing: Bools
    listed_topics: Ints  # from 0


class News:
    """A news site: visitors see a headline and an ad; some click, and some of those read on.

    The examples are in order of time and fill 96 hours, more of them by day than by night. Each
    hour brings new articles, whose readers fade: so none of those published in the last fifth of
    the log occurs in train, and they are 20% of the examples of valid and 45% of those of test.

    user_id           int64; examples / 150 users, at least 1,000, at most 10 million
    article_id        string, `a-00001` ...; examples / 8,000 each hour, at least 6, at most
                      4,000; and examples / 1,000 guides, which never fade, at least 100, at most
                      100,000
    publisher         string, that of the article, one of 30; 3% null
    topic             string, that of the article, one of 12
    headline          list of int16, 4 to 9 of 120 words, partly of the topic's; 5% null
    recent_topics     list of strings: what the user read lately, by the user's taste; 5% null, 10%
                      empty
    article_hours     float32, since publication; of guides up to 60 days
    reading_minutes   float32, of the article; 10% null
    hour              int8, 0 to 23
    device            string, one of 3
    ad_id             int64; examples / 2,000 ads, at least 50, at most 100,000; 5% null
    log_hours         float64, since the log began; rising
    article_id_is_new int8, 1: the article was published after the last example of train
    headline_click    int8; 25% are 1
    article_read      int8, null without a click; 40% of the others are 1
    ad_click          int8; 10% are 1

    Popularity follows Zipf's law: of users, of ads, of guides, of the articles of one hour. The
    signals are sums of effects of ids and words, of taste (products of latent factors) and of
    curves of the numbers, scaled on a pilot sample: the best AUCs (0.79 to 0.85) hardly depend on
    the seed or the size.

    An article has an effect of its own on the first two tasks, beside those of its topic, its
    publisher and its words. No training can tell that of a new article. So that the best possible
    stays possible, the truth of a new article's examples is the expectation over that effect, while
    their labels are drawn with it: the truth is calibrated, and reaches less on new articles.
    """

    topics = (
        *("business", "climate", "culture", "food", "health", "local"),
        *("opinion", "politics", "science", "sports", "technology", "travel"),
    )
    devices = ("phone", "tablet", "desktop")
    num_publishers = 30
    num_words = 120
    tasks: ClassVar[dict[str, TaskKind]] = {
        "headline_click": "binary",
        "article_read": "binary",
        "ad_click": "binary",
    }
    targets: ClassVar[dict[str, Target]] = {
        "headline_click": Target(0.25, spread=1.6),
        "article_read": Target(0.40, spread=1.6, given="headline_click"),
        "ad_click": Target(0.10, spread=1.4),
    }
    own_weights: ClassVar[dict[str, float]] = {"headline_click": 0.5, "article_read": 0.3}
    # Means and standard deviations, for a recipe to repeat.
    log_age = (3.3, 1.9)  # log(1 + article_hours)
    log_minutes = (1.6, 0.5)  # log(1 + reading_minutes)

    def __init__(self, *, examples: int, rng: Generator) -> None:
        T, K = len(self.topics), NUM_FACTORS
        self.num_users = min(max(examples // 150, 1_000), 10_000_000)
        num_hourly = min(max(examples // 8_000, 6), 4_000)
        num_guides = min(max(examples // 1_000, 100), 100_000)
        self.num_ads = min(max(examples // 2_000, 50), 100_000)
        self.description = (
            f"a news site with {self.num_users:,} users, {num_hourly:,} new articles an hour "
            f"in {T} topics, {num_guides:,} older ones and {self.num_ads:,} ads"
        )
        # Half as many readers at 3 o'clock as on average, half more at 15 o'clock.
        self.clock = np.linspace(0, Articles.span_hours, 4 * Articles.span_hours + 1)
        crowd = 1 - 0.5 * np.cos((self.clock - 3) * math.tau / 24)
        self.crowd_before = np.concatenate([[0], np.cumsum(crowd[1:])]) / crowd[1:].sum()
        self.train_hours = self._hours(np.array(1 - 2 * (examples // 10) / examples))
        self.articles = Articles(
            num_hourly=num_hourly,
            num_guides=num_guides,
            num_publishers=self.num_publishers,
            num_topics=T,
            num_words=self.num_words,
            log_minutes=self.log_minutes,
            rng=rng,
        )

        # Effects by id, row 0 for "no id" where there may be none.
        users, ads = self.num_users + 1, self.num_ads + 1
        self.topic_factors = standardized(normal(rng, T, K))
        self.user_factors = normal(rng, users, K)
        self.ad_factors = normal(rng, ads, K)
        eager = normal(rng, users)
        self.user_effect = {
            "click": eager,
            "read": normal(rng, users),
            "ad": 0.5 * eager + 0.5 * normal(rng, users),
        }
        self.topic_effect = standardized(normal(rng, T, 2))
        self.publisher_effect = standardized(normal(rng, self.num_publishers + 1, 2))
        # Words that lure clicks are read on less.
        lure, depth = standardized(normal(rng, self.num_words + 1, 2)).T
        self.word_effect = np.stack([lure, depth - 0.5 * lure], axis=1)
        self.own_effect = {
            task: normal(rng, self.articles.num_articles + 1) for task in self.own_weights
        }
        self.ad_effect = normal(rng, ads)
        pilot = self._views(rng, self._hours(np.linspace(0, 1, NUM_PILOT_EXAMPLES, endpoint=False)))
        signals = self._with_own(self._signals(pilot), pilot)
        self.scales = calibrate(signals, tasks=self.tasks, targets=self.targets)

    def draw(self, rng: Generator, *, num_examples: int, start: float, stop: float) -> pa.Table:
        """The next examples of the log: features, labels and truth."""
        steps = np.arange(num_examples) + rng.random(num_examples)
        views = self._views(rng, self._hours(start + (stop - start) * steps / num_examples))
        signals = self._signals(views)
        chances = self._truth(self._with_own(signals, views))
        names = pa.array(f"paper-{index:02d}" for index in range(self.num_publishers + 1))
        topics = pa.array(self.topics)
        listed_words = pa.array(views.listed_words, pa.int16())
        listed_topics = topics.take(pa.array(views.listed_topics))
        columns = {
            "user_id": pa.array(views.users),
            "article_id": self.articles.names.take(pa.array(views.articles)),
            "publisher": names.take(pa.array(views.publishers, mask=views.publishers == 0)),
            "topic": topics.take(pa.array(self.articles.topics[views.articles])),
            "headline": lists(listed_words, lengths=views.word_lengths, missing=views.word_missing),
            "recent_topics": lists(
                listed_topics, lengths=views.topic_lengths, missing=views.topic_missing
            ),
            "article_hours": pa.array(views.ages, pa.float32()),
            "reading_minutes": pa.array(views.minutes, pa.float32(), from_pandas=True),
            "hour": pa.array(views.times.astype(np.int64) % 24, pa.int8()),
            "device": pa.array(self.devices).take(pa.array(views.devices)),
            "ad_id": pa.array(views.ads, mask=views.ads == 0),
            "log_hours": pa.array(views.times),
            "article_id_is_new": pa.array(self._is_new(views).astype(np.int8)),
        }
        columns |= binary_labels(rng, truth=chances, tasks=self.tasks, targets=self.targets)
        truth = self._expected(signals, views)
        columns |= {f"truth_{task}": pa.array(truth_N) for task, truth_N in truth.items()}
        return pa.table(columns)

    def _hours(self, fractions: Floats) -> Floats:
        """When these fractions of the log's examples have been shown, in hours."""
        return np.interp(fractions, self.crowd_before, self.clock)

    def _is_new(self, views: Views) -> Bools:
        return self.articles.published[views.articles] >= self.train_hours

    def _views(self, rng: Generator, times: Floats) -> Views:
        N = len(times)
        users = zipf(rng, num_ids=self.num_users, exponent=0.8, size=N)
        articles = self.articles.shown(rng, times)
        word_missing = rng.random(N) < 0.05
        words_NW = np.where(word_missing[:, None], 0, self.articles.words_AW[articles])
        # Gumbel's trick: topics with probabilities that rise with the user's taste.
        missing, empty = rng.random((2, N)) < [[0.05], [0.10]]
        lengths = np.where(missing | empty, 0, 1 + rng.poisson(4.0, N))
        taste_NT = 1.2 * self.user_factors[users] @ self.topic_factors.T
        taste_IT = np.repeat(taste_NT, lengths, axis=0)
        listed_topics = np.argmax(taste_IT + rng.gumbel(size=taste_IT.shape), axis=1)

        minutes = self.articles.minutes[articles].astype(np.float64)
        minutes[rng.random(N) < 0.10] = np.nan
        ads = zipf(rng, num_ids=self.num_ads, exponent=0.7, size=N)
        return Views(
            users=users,
            articles=articles,
            publishers=np.where(rng.random(N) < 0.03, 0, self.articles.publishers[articles]),
            times=times,
            ages=times - self.articles.published[articles],
            minutes=minutes,
            devices=rng.choice(len(self.devices), p=(0.6, 0.1, 0.3), size=N),
            ads=np.where(rng.random(N) < 0.05, 0, ads),
            word_lengths=(words_NW > 0).sum(axis=1),
            word_missing=word_missing,
            listed_words=words_NW[words_NW > 0].astype(np.int64),
            topic_lengths=lengths,
            topic_missing=missing,
            listed_topics=listed_topics,
        )

    def _signals(self, views: Views) -> dict[str, Floats]:
        """Each task's true logit before its scale, without the article's own effect."""
        user, users = self.user_effect, views.users
        topics = self.articles.topics[views.articles]
        lure, depth = means(self.word_effect[views.listed_words], lengths=views.word_lengths).T
        known, trusted = self.publisher_effect[views.publishers].T
        hot, deep = self.topic_effect[topics].T
        old = (np.log1p(views.ages) - self.log_age[0]) / self.log_age[1]
        long = np.nan_to_num((np.log1p(views.minutes) - self.log_minutes[0]) / self.log_minutes[1])
        # On a phone short articles are read to the end, at a desk longer ones too.
        misfit = np.abs(long - np.array([-0.8, 0.0, 0.8])[views.devices])
        at_desk = views.devices == self.devices.index("desktop")
        rush = np.cos((np.floor(views.times) - 8) * math.tau / 12)  # at 8 and 20 o'clock
        user_NK, topic_NK = self.user_factors[users], self.topic_factors[topics]
        listed_NK = means(self.topic_factors[views.listed_topics], lengths=views.topic_lengths)
        taste, history = products(user_NK, topic_NK), products(listed_NK, topic_NK)
        ad_NK = self.ad_factors[views.ads]
        return {
            "headline_click": 1.5 * lure + 0.5 * known + 0.6 * hot + 0.3 * user["click"][users]
            + 0.15 * taste + 0.25 * history - 0.5 * old + 0.4 * rush + 0.4 * at_desk,
            "article_read": 1.3 * depth + 0.7 * trusted + 0.4 * deep + 0.3 * user["read"][users]
            + 0.15 * taste + 0.2 * history + 0.3 * old - misfit + 0.4 * at_desk,
            "ad_click": self.ad_effect[views.ads] + 0.4 * user["ad"][users] + 0.5 * at_desk
            + 0.15 * products(user_NK, ad_NK) + 0.2 * products(topic_NK, ad_NK) - 0.5 * rush,
        }  # fmt: skip

    def _with_own(
        self, signals: dict[str, Floats], views: Views, *, of_new: float | None = None
    ) -> dict[str, Floats]:
        """The signals and each article's own effect; `of_new` stands for that of the new ones."""
        total = dict(signals)
        for task, weight in self.own_weights.items():
            own_N = self.own_effect[task][views.articles]
            if of_new is not None:
                own_N = np.where(self._is_new(views), of_new, own_N)
            total[task] = signals[task] + weight * own_N
        return total

    def _expected(self, signals: dict[str, Floats], views: Views) -> dict[str, Floats]:
        """The truth; of new articles its mean over their own effect, a standard normal one.

        By Gauss-Hermite quadrature.
        """
        nodes, weights = np.polynomial.hermite_e.hermegauss(9)
        total: dict[str, Floats] = {task: np.zeros(len(views.users)) for task in signals}
        for node, weight in zip(nodes, weights / weights.sum(), strict=True):
            truth = self._truth(self._with_own(signals, views, of_new=node))
            total = {task: total[task] + weight * truth[task] for task in total}
        return total

    def _truth(self, signals: dict[str, Floats]) -> dict[str, Floats]:
        return truth_of(signals, tasks=self.tasks, targets=self.targets, scales=self.scales)
