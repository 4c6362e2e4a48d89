"""An online shop.

Shape legend: N examples, I ids in all their lists, K latent factors, C categories.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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


@dataclass(frozen=True)
class Visits:
    """The examples of a chunk before labels; ids count from 1, a missing number is NaN."""

    users: Ints
    items: Ints
    ads: Ints  # 0: an ad without an id
    coupons: Ints
    hours: Ints
    list_lengths: Ints
    list_missing: Bools
    listed_items: Ints  # of all lists, one after the other
    prices: Floats
    ages: Floats
    days: Floats
    discounts: Floats


class Ecommerce:
    """A shop: visitors see an item, an ad and a coupon; some click, and some of those buy.

    user_id           int64; examples / 150 users, at least 1,000, at most 10 million
    item_id           string, `sku-00001` ...; examples / 400 items, at least 300, at most 2 million
    category          string, that of the item, one of 20
    hour              int8, 0 to 23, most of them in the evening
    recent_items      list of item ids, 5.5 in the mean, partly of the user's taste;
                      5% null, 5% empty
    price             float32, of the item
    user_age          float32, years; 10% null
    days_since_visit  float32; 15% null
    ad_id             int64; examples / 2,000 ads, at least 50, at most 100,000; 5% null
    coupon_id         int64; as many coupons as ads
    discount          float32, percent of the price, 5 to 50 in steps of 5, of the coupon
    click             int8; 25% are 1
    purchase          int8, null without a click; 30% of the others are 1
    spend             float32, null without a purchase; log(1 + spend) is normal with deviation 0.4
    ad_click          int8; 10% are 1
    coupon_click      int8; 15% are 1

    Popularity follows Zipf's law, number 1 first. `truth_purchase` is the probability given a
    click, `truth_spend` the mean given a purchase; both are there for every example. Each task's
    signal, a sum of effects of the ids, of taste (products of latent factors) and of curves of the
    numbers, is scaled on a pilot sample: the rates and the best AUCs (0.80 to 0.85) hardly depend
    on the seed or the size.
    """

    categories = (
        *("audio", "baby", "bags", "beauty", "books", "cameras", "clothing", "food", "furniture"),
        *("games", "garden", "jewellery", "kitchen", "laptops", "lighting", "pets", "phones"),
        *("shoes", "sports", "toys"),
    )
    tasks: ClassVar[dict[str, TaskKind]] = {
        "click": "binary",
        "purchase": "binary",
        "spend": "log_regression",
        "ad_click": "binary",
        "coupon_click": "binary",
    }
    targets: ClassVar[dict[str, Target]] = {
        "click": Target(0.25, spread=1.6),
        "purchase": Target(0.30, spread=1.6, given="click"),
        "spend": Target(4.0, spread=0.6, given="purchase"),
        "ad_click": Target(0.10, spread=1.4),
        "coupon_click": Target(0.15, spread=1.5),
    }
    log_spend_noise = 0.4
    # Means and standard deviations, for a recipe to repeat.
    log_price = (3.4, 0.8)  # log(1 + price)
    age = (38.0, 12.0)
    log_days = (1.8, 0.8)  # log(1 + days_since_visit)
    discount = (27.5, 14.4)

    def __init__(self, *, examples: int, rng: Generator) -> None:
        C, K = len(self.categories), NUM_FACTORS
        self.num_users = min(max(examples // 150, 1_000), 10_000_000)
        self.num_items = min(max(examples // 400, 300), 2_000_000) // C * C
        self.num_ads = self.num_coupons = min(max(examples // 2_000, 50), 100_000)
        self.description = (
            f"an online shop with {self.num_users:,} users, {self.num_items:,} items in {C} "
            f"categories, {self.num_ads:,} ads and {self.num_coupons:,} coupons"
        )
        # Effects by id, row 0 for "no id"; float32, because the largest have ten million rows.
        users, items = self.num_users + 1, self.num_items + 1
        category = _category(np.arange(items), num_categories=C)
        self.category_factors_CK = standardized(normal(rng, C, K))
        self.item_factors = 0.8 * self.category_factors_CK[category] + 0.6 * normal(rng, items, K)
        self.user_factors = normal(rng, users, K)
        self.ad_factors = normal(rng, self.num_ads + 1, K)
        self.user_age = np.clip(self.age[0] + self.age[1] * normal(rng, users), 18, 80).round()
        log_price = self.log_price[0] + self.log_price[1] * np.clip(normal(rng, items), -2.5, 2.5)
        self.item_price = np.expm1(log_price).round(2)
        # Who clicks much also buys somewhat more; what lures clicks is bought somewhat less.
        eager = normal(rng, users)
        lure, liked, dear = standardized(normal(rng, C, 3)).T[:, category]
        lure += 0.6 * normal(rng, items)
        self.user_effect = {
            "click": eager,
            "purchase": 0.8 * eager + 0.4 * normal(rng, users),
            "spend": normal(rng, users),
            "ad_click": 0.5 * eager + 0.5 * normal(rng, users),
            "coupon_click": normal(rng, users),  # thrift
        }
        self.item_effect = {
            "click": lure,
            "purchase": liked + 0.5 * normal(rng, items) - 0.3 * lure,
            "spend": 0.5 * dear,
        }
        self.ad_effect = normal(rng, self.num_ads + 1)
        self.coupon_effect = normal(rng, self.num_coupons + 1)
        self.coupon_discount = 5.0 * rng.integers(1, 11, size=self.num_coupons + 1)
        self.item_names = pa.array(["", *(f"sku-{index:05d}" for index in range(1, items))])
        pilot = self._signals(self._visits(rng, NUM_PILOT_EXAMPLES))
        self.scales = calibrate(pilot, tasks=self.tasks, targets=self.targets)

    def draw(self, rng: Generator, *, num_examples: int, start: float, stop: float) -> pa.Table:
        """The next examples of the log: features, labels and truth; any day is like any other."""
        visits = self._visits(rng, num_examples)
        truth = self._truth(visits)
        labels = binary_labels(rng, truth=truth, tasks=self.tasks, targets=self.targets)
        noise_N = np.clip(rng.standard_normal(num_examples), -4, 4)  # so that no spend is negative
        spend_N = np.expm1(truth["spend"] + self.log_spend_noise * noise_N)
        is_bought_N = pc.fill_null(pc.equal(labels["purchase"], 1), False).to_numpy(False)
        labels["spend"] = pa.array(spend_N, pa.float32(), mask=~is_bought_N)
        category_N = _category(visits.items, num_categories=len(self.categories))
        listed = self.item_names.take(pa.array(visits.listed_items))
        columns = {
            "user_id": pa.array(visits.users),
            "item_id": self.item_names.take(pa.array(visits.items)),
            "category": pa.array(self.categories).take(pa.array(category_N)),
            "hour": pa.array(visits.hours, pa.int8()),
            "recent_items": lists(listed, lengths=visits.list_lengths, missing=visits.list_missing),
            "price": pa.array(visits.prices, pa.float32()),
            "user_age": pa.array(visits.ages, pa.float32(), from_pandas=True),
            "days_since_visit": pa.array(visits.days, pa.float32(), from_pandas=True),
            "ad_id": pa.array(visits.ads, mask=visits.ads == 0),
            "coupon_id": pa.array(visits.coupons),
            "discount": pa.array(visits.discounts, pa.float32()),
        }
        columns |= {task: labels[task] for task in self.tasks}
        columns |= {f"truth_{task}": pa.array(truth_N) for task, truth_N in truth.items()}
        return pa.table(columns)

    def _visits(self, rng: Generator, num_examples: int) -> Visits:
        C = len(self.categories)
        users = zipf(rng, num_ids=self.num_users, exponent=0.8, size=num_examples)
        items = zipf(rng, num_ids=self.num_items, exponent=0.9, size=num_examples)
        ads = zipf(rng, num_ids=self.num_ads, exponent=0.7, size=num_examples)
        ads[rng.random(num_examples) < 0.05] = 0
        coupons = zipf(rng, num_ids=self.num_coupons, exponent=0.7, size=num_examples)
        crowd = 1 + 0.8 * np.cos((np.arange(24) - 20) * math.tau / 24)
        hours = rng.choice(24, p=crowd / crowd.sum(), size=num_examples)

        # 70% of the recent items come from one category, by the user's taste (Gumbel's trick).
        list_missing, list_empty = rng.random((2, num_examples)) < 0.05
        lengths = np.where(list_missing | list_empty, 0, 1 + rng.poisson(4.5, num_examples))
        taste_NC = np.einsum("nk,ck->nc", self.user_factors[users], self.category_factors_CK)
        favourite_N = np.argmax(taste_NC + rng.gumbel(size=(num_examples, C)), axis=1)
        favourite_I = np.repeat(favourite_N, lengths)
        any_I = zipf(rng, num_ids=self.num_items, exponent=0.9, size=len(favourite_I))
        rank_I = zipf(rng, num_ids=self.num_items // C, exponent=0.9, size=len(favourite_I))
        of_favourite_I = (rank_I - 1) * C + favourite_I + 1
        listed = np.where(rng.random(len(favourite_I)) < 0.7, of_favourite_I, any_I)

        ages = np.where(rng.random(num_examples) < 0.10, np.nan, self.user_age[users])
        days = np.expm1(np.clip(rng.normal(*self.log_days, size=num_examples), 0, 6))
        days[rng.random(num_examples) < 0.15] = np.nan
        return Visits(
            users=users,
            items=items,
            ads=ads,
            coupons=coupons,
            hours=hours,
            list_lengths=lengths,
            list_missing=list_missing,
            listed_items=listed,
            prices=self.item_price[items],
            ages=ages,
            days=days,
            discounts=self.coupon_discount[coupons],
        )

    def _signals(self, visits: Visits) -> dict[str, Floats]:
        """Each task's true logit, or mean, before it is scaled."""
        user, item, users, items = self.user_effect, self.item_effect, visits.users, visits.items
        price = (np.log1p(visits.prices) - self.log_price[0]) / self.log_price[1]
        age = np.nan_to_num((visits.ages - self.age[0]) / self.age[1])
        away = np.tanh(np.nan_to_num((np.log1p(visits.days) - self.log_days[0]) / self.log_days[1]))
        evening = np.cos((visits.hours - 21) * math.tau / 24)
        discount = (visits.discounts - self.discount[0]) / self.discount[1]
        # The price that a visitor finds right rises with age; farther off is worse, on either side.
        misfit = np.abs(price - 0.7 * age)
        listed_NK = means(self.item_factors[visits.listed_items], lengths=visits.list_lengths)
        keen = listed_NK[:, 0]  # some items are looked at by those who mean to buy
        user_NK, item_NK = self.user_factors[users], self.item_factors[items]
        taste = products(user_NK, item_NK)
        history = products(listed_NK, item_NK)
        ad_taste = products(user_NK, self.ad_factors[visits.ads])
        return {
            "click": item["click"][items] + 0.4 * user["click"][users] + 0.2 * taste
            + 0.15 * history + 0.5 * keen - 0.6 * misfit + 0.5 * evening,
            "purchase": item["purchase"][items] + 0.4 * user["purchase"][users] + 0.15 * taste
            + 0.15 * history + 0.5 * keen - misfit - 0.8 * away,
            "spend": item["spend"][items] + 0.4 * user["spend"][users] + price + 0.4 * age,
            "ad_click": self.ad_effect[visits.ads] + 0.5 * user["ad_click"][users]
            + 0.2 * ad_taste - 0.3 * keen + 0.5 * evening + 0.5 * away,
            # a discount tells more to the thrifty, and on what is dear
            "coupon_click": self.coupon_effect[visits.coupons] + 0.8 * discount
            + (0.5 + 0.2 * discount) * (user["coupon_click"][users] + price),
        }  # fmt: skip

    def _truth(self, visits: Visits) -> dict[str, Floats]:
        signals = self._signals(visits)
        return truth_of(signals, tasks=self.tasks, targets=self.targets, scales=self.scales)


def _category(items: Ints, *, num_categories: int) -> Ints:
    """Items take the categories in turn, so that each has popular items and rare ones."""
    return (items - 1) % num_categories
