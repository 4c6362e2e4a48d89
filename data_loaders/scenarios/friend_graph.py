"""Who is friends with whom.

Shape legend: N pairs or examples, I ids in all their lists, E friendships, each in both directions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from data_loaders.scenarios.draws import Bools, Ints

MEMBERS = 50  # of a community
MAX_FRIENDS = 30
NUM_PROPOSALS = 5.0  # by a user, in the mean: geometric, none for 1 in 6
INSIDE_FRACTION = 0.8  # of the proposals go to the user's own community


def community_of(users: Ints, *, num_users: int) -> Ints:
    """The communities take the users in turn, so that each has active users and idle ones."""
    return (users - 1) % (num_users // MEMBERS)


@dataclass(frozen=True)
class FriendGraph:
    """A graph without directions: a is in the list of b if and only if b is in the list of a."""

    num_users: int  # ids from 1
    keys_E: Ints  # user * (num_users + 1) + friend, rising
    offsets: Ints  # user u's friends are keys_E[offsets[u] : offsets[u + 1]]

    def num_friends(self, users_N: Ints) -> Ints:
        return self.offsets[users_N + 1] - self.offsets[users_N]

    def friends(self, users_N: Ints) -> Ints:
        """The friends of each user, one list after the other, each rising; `num_friends` long."""
        lengths_N = self.num_friends(users_N)
        begins_N = np.cumsum(lengths_N) - lengths_N
        places_I = np.repeat(self.offsets[users_N] - begins_N, lengths_N)
        places_I += np.arange(len(places_I))
        return self.keys_E[places_I] % (self.num_users + 1)

    def are_friends(self, left_N: Ints, right_N: Ints) -> Bools:
        keys_N = left_N * (self.num_users + 1) + right_N
        places_N = np.minimum(np.searchsorted(self.keys_E, keys_N), len(self.keys_E) - 1)
        return self.keys_E[places_N] == keys_N

    def random_friend(self, rng: Generator, users_N: Ints) -> Ints:
        """A friend of each user, all of them alike; 0 for users without friends."""
        lengths_N = self.num_friends(users_N)
        places_N = self.offsets[users_N] + (rng.random(len(users_N)) * lengths_N).astype(np.int64)
        keys_N = self.keys_E[np.minimum(places_N, len(self.keys_E) - 1)]
        return np.where(lengths_N > 0, keys_N % (self.num_users + 1), 0)


def draw_friend_graph(rng: Generator, *, num_users: int) -> FriendGraph:
    """Users propose friendship, mostly within their community; all accept, until they have enough.

    Args:
        num_users: a multiple of `MEMBERS`.
    """
    num_communities = num_users // MEMBERS
    users = np.arange(1, num_users + 1)
    proposals = rng.geometric(1 / (1 + NUM_PROPOSALS), size=num_users) - 1
    from_E = np.repeat(users, proposals)
    member_E = rng.integers(MEMBERS, size=len(from_E))
    inside_E = member_E * num_communities + 1 + community_of(from_E, num_users=num_users)
    anyone_E = rng.integers(1, num_users + 1, size=len(from_E))
    to_E = np.where(rng.random(len(from_E)) < INSIDE_FRACTION, inside_E, anyone_E)

    low_E, high_E = np.minimum(from_E, to_E), np.maximum(from_E, to_E)
    pairs_E = np.unique((low_E * (num_users + 1) + high_E)[low_E < high_E])
    low_E, high_E = np.divmod(rng.permutation(pairs_E), num_users + 1)
    owner_E, friend_E = np.concatenate([low_E, high_E]), np.concatenate([high_E, low_E])
    is_kept_E = _rank_within(owner_E) < MAX_FRIENDS
    is_kept_E &= np.roll(is_kept_E, len(low_E))  # the same friendship, seen from its other end
    owner_E, friend_E = owner_E[is_kept_E], friend_E[is_kept_E]

    counts = np.bincount(owner_E, minlength=num_users + 1)
    return FriendGraph(
        num_users=num_users,
        keys_E=np.sort(owner_E * (num_users + 1) + friend_E),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
    )


def _rank_within(groups_N: Ints) -> Ints:
    """How many earlier elements belong to the same group."""
    order_N = np.argsort(groups_N, kind="stable")
    sorted_N = groups_N[order_N]
    is_first_N = np.append(True, sorted_N[1:] != sorted_N[:-1])
    begins_N = np.maximum.accumulate(np.where(is_first_N, np.arange(len(groups_N)), 0))
    ranks_N = np.empty_like(order_N)
    ranks_N[order_N] = np.arange(len(groups_N)) - begins_N
    return ranks_N
