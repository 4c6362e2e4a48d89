"""What holds in every scenario, or in every one whose truth is calibrated."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from data_loaders.oracle import best_of
from data_loaders.synthetic import SCENARIOS
from tests.helpers.truth import observed


def log(scenario: str, *, seed: int, num_examples: int = 40_000) -> pa.Table:
    world = SCENARIOS[scenario](examples=50_000, rng=np.random.default_rng(seed))
    rng = np.random.default_rng(seed + 100)
    return world.draw(rng, num_examples=num_examples, start=0.0, stop=num_examples / 50_000)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_draw_has_the_same_columns_and_labels_and_truth_come_last(scenario: str) -> None:
    """Label columns after the features, and truths after them: float64, never null."""
    world = SCENARIOS[scenario](examples=50_000, rng=np.random.default_rng(0))
    rng = np.random.default_rng(1)
    first = world.draw(rng, num_examples=500, start=0.0, stop=0.01)
    second = world.draw(rng, num_examples=70, start=0.99, stop=1.0)
    assert first.schema == second.schema
    assert (first.num_rows, second.num_rows) == (500, 70)
    assert first.column_names[-2 * len(world.tasks) :] == [
        *world.tasks,
        *(f"truth_{task}" for task in world.tasks),
    ]
    for task, kind in world.tasks.items():
        assert first[f"truth_{task}"].type == pa.float64()
        assert first[f"truth_{task}"].null_count == 0
        assert (first[task].type == pa.int8()) == (kind == "binary")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_world_is_a_function_of_its_seed(scenario: str) -> None:
    """The same seeds give the same examples, other seeds other ones."""
    first, again, other = (log(scenario, seed=seed, num_examples=500) for seed in (3, 3, 4))
    assert first.equals(again)
    assert not first.equals(other)


@pytest.mark.parametrize("scenario", ["ecommerce", "social"])
def test_labels_are_as_frequent_as_their_truth_says(scenario: str) -> None:
    """In each of 20 bins of the truth, the count of ones lies within 4 standard errors."""
    train = log(scenario, seed=5)
    for task, kind in SCENARIOS[scenario].tasks.items():
        if kind != "binary":
            continue
        labels, truth = observed(train, task)
        for part in np.array_split(np.argsort(truth), 20):
            variance = (truth[part] * (1 - truth[part])).sum()
            assert abs(labels[part].sum() - truth[part].sum()) < 4 * np.sqrt(variance)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("scenario", "rates"),
    [
        (
            "ecommerce",
            {"click": 0.25, "purchase": 0.30, "ad_click": 0.10, "coupon_click": 0.15},
        ),
        ("social", {"like": 0.25, "friend_accept": 0.15, "ad_click": 0.10}),
    ],
)
def test_rates_and_best_auc_do_not_depend_on_the_seed(
    scenario: str, rates: dict[str, float], seed: int
) -> None:
    """Base rates meet their targets, and every task can be learned, but not perfectly."""
    train = log(scenario, seed=seed)
    for task, rate in rates.items():
        labels, truth = observed(train, task)
        best = best_of("binary")
        best.add(truth=truth, labels=labels)
        assert labels.mean() == pytest.approx(rate, rel=0.1)
        assert 0.79 < best.metrics()["auc"] < 0.86
        assert 0.65 < best.metrics()["normalized_entropy"] < 0.85
