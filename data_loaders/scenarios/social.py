"""A social network.

Shape legend: N examples, I ids in all their lists, K latent factors, G communities, T topics.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
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
from data_loaders.scenarios.friend_graph import MEMBERS, community_of, draw_friend_graph


@dataclass(frozen=True)
class Views:
    """The examples of a chunk before labels; ids count from 1, a missing number is NaN."""

    users: Ints
    posts: Ints
    candidates: Ints
    ads: Ints  # 0: an ad without an id
    hours: Ints
    friend_lengths: Ints
    friends_missing: Bools
    listed_friends: Ints  # of all lists, one after the other
    mutual_lengths: Ints
    listed_mutual: Ints
    ages: Floats
    post_hours: Floats


class Social:
    """A social network: a user sees a post, a suggested friend and an ad.

    user_id         int64; examples / 150 users, at least 1,000, at most 1 million
    user_age        float32, years; 10% null
    friends         list of user ids, rising, 9 in the mean and at most 30; 5% null
    hour            int8, 0 to 23, most of them in the evening
    post_id         string, `post-00001` ...; examples / 400 posts, at least 300, at most 2 million
    author_id       int64, that of the post; a tenth as many authors as posts
    topic           string, that of the post, one of 16
    post_hours      float32, since it was posted; 10% null
    candidate_id    int64, a user that is no friend yet, two in three a friend of a friend
    mutual_friends  list of user ids, friends of both, rising; for most it is empty
    num_mutual      int8, the length of that list
    ad_id           int64; examples / 2,000 ads, at least 50, at most 100,000; 5% null
    like            int8; 25% are 1
    friend_accept   int8; 15% are 1
    ad_click        int8; 10% are 1

    The friend graph is drawn once, in communities of 50 users, and is the same for the whole log:
    four in five friendships lie inside a community, whose members are of similar taste. Popularity
    of users, posts and ads follows Zipf's law, number 1 first. Signals are sums of effects of the
    ids, of the mean of the friends' hidden traits, of taste (products of latent factors) and of
    curves of the numbers, scaled on a pilot sample: the best AUCs (0.80 to 0.85) hardly depend on
    the seed or the size.
    """

    topics = (
        *("animals", "art", "cars", "cooking", "fashion", "film", "fitness", "football"),
        *("gaming", "memes", "music", "nature", "news", "parenting", "science", "travel"),
    )
    tasks: ClassVar[dict[str, TaskKind]] = {
        "like": "binary",
        "friend_accept": "binary",
        "ad_click": "binary",
    }
    targets: ClassVar[dict[str, Target]] = {
        "like": Target(0.25, spread=1.6),
        "friend_accept": Target(0.15, spread=1.5),
        "ad_click": Target(0.10, spread=1.4),
    }
    # Means and standard deviations, for a recipe to repeat.
    age = (34.0, 11.0)
    log_post_hours = (2.2, 1.0)  # log(1 + post_hours)

    def __init__(self, *, examples: int, rng: Generator) -> None:
        K, T = NUM_FACTORS, len(self.topics)
        self.num_users = min(max(examples // 150, 1_000), 1_000_000) // MEMBERS * MEMBERS
        self.num_posts = min(max(examples // 400, 300), 2_000_000)
        self.num_authors = self.num_posts // 10
        self.num_ads = min(max(examples // 2_000, 50), 100_000)
        self.graph = draw_friend_graph(rng, num_users=self.num_users)
        self.description = (
            f"a social network with {self.num_users:,} users, {len(self.graph.keys_E) // 2:,} "
            f"friendships, {self.num_posts:,} posts and {self.num_ads:,} ads"
        )
        # Effects by id, row 0 for "no id"; float32, because the largest have millions of rows.
        users, posts, authors = self.num_users + 1, self.num_posts + 1, self.num_authors + 1
        community = community_of(np.arange(users), num_users=self.num_users)
        community_factors_GK = standardized(normal(rng, self.num_users // MEMBERS, K))
        self.user_factors = 0.8 * community_factors_GK[community] + 0.6 * normal(rng, users, K)
        self.user_age = np.clip(self.age[0] + self.age[1] * normal(rng, users), 16, 80).round()
        sociable = normal(rng, users)
        self.user_effect = {
            "like": 0.6 * sociable + 0.8 * normal(rng, users),
            "friend_accept": 0.8 * sociable + 0.6 * normal(rng, users),
            "ad_click": normal(rng, users),
        }
        self.user_charm = normal(rng, users)  # as a candidate
        # Friends' traits: what they like and what they buy rubs off.
        self.user_trait = {
            task: 0.8 * standardized(normal(rng, self.num_users // MEMBERS))[community]
            + 0.6 * normal(rng, users)
            for task in ("like", "ad_click")
        }
        self.post_author = 1 + rng.integers(self.num_authors, size=posts)
        self.post_topic = rng.integers(T, size=posts)
        topic_factors_TK = standardized(normal(rng, T, K))
        self.post_factors = 0.8 * topic_factors_TK[self.post_topic] + 0.6 * normal(rng, posts, K)
        self.post_effect = 0.6 * normal(rng, posts) + 0.5 * normal(rng, authors)[self.post_author]
        self.post_effect += 0.4 * standardized(normal(rng, T))[self.post_topic]
        self.ad_effect = normal(rng, self.num_ads + 1)
        self.ad_factors = normal(rng, self.num_ads + 1, K)
        self.post_names = pa.array(["", *(f"post-{index:05d}" for index in range(1, posts))])
        pilot = self._signals(self._views(rng, NUM_PILOT_EXAMPLES))
        self.scales = calibrate(pilot, tasks=self.tasks, targets=self.targets)

    def draw(self, rng: Generator, *, num_examples: int, start: float, stop: float) -> pa.Table:
        """The next examples of the log: features, labels and truth; any day is like any other."""
        views = self._views(rng, num_examples)
        truth = self._truth(views)
        labels = binary_labels(rng, truth=truth, tasks=self.tasks, targets=self.targets)
        columns = {
            "user_id": pa.array(views.users),
            "user_age": pa.array(views.ages, pa.float32(), from_pandas=True),
            "friends": lists(
                pa.array(views.listed_friends),
                lengths=views.friend_lengths,
                missing=views.friends_missing,
            ),
            "hour": pa.array(views.hours, pa.int8()),
            "post_id": self.post_names.take(pa.array(views.posts)),
            "author_id": pa.array(self.post_author[views.posts]),
            "topic": pa.array(self.topics).take(pa.array(self.post_topic[views.posts])),
            "post_hours": pa.array(views.post_hours, pa.float32(), from_pandas=True),
            "candidate_id": pa.array(views.candidates),
            "mutual_friends": lists(
                pa.array(views.listed_mutual),
                lengths=views.mutual_lengths,
                missing=np.zeros(num_examples, dtype=bool),
            ),
            "num_mutual": pa.array(views.mutual_lengths, pa.int8()),
            "ad_id": pa.array(views.ads, mask=views.ads == 0),
        }
        columns |= labels
        columns |= {f"truth_{task}": pa.array(truth_N) for task, truth_N in truth.items()}
        return pa.table(columns)

    def _views(self, rng: Generator, num_examples: int) -> Views:
        users = zipf(rng, num_ids=self.num_users, exponent=0.7, size=num_examples)
        posts = zipf(rng, num_ids=self.num_posts, exponent=0.8, size=num_examples)
        ads = zipf(rng, num_ids=self.num_ads, exponent=0.7, size=num_examples)
        ads[rng.random(num_examples) < 0.05] = 0
        crowd = 1 + 0.8 * np.cos((np.arange(24) - 20) * math.tau / 24)
        hours = rng.choice(24, p=crowd / crowd.sum(), size=num_examples)

        candidates = self._candidates(rng, users)
        num_friends = self.graph.num_friends(users)
        friends = self.graph.friends(users)
        owner = np.repeat(np.arange(num_examples), num_friends)
        is_mutual = self.graph.are_friends(candidates[owner], friends)
        # hidden from the log, but the network still knows who is a friend of both
        hidden = rng.random(num_examples) < 0.05

        ages = np.where(rng.random(num_examples) < 0.10, np.nan, self.user_age[users])
        post_hours = np.expm1(np.clip(rng.normal(*self.log_post_hours, size=num_examples), 0, 6))
        post_hours[rng.random(num_examples) < 0.10] = np.nan
        return Views(
            users=users,
            posts=posts,
            candidates=candidates,
            ads=ads,
            hours=hours,
            friend_lengths=np.where(hidden, 0, num_friends),
            friends_missing=hidden,
            listed_friends=friends[~hidden[owner]],
            mutual_lengths=np.bincount(owner[is_mutual], minlength=num_examples),
            listed_mutual=friends[is_mutual],
            ages=ages,
            post_hours=post_hours,
        )

    def _candidates(self, rng: Generator, users: Ints) -> Ints:
        """A stranger for each user: two in three a friend of a friend, if there is one."""
        candidates = zipf(rng, num_ids=self.num_users, exponent=0.5, size=len(users))
        friends = self.graph.random_friend(rng, users)
        friends_of_friends = self.graph.random_friend(rng, friends)
        is_near = (rng.random(len(users)) < 2 / 3) & (friends > 0)
        candidates = np.where(is_near, friends_of_friends, candidates)
        while True:
            known = (candidates == users) | self.graph.are_friends(users, candidates)
            if not known.any():
                return candidates
            candidates[known] = candidates[known] % self.num_users + 1

    def _signals(self, views: Views) -> dict[str, Floats]:
        """Each task's true logit before it is scaled."""
        user, users, candidates = self.user_effect, views.users, views.candidates
        age = np.nan_to_num((views.ages - self.age[0]) / self.age[1])
        hours = np.log1p(views.post_hours)
        old = np.tanh(np.nan_to_num((hours - self.log_post_hours[0]) / self.log_post_hours[1]))
        evening = np.cos((views.hours - 21) * math.tau / 24)
        mutual = np.minimum(np.log1p(views.mutual_lengths), 2)
        owners = community_of(users, num_users=self.num_users)
        same = owners == community_of(candidates, num_users=self.num_users)

        def of_friends(values_IK: Floats) -> Floats:
            return means(values_IK, lengths=views.friend_lengths)

        friends = views.listed_friends
        user_NK, post_NK = self.user_factors[users], self.post_factors[views.posts]
        circle_NK = of_friends(self.user_factors[friends])
        trait = {
            task: of_friends(values[friends][:, None])[:, 0]
            for task, values in self.user_trait.items()
        }
        return {
            "like": self.post_effect[views.posts] + 0.4 * user["like"][users]
            + 0.2 * products(user_NK, post_NK) + 0.3 * products(circle_NK, post_NK)
            + 0.5 * trait["like"] - 0.5 * old,
            "friend_accept": self.user_charm[candidates] + 0.6 * user["friend_accept"][users]
            + 1.2 * mutual + 0.4 * same + 0.2 * products(user_NK, self.user_factors[candidates])
            - 0.3 * np.abs(age),
            "ad_click": self.ad_effect[views.ads] + 0.4 * user["ad_click"][users]
            + 0.2 * products(user_NK, self.ad_factors[views.ads]) + 0.6 * trait["ad_click"]
            + 0.4 * evening + 0.3 * age,
        }  # fmt: skip

    def _truth(self, views: Views) -> dict[str, Floats]:
        signals = self._signals(views)
        return truth_of(signals, tasks=self.tasks, targets=self.targets, scales=self.scales)
