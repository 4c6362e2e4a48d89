"""The friend graph against plain sets of pairs."""

from __future__ import annotations

import numpy as np
import pytest

from data_loaders.scenarios.friend_graph import (
    MAX_FRIENDS,
    MEMBERS,
    FriendGraph,
    community_of,
    draw_friend_graph,
)

NUM_USERS = 600


@pytest.fixture(scope="module")
def graph() -> FriendGraph:
    return draw_friend_graph(np.random.default_rng(0), num_users=NUM_USERS)


@pytest.fixture(scope="module")
def friends(graph: FriendGraph) -> dict[int, list[int]]:
    users = range(1, NUM_USERS + 1)
    return {user: graph.friends(np.array([user])).tolist() for user in users}


def test_friendship_is_mutual_and_nobody_is_a_friend_of_oneself(
    friends: dict[int, list[int]],
) -> None:
    """Every pair is there in both directions, once; ids lie in range."""
    pairs = [(user, friend) for user, others in friends.items() for friend in others]
    assert set(pairs) == {(friend, user) for user, friend in pairs}
    assert len(pairs) == len(set(pairs)) > 0
    assert all(left != right for left, right in pairs)
    assert {right for _, right in pairs} <= set(friends)


def test_friends_are_few_and_mostly_of_the_own_community(friends: dict[int, list[int]]) -> None:
    """At most 30, 9 in the mean, four in five inside; some have many, and some few."""
    numbers = np.array([len(others) for others in friends.values()])
    assert numbers.max() <= MAX_FRIENDS
    assert numbers.mean() == pytest.approx(9, abs=1)
    assert (numbers >= 20).any()
    assert (numbers <= 3).any()
    users = np.repeat(np.array(list(friends)), numbers)
    others = np.concatenate(list(friends.values())).astype(int)
    inside = community_of(users, num_users=NUM_USERS) == community_of(others, num_users=NUM_USERS)
    # proposals within a community of 50 repeat one another more often than those to anyone
    assert inside.mean() == pytest.approx(0.8, abs=0.03)


def test_lookups_agree_with_the_lists(graph: FriendGraph, friends: dict[int, list[int]]) -> None:
    """Lists of many users at once, membership of any pair, and a random friend of each."""
    rng = np.random.default_rng(1)
    left, right = rng.integers(1, NUM_USERS + 1, size=(2, 5_000))
    assert graph.friends(left).tolist() == [item for user in left for item in friends[user]]
    assert graph.num_friends(left).tolist() == [len(friends[user]) for user in left]
    expected = [other in friends[user] for user, other in zip(left, right, strict=True)]
    assert graph.are_friends(left, right).tolist() == expected
    for user, friend in zip(left, graph.random_friend(rng, left), strict=True):
        assert friend in friends[user] or (friend == 0 and not friends[user])
    assert graph.random_friend(rng, np.zeros(3, dtype=np.int64)).tolist() == [0, 0, 0]


def test_too_many_proposals_leave_the_graph_symmetric(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more friends than are allowed, both ends of a friendship are dropped together."""
    monkeypatch.setattr("data_loaders.scenarios.friend_graph.NUM_PROPOSALS", 100.0)
    graph = draw_friend_graph(np.random.default_rng(0), num_users=4 * MEMBERS)
    users = np.arange(1, 4 * MEMBERS + 1)
    assert graph.num_friends(users).max() <= MAX_FRIENDS
    owners = np.repeat(users, graph.num_friends(users))
    assert graph.are_friends(graph.friends(users), owners).all()
