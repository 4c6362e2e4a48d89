"""Moments and quantiles: exact, and the same however the numbers were cut."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data_loaders import exact_numbers
from data_loaders.exact_numbers import UNIT_EXPONENT, Moments, ValueCounts

numbers = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=60)


@given(numbers)
def test_sums_are_those_of_rational_numbers(values: list[float]) -> None:
    """Not a bit is lost, from the smallest to the largest float64; the mean is rounded once."""
    moments = Moments()
    moments.add(np.array(values))
    total, squares = sum(map(Fraction, values)), sum(Fraction(value) ** 2 for value in values)
    assert Fraction(moments.first, 1 << UNIT_EXPONENT) == total
    assert Fraction(moments.second, 1 << 2 * UNIT_EXPONENT) == squares
    assert moments.mean() == float(total / len(values))


@given(st.lists(st.floats(-1e9, 1e9, width=32), min_size=1, max_size=60))
def test_the_standard_deviation_is_that_of_the_population(values: list[float]) -> None:
    """As the square root of the exact variance."""
    moments = Moments()
    moments.add(np.array(values))
    mean = sum(map(Fraction, values)) / len(values)
    variance = sum((Fraction(value) - mean) ** 2 for value in values) / len(values)
    assert Fraction(moments.std()) ** 2 == pytest.approx(variance, rel=1e-15, abs=1e-300)


@given(numbers)
@example([2.2250738585e-313])
def test_quantiles_are_those_of_numpy(values: list[float]) -> None:
    """Linear interpolation between order statistics, while no values share a count."""
    counts = ValueCounts()
    counts.add(np.array(values))
    # numpy's interpolation overflows where the range does; the division rounds the very smallest
    scaled = np.array(values) / 8
    expected = np.quantile(scaled, np.arange(101) / 100) * 8
    atol = max(map(abs, values)) * 1e-14 + 8 * np.finfo(float).smallest_subnormal
    np.testing.assert_allclose(counts.quantiles(parts=100), expected, atol=atol, rtol=0)


@given(
    st.lists(st.floats(-100, 100), min_size=1, max_size=80),
    st.lists(st.integers(0, 80), max_size=5),
)
def test_values_share_counts_the_same_way_however_they_came(
    values: list[float], cuts: list[int]
) -> None:
    """Cut, shuffled, merged in pairs or added in a row: one state, and bounded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact_numbers, "MAX_DISTINCT", 8)
        whole = ValueCounts()
        whole.add(np.array(values))
        shuffled = np.array(values)
        np.random.default_rng(len(values)).shuffle(shuffled)
        merged = ValueCounts()
        for part in np.split(shuffled, sorted(cut for cut in cuts if cut < len(values))):
            piece = ValueCounts()
            piece.add(part)
            piece.merge(merged)
            merged = piece
    assert len(whole.key_K) <= 8
    assert whole.shift == merged.shift
    np.testing.assert_array_equal(whole.key_K, merged.key_K)
    np.testing.assert_array_equal(whole.count_K, merged.count_K)


def test_shared_counts_stay_close_to_the_values() -> None:
    """A million distinct values: quantiles off by less than a thousandth of the value."""
    values = np.random.default_rng(0).lognormal(3, 2, 1_000_000)
    counts = ValueCounts()
    counts.add(values)
    assert counts.shift > 0
    expected = np.quantile(values, np.arange(101) / 100)
    np.testing.assert_allclose(counts.quantiles(parts=100), expected, rtol=1e-3)
