"""What the scenarios draw with, and the shapes of what they draw.

Shape legend: N examples, I ids in all their lists, K latent factors.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numpy.random import Generator

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NUM_FACTORS = 2


def zipf(rng: Generator, *, num_ids: int, exponent: float, size: int) -> Ints:
    """Ids from 1 to num_ids; the probability of id k falls as k ** -exponent, 0 < exponent < 1.

    The integral of the power law from k to k + 1 stands for its value at k: that takes no table.
    """
    power = 1 - exponent
    top = (num_ids + 1) ** power
    ids = (1 + rng.random(size) * (top - 1)) ** (1 / power)
    return np.minimum(ids.astype(np.int64), num_ids)


def normal(rng: Generator, *shape: int) -> npt.NDArray[np.float32]:
    return rng.standard_normal(shape, dtype=np.float32)


def standardized(values: Floats) -> Floats:
    """Mean 0 and variance 1 in each column: with few rows, chance would leave neither."""
    return (values - values.mean(axis=0)) / values.std(axis=0)


def products(left_NK: Floats, right_NK: Floats) -> Floats:
    return (left_NK * right_NK).sum(axis=1) / math.sqrt(NUM_FACTORS)


def lists(values: pa.Array, *, lengths: Ints, missing: Bools) -> pa.ListArray:
    """Cuts the values into lists; a missing one is null, and its length is 0."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(missing))


def means(vectors_IK: Floats, *, lengths: Ints) -> Floats:
    """The mean vector of each list, (N, K); zeros for an empty one."""
    owner_I = np.repeat(np.arange(len(lengths)), lengths)
    sums = [np.bincount(owner_I, weights=v, minlength=len(lengths)) for v in vectors_IK.T]
    return np.stack(sums, axis=1) / np.maximum(lengths, 1)[:, None]
