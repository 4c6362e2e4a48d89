"""Moments and quantiles of numbers that come in pieces: the same result however they were cut.

Floating-point sums depend on their order, so these are sums of integers: a float64 is an integer
times a power of two. Quantiles come from counts of values, which are exact up to `MAX_DISTINCT`
distinct values; beyond, neighbouring values share a count, just as coarsely as is needed for all of
them together, whatever came first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

MAX_DISTINCT = 2**17

# float64: 53 bits of mantissa, and a smallest exponent (of frexp) of -1073
MANTISSA_BITS = 53
UNIT_EXPONENT = 1073 + MANTISSA_BITS
LIMB_BITS = 18
# products of two limbs (36 bits), this many times, stay below 2^53: bincount adds in float64
CHUNK = 2**16


@dataclass
class Moments:
    """Count, sum and sum of squares of finite float64 numbers, exact.

    Attributes:
        first: the sum, in units of 2^-1126.
        second: the sum of the squares, in units of 2^-2252.
    """

    count: int = 0
    first: int = 0
    second: int = 0

    def add(self, values_N: np.ndarray) -> None:
        self.count += len(values_N)
        for start in range(0, len(values_N), CHUNK):
            self._add_chunk(values_N[start : start + CHUNK])

    def merge(self, other: Moments) -> None:
        self.count += other.count
        self.first += other.first
        self.second += other.second

    def mean(self) -> float:
        return float(Fraction(self.first, self.count << UNIT_EXPONENT))

    def std(self) -> float:
        """Of the population; correctly rounded."""
        variance = Fraction(self.second * self.count - self.first**2, self.count**2)
        return _square_root(variance / (1 << 2 * UNIT_EXPONENT))

    def _add_chunk(self, values_N: np.ndarray) -> None:
        mantissa_N, exponent_N = np.frexp(values_N)
        integer_N = (np.abs(mantissa_N) * 2.0**MANTISSA_BITS).astype(np.int64)
        sign_N = np.sign(mantissa_N)
        lowest = int(exponent_N.min())
        bin_N = exponent_N - lowest
        mask = (1 << LIMB_BITS) - 1
        limbs = [((integer_N >> shift) & mask).astype(np.float64) for shift in (0, 18, 36)]
        for low, limb_N in enumerate(limbs):
            self.first += _shifted_sum(
                np.bincount(bin_N, weights=sign_N * limb_N),
                shift=UNIT_EXPONENT - MANTISSA_BITS + lowest + LIMB_BITS * low,
                step=1,
            )
            for high in range(low, len(limbs)):
                twice = int(high > low)
                self.second += _shifted_sum(
                    np.bincount(bin_N, weights=limb_N * limbs[high]),
                    shift=2 * (UNIT_EXPONENT - MANTISSA_BITS + lowest)
                    + LIMB_BITS * (low + high)
                    + twice,
                    step=2,
                )


@dataclass
class ValueCounts:
    """How often each finite float64 occurs; neighbours share a count where there are too many.

    Attributes:
        shift: bits that are cut off a value's order key.
        key_K: int64, ascending: the keys that occurred.
        count_K: int64, how often.
    """

    shift: int = 0
    key_K: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    count_K: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, values_N: np.ndarray) -> None:
        key_N = _order_keys(values_N) >> self.shift
        key_K, count_K = np.unique(key_N, return_counts=True)
        self._add_counts(key_K, count_K.astype(np.int64))

    def merge(self, other: ValueCounts) -> None:
        shift = max(self.shift, other.shift)
        self.key_K >>= shift - self.shift
        self.shift = shift
        self._add_counts(other.key_K >> (shift - other.shift), other.count_K)

    def quantiles(self, *, parts: int) -> list[float]:
        """The values at 0, 1/parts, ..., 1 of their order, interpolated as `numpy.quantile` does.

        Where values share a count, each counts as the middle of their range.
        """
        last = int(self.count_K.sum()) - 1
        behind_K = np.cumsum(self.count_K)
        middle = (1 << self.shift) >> 1
        values_K = _values_of((self.key_K << self.shift) + middle)
        found = []
        for part in range(parts + 1):
            rank, rest = divmod(last * part, parts)
            below, above = np.searchsorted(behind_K, [rank, min(rank + 1, last)], side="right")
            low, high = Fraction(float(values_K[below])), Fraction(float(values_K[above]))
            found.append(float(low + (high - low) * Fraction(rest, parts)))
        return found

    def at_rank(self, rank: int) -> float:
        """The value behind `rank` others in their order, or the least that shares its count."""
        index = np.searchsorted(np.cumsum(self.count_K), rank, side="right")
        return float(_values_of(self.key_K[index : index + 1] << self.shift)[0])

    def _add_counts(self, key_K: np.ndarray, count_K: np.ndarray) -> None:
        keys = np.concatenate([self.key_K, key_K])
        order = np.argsort(keys, kind="stable")
        keys, counts = keys[order], np.concatenate([self.count_K, count_K])[order]
        while True:
            starts = np.flatnonzero(np.diff(keys, prepend=keys[:1] - 1))
            if len(starts) <= MAX_DISTINCT:
                break
            keys >>= 1
            self.shift += 1
        self.key_K, self.count_K = keys[starts], np.add.reduceat(counts, starts)[: len(starts)]


def _order_keys(values_N: np.ndarray) -> np.ndarray:
    """int64 in the order of the values, and as dense as they are."""
    bits_N = (values_N + 0.0).view(np.int64)  # -0.0 becomes 0.0
    return np.where(bits_N < 0, bits_N ^ np.int64(2**63 - 1), bits_N)


def _values_of(key_K: np.ndarray) -> np.ndarray:
    return np.where(key_K < 0, key_K ^ np.int64(2**63 - 1), key_K).view(np.float64)


def _shifted_sum(sums: np.ndarray, *, shift: int, step: int) -> int:
    """The sum of sums[i] * 2^(shift + step * i), all exact integers."""
    total = 0
    for index in np.flatnonzero(sums):
        total += int(sums[index]) << (step * int(index))
    return total << shift


def _square_root(value: Fraction) -> float:
    """Correctly rounded in all but the rarest cases, at any magnitude."""
    if not value:
        return 0.0
    bits = 256 - value.numerator.bit_length() + value.denominator.bit_length()
    scale = max(0, bits // 2)
    return float(
        Fraction(math.isqrt((value.numerator << 2 * scale) // value.denominator), 1 << scale)
    )
