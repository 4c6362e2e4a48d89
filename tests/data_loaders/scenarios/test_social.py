"""The social network is what it says."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data_loaders.scenarios.social import Social, Views


@pytest.fixture(scope="module")
def world() -> Social:
    return Social(examples=100_000, rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def train(world: Social) -> pa.Table:
    return world.draw(np.random.default_rng(1), num_examples=20_000, start=0, stop=0.2)


@pytest.fixture
def views(world: Social) -> Views:
    return world._views(np.random.default_rng(2), 500)


def test_columns_hold_what_the_docstring_says(world: Social, train: pa.Table) -> None:
    """Types, ranges, gaps, and one author and one topic for each post."""
    types = {name: str(train.schema.field(name).type) for name in train.column_names[:15]}
    assert types == {
        "user_id": "int64",
        "user_age": "float",
        "friends": "list<item: int64>",
        "hour": "int8",
        "post_id": "string",
        "author_id": "int64",
        "topic": "string",
        "post_hours": "float",
        "candidate_id": "int64",
        "mutual_friends": "list<item: int64>",
        "num_mutual": "int8",
        "ad_id": "int64",
        "like": "int8",
        "friend_accept": "int8",
        "ad_click": "int8",
    }
    rates = {"user_age": 0.10, "post_hours": 0.10, "ad_id": 0.05, "friends": 0.05}
    for column in train.column_names:
        fraction = train[column].null_count / train.num_rows
        assert fraction == pytest.approx(rates.get(column, 0.0), abs=0.008)
    posts = train.group_by("post_id").aggregate(
        [("author_id", "count_distinct"), ("topic", "count_distinct")]
    )
    assert set(posts["author_id_count_distinct"].to_pylist()) == {1}
    assert set(posts["topic_count_distinct"].to_pylist()) == {1}
    assert pc.count_distinct(train["topic"]).as_py() == 16
    assert set(train["hour"].to_pylist()) == set(range(24))
    for column in ("user_id", "candidate_id"):
        assert pc.min(train[column]).as_py() >= 1
        assert pc.max(train[column]).as_py() <= world.num_users == 1_000


def test_the_lists_are_those_of_one_graph(train: pa.Table) -> None:
    """A user's friends are always the same; the mutual ones are on both lists; no candidate is a
    friend already, or the user; against sets rebuilt from the log alone."""
    friends: dict[int, list[int]] = {}
    for user, listed in zip(*(train[c].to_pylist() for c in ("user_id", "friends")), strict=True):
        if listed is not None:
            assert friends.setdefault(user, listed) == listed
    assert len(friends) > 900
    num_near = num_seen = 0
    columns = ("user_id", "candidate_id", "mutual_friends", "num_mutual")
    for user, candidate, mutual, number in zip(
        *(train[column].to_pylist() for column in columns), strict=True
    ):
        if user not in friends or candidate not in friends:
            continue
        assert candidate != user
        assert candidate not in friends[user]
        assert mutual == sorted(set(friends[user]) & set(friends[candidate]))
        assert number == len(mutual)
        num_near += number > 0
        num_seen += 1
    assert 0.5 < num_near / num_seen < 0.75


def test_missing_values_mean_to_the_truth_what_they_mean_to_a_model(
    world: Social, views: Views
) -> None:
    """A missing number is the mean, a hidden list an empty one, "no id" one more id."""
    nothing = np.full(500, np.nan)
    no_friends = {"friend_lengths": np.zeros(500, dtype=int), "listed_friends": np.array([], int)}
    hidden = np.ones(500, dtype=bool)
    mean_hours = np.full(500, np.expm1(world.log_post_hours[0]))
    for missing, present in (
        ({"ages": nothing}, {"ages": np.full(500, world.age[0])}),
        ({"post_hours": nothing}, {"post_hours": mean_hours}),
        (no_friends | {"friends_missing": hidden}, no_friends | {"friends_missing": ~hidden}),
    ):
        left = world._truth(dataclasses.replace(views, **missing))
        right = world._truth(dataclasses.replace(views, **present))
        for task in world.tasks:
            np.testing.assert_allclose(left[task], right[task], rtol=1e-12)
    no_ad = world._truth(dataclasses.replace(views, ads=np.zeros(500, dtype=int)))
    one_ad = world._truth(dataclasses.replace(views, ads=np.ones(500, dtype=int)))
    assert not np.allclose(no_ad["ad_click"], one_ad["ad_click"])


def test_the_circle_of_friends_moves_likes_and_ad_clicks_and_not_acceptance(
    world: Social, views: Views
) -> None:
    """With another list of friends the truth of two tasks is another; without, it differs too."""
    others = dataclasses.replace(views, listed_friends=views.listed_friends % world.num_users + 1)
    truth, changed = world._truth(views), world._truth(others)
    is_listed = views.friend_lengths > 0
    for task in ("like", "ad_click"):
        assert (truth[task] != changed[task])[is_listed].mean() > 0.99
        np.testing.assert_array_equal(truth[task][~is_listed], changed[task][~is_listed])
    np.testing.assert_array_equal(truth["friend_accept"], changed["friend_accept"])


def test_mutual_friends_make_acceptance_likelier(train: pa.Table) -> None:
    """On the labels alone."""
    rates = [
        pc.mean(train.filter(pc.field("num_mutual") == number)["friend_accept"]).as_py()
        for number in range(4)
    ]
    assert rates == sorted(rates)
    assert rates[3] > 2 * rates[0]
