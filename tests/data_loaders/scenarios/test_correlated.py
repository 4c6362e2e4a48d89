"""The correlated tasks are those of the paper."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_loaders.scenarios.correlated import Correlated


def world_of(correlation: float, *, seed: int = 0) -> Correlated:
    rng = np.random.default_rng(seed)
    return Correlated(examples=1_000, rng=rng, correlation=correlation)


def draw(world: Correlated, *, num_examples: int = 20_000) -> pa.Table:
    return world.draw(np.random.default_rng(1), num_examples=num_examples, start=0, stop=1)


@given(correlation=st.floats(-1, 1), seed=st.integers(0, 2**32))
def test_the_weights_have_the_correlation_that_is_asked_for(correlation: float, seed: int) -> None:
    """Both are as long as the scale c, and the cosine between them is p."""
    weights = world_of(correlation, seed=seed).weights_D2
    np.testing.assert_allclose(
        weights.T @ weights, [[1, correlation], [correlation, 1]], atol=1e-12
    )


def test_labels_follow_the_formula() -> None:
    """The truth against the sum written out, from the column x alone; noise of variance 0.01."""
    world = world_of(0.3)
    log = draw(world)
    assert log.schema.field("x").type == pa.list_(pa.float32(), 100)
    inputs = np.array(log["x"].to_pylist()[:50])
    for task, weights in zip(("y1", "y2"), world.weights_D2.T, strict=True):
        for x, truth in zip(inputs, log[f"truth_{task}"].to_pylist(), strict=False):
            linear = float(x @ weights)
            waves = np.sin(linear + 1) + np.sin(2 * linear + 4) + np.sin(3 * linear + 9)
            assert truth == pytest.approx(linear + waves, abs=1e-9)
        noise = log[task].to_numpy() - log[f"truth_{task}"].to_numpy()
        assert noise.mean() == pytest.approx(0, abs=4 * 0.1 / np.sqrt(len(noise)))
        assert noise.var() == pytest.approx(0.01, rel=0.05)


def test_the_input_is_white() -> None:
    """100 independent standard normal numbers."""
    x = np.array(draw(world_of(0.5))["x"].to_pylist())
    assert x.shape == (20_000, 100)
    np.testing.assert_allclose(np.cov(x.T), np.eye(100), atol=0.06)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=0.04)


def test_labels_are_the_more_alike_the_higher_the_correlation() -> None:
    """None at 0; all but the noise at 1; rising between."""
    correlations = []
    for correlation in (0.0, 0.3, 0.6, 0.9, 1.0):
        log = draw(world_of(correlation))
        correlations.append(np.corrcoef(log["y1"].to_numpy(), log["y2"].to_numpy())[0, 1])
    assert correlations == sorted(correlations)
    assert abs(correlations[0]) < 0.03
    assert correlations[-1] > 0.99
