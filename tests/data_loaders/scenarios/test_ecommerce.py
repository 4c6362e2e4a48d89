"""The shop is what it says."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data_loaders.scenarios.ecommerce import Ecommerce
from tests.helpers.truth import observed


@pytest.fixture(scope="module")
def train() -> pa.Table:
    world = Ecommerce(examples=100_000, rng=np.random.default_rng(0))
    return world.draw(np.random.default_rng(1), num_examples=80_000, start=0, stop=0.8)


def test_log_spend_is_normal_around_its_truth(train: pa.Table) -> None:
    """Errors of log(1 + spend) have mean 0 in each bin of the truth, and deviation 0.4."""
    labels, truth = observed(train, "spend")
    errors = np.log1p(labels) - truth
    assert labels.min() > 0
    assert errors.std() == pytest.approx(0.4, rel=0.05)
    for part in np.array_split(np.argsort(truth), 10):
        assert abs(errors[part].mean()) < 4 * 0.4 / np.sqrt(len(part))


def test_a_label_is_observed_only_where_the_one_before_it_is_1(train: pa.Table) -> None:
    """Purchase is null if and only if there is no click, spend if and only if no purchase."""
    clicked = pc.equal(train["click"], 1)
    purchased = pc.fill_null(pc.equal(train["purchase"], 1), False)
    assert train["purchase"].is_valid().equals(clicked)
    assert train["spend"].is_valid().equals(purchased)
    for task in ("click", "ad_click", "coupon_click"):
        assert train[task].null_count == 0


@pytest.mark.parametrize(
    ("column", "exponent", "ranks"),
    [
        ("user_id", 0.8, (5, 500)),
        ("item_id", 0.9, (5, 150)),
        ("ad_id", 0.7, (3, 50)),
        ("coupon_id", 0.7, (3, 50)),
    ],
)
def test_popularity_follows_zipfs_law(
    train: pa.Table, column: str, exponent: float, ranks: tuple[int, int]
) -> None:
    """The logarithm of the count falls with that of the rank, at the stated slope."""
    counts = train[column].drop_null().value_counts().field("counts").to_numpy()
    counts = np.sort(counts)[::-1][slice(*ranks)]
    slope, _ = np.polyfit(np.log(np.arange(*ranks)), np.log(counts), deg=1)
    assert slope == pytest.approx(-exponent, abs=0.1)


def test_values_are_missing_at_the_stated_rates(train: pa.Table) -> None:
    """Nulls, and empty lists beside null ones; no NaN stands for a null."""
    rates = {"user_age": 0.10, "days_since_visit": 0.15, "ad_id": 0.05, "recent_items": 0.05}
    for column in train.column_names[:11]:
        fraction = train[column].null_count / train.num_rows
        assert fraction == pytest.approx(rates.get(column, 0.0), abs=0.005)
    lengths = pc.list_value_length(train["recent_items"])
    assert pc.mean(pc.equal(lengths, 0)).as_py() == pytest.approx(0.05 / 0.95, abs=0.005)
    for column in ("price", "user_age", "days_since_visit"):
        assert not pc.any(pc.is_nan(train[column])).as_py()


def test_columns_hold_what_the_docstring_says(train: pa.Table) -> None:
    """Types, ranges, and one price and one category for each item, also for the listed ones."""
    types = {name: str(train.schema.field(name).type) for name in train.column_names[:16]}
    assert types == {
        "user_id": "int64",
        "item_id": "string",
        "category": "string",
        "hour": "int8",
        "recent_items": "list<item: string>",
        "price": "float",
        "user_age": "float",
        "days_since_visit": "float",
        "ad_id": "int64",
        "coupon_id": "int64",
        "discount": "float",
        "click": "int8",
        "purchase": "int8",
        "spend": "float",
        "ad_click": "int8",
        "coupon_click": "int8",
    }
    items = train.group_by("item_id").aggregate(
        [("price", "count_distinct"), ("category", "count_distinct")]
    )
    assert set(items["price_count_distinct"].to_pylist()) == {1}
    assert set(items["category_count_distinct"].to_pylist()) == {1}
    coupons = train.group_by("coupon_id").aggregate([("discount", "count_distinct")])
    assert set(coupons["discount_count_distinct"].to_pylist()) == {1}
    assert set(train["discount"].to_pylist()) <= set(range(5, 55, 5))
    known = {f"sku-{index:05d}" for index in range(1, 301)}
    assert set(items["item_id"].to_pylist()) <= known
    assert set(pc.list_flatten(train["recent_items"]).to_pylist()) <= known
    assert pc.count_distinct(train["category"]).as_py() == 20
    assert set(train["hour"].to_pylist()) == set(range(24))
    assert pc.min(train["price"]).as_py() > 0
    assert pc.min(train["days_since_visit"]).as_py() >= 0


def test_recent_items_show_the_taste_of_the_user(train: pa.Table) -> None:
    """What a heavy user looks at more than others do, by category, is the same in both halves."""

    def preferences(half: pa.Table) -> np.ndarray:
        shares = []
        for user in range(1, 21):
            lists = half.filter(pc.equal(half["user_id"], user))["recent_items"]
            numbers = [int(item[4:]) for item in pc.list_flatten(lists).to_pylist()]
            shares.append(np.bincount((np.array(numbers) - 1) % 20, minlength=20) / len(numbers))
        return np.array(shares) - np.mean(shares, axis=0)

    middle = train.num_rows // 2
    first, second = preferences(train.slice(0, middle)), preferences(train.slice(middle))
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.9


def test_missing_values_mean_to_the_truth_what_they_mean_to_a_model() -> None:
    """A missing number is the mean, a null list an empty one, "no id" one more id."""
    world = Ecommerce(examples=1_000, rng=np.random.default_rng(0))
    visits = world._visits(np.random.default_rng(1), 500)
    nothing, all_null = np.full(500, np.nan), np.ones(500, dtype=bool)
    mean_days = np.full(500, np.expm1(world.log_days[0]))
    no_items = {"list_lengths": np.zeros(500, dtype=int), "listed_items": np.array([], dtype=int)}
    for missing, present in (
        ({"ages": nothing}, {"ages": np.full(500, world.age[0])}),
        ({"days": nothing}, {"days": mean_days}),
        (no_items | {"list_missing": all_null}, no_items | {"list_missing": ~all_null}),
    ):
        left = world._truth(dataclasses.replace(visits, **missing))
        right = world._truth(dataclasses.replace(visits, **present))
        for task in world.tasks:
            np.testing.assert_allclose(left[task], right[task], rtol=1e-12)
    no_ad = world._truth(dataclasses.replace(visits, ads=np.zeros(500, dtype=int)))
    one_ad = world._truth(dataclasses.replace(visits, ads=np.ones(500, dtype=int)))
    assert not np.allclose(no_ad["ad_click"], one_ad["ad_click"])
