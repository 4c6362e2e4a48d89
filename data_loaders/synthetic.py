"""Interaction logs whose ground truth is known: to try Polytower, to test it, to see how far a model is from the best.

Beside every label lies a column `truth_<label>` (float64, never null): the probability that a binary label was drawn
from, or the mean of log(1 + label) for a regression label. It is a function of the example's other columns and of
hidden effects of each user, item, category and ad, which a model can learn: none can do better but by luck. What the
truth itself reaches on the labels of a split stands in `dataset.json` as `best`, over the observed labels:

    binary      `auc`, and `normalized_entropy`: its cross-entropy over the entropy of the split's base rate
    regression  `mse` of log(1 + label), NOT standardised: a model of `(log(1 + y) - mean) / std` has its own mse
                times std ** 2 to compare

A missing value means to the truth what it means to a model (`data_loaders/config.py`): a missing number is the
feature's mean, a missing or empty id list says nothing, and a missing id is one more id with effects of its own.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numpy.random import PCG64, Generator, SeedSequence

from data_loaders.dataset import (
    SPLITS,
    DatasetInfo,
    Split,
    SplitInfo,
    refuse_existing,
    write_dataset_info,
    write_split,
)
from data_loaders.errors import InputError
from data_loaders.storage import locate

# Shapes: N examples, I ids in all lists of a chunk, K latent factors, C categories.
Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MIN_EXAMPLES = 1_000
CHUNK_EXAMPLES = 65_536
NUM_PILOT_EXAMPLES = 20_000
NUM_FACTORS = 3


def generate(
    scenario: str,
    *,
    out: str,
    examples: int,
    seed: int = 0,
    on_progress: Callable[[int], None] | None = None,
) -> DatasetInfo:
    """Writes a log of `examples` examples: 80% of them in train, 10% each in valid and test.

    The same scenario, examples and seed give the same bytes. Memory does not grow with the log, but for the effects
    of users and items, which are capped: one file of at most 500,000 examples is held at a time.

    Args:
        scenario: a word of `SCENARIOS`.
        out: URI of a folder that is empty or does not exist yet.
        on_progress: called after each chunk with the number of examples drawn so far, of all splits together.

    Raises:
        InputError: the scenario is unknown, `examples` below 1,000, or `seed` negative.
        StorageError: `out` is not empty, or cannot be reached.
    """
    if scenario not in SCENARIOS:
        near = difflib.get_close_matches(scenario, SCENARIOS, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"choose from: {', '.join(SCENARIOS)}"
        raise InputError(f"scenario {scenario!r} is unknown; {remedy}")
    if examples < MIN_EXAMPLES:
        raise InputError(f"examples: {examples} are too few; give {MIN_EXAMPLES} or more")
    if seed < 0:
        raise InputError(f"seed: {seed} is negative; give 0 or more")
    root = locate(out)
    refuse_existing(root)

    num_held_out = examples // 10
    sizes = (examples - 2 * num_held_out, num_held_out, num_held_out)
    # A small train split still has 8 files of 8 row groups, enough for 64 streams; a larger one has more files.
    rows_per_file = min(math.ceil(sizes[0] / 8), 500_000)
    world_seed, *split_seeds = SeedSequence(seed).spawn(1 + len(SPLITS))
    world = SCENARIOS[scenario](examples=examples, rng=Generator(PCG64(world_seed)))
    splits: dict[Split, SplitInfo] = {}
    for split, size, split_seed in zip(SPLITS, sizes, split_seeds, strict=True):
        best = {task: BEST[kind]() for task, kind in world.tasks.items()}
        chunks = _chunks(world, rng=Generator(PCG64(split_seed)), num_examples=size, best=best)
        num_before = sum(info.examples for info in splits.values())
        write_split(
            root,
            split=split,
            tables=_reported(chunks, num_before=num_before, on_progress=on_progress),
            rows_per_file=rows_per_file,
            rows_per_row_group=math.ceil(rows_per_file / 8),
        )
        metrics = {task: scores.metrics() for task, scores in best.items()}
        splits[split] = SplitInfo(examples=size, best=metrics)
    description = f"synthetic: {world.description}; {examples:,} examples, seed {seed}"
    info = DatasetInfo(name=scenario, description=description, splits=splits)
    write_dataset_info(root, info)
    return info


def _chunks(
    world: Ecommerce, *, rng: Generator, num_examples: int, best: dict[str, BestBinary | BestRegression]
) -> Iterator[pa.Table]:
    """The split's examples, each counted in `best` as it passes."""
    for start in range(0, num_examples, CHUNK_EXAMPLES):
        table = world.draw(rng, num_examples=min(CHUNK_EXAMPLES, num_examples - start))
        for task, scores in best.items():
            labels = table[task].combine_chunks().to_numpy(zero_copy_only=False)
            observed = table[task].is_valid().to_numpy()
            truth = table[f"truth_{task}"].to_numpy()
            scores.add(truth=truth[observed], labels=labels[observed])
        yield table


def _reported(
    tables: Iterator[pa.Table], *, num_before: int, on_progress: Callable[[int], None] | None
) -> Iterator[pa.Table]:
    for table in tables:
        yield table
        num_before += table.num_rows
        if on_progress is not None:
            on_progress(num_before)


@dataclass(frozen=True)
class Visit:
    """What the examples of a chunk hold before it is written; ids count from 1, and NaN is a missing number."""

    user_N: Ints
    item_N: Ints
    ad_N: Ints  # 0: without an id
    hour_N: Ints
    list_lengths_N: Ints
    list_missing_N: Bools
    listed_items_I: Ints
    price_N: Floats
    age_N: Floats
    days_N: Floats


class Ecommerce:
    """A shop: its visitors see an item and an ad; some click, some of these buy, for an amount of money.

    user_id           int64; examples / 100 users, 1,000 to 10 million
    item_id           string, `sku-00001` ...; examples / 400 items, 300 to 2 million
    category          string, of the item: one of 20
    hour              int8, 0 to 23, more in the evening
    recent_items      list of item ids, 5 on average; 5% null, 5% empty, more of them from what the user likes
    price             float32, of the item
    user_age          float32, years; 10% null
    days_since_visit  float32; 15% null
    ad_id             int64; examples / 2,000 ads, 50 to 100,000; 5% null: the shop's own advertisement
    click             int8, about 25% ones
    purchase          int8, null without a click; about 30% ones of the others
    spend             float32, null without a purchase; log(1 + spend) is normal with deviation 0.4
    ad_click          int8, about 10% ones

    Users, items and ads have Zipf popularity, number 1 first. Raw signals of each task (main effects of the ids,
    taste: inner products of latent factors, and curves of the numbers) are scaled on a pilot sample so that the rates
    above, and how well the truth separates the labels, do not hang on the seed or the size. `truth_purchase` and
    `truth_spend` are conditional, and there for every example: given a click, given a purchase.
    """

    categories = (
        *("audio", "baby", "bags", "beauty", "books", "cameras", "clothing", "furniture", "games", "garden"),
        *("groceries", "jewellery", "kitchen", "laptops", "lighting", "pets", "phones", "shoes", "sports", "toys"),
    )  # fmt: skip
    tasks: dict[str, Literal["binary", "regression"]] = {
        "click": "binary",
        "purchase": "binary",
        "spend": "regression",
        "ad_click": "binary",
    }
    # Mean and standard deviation of log(1 + price), of the age and of log(1 + days), for the recipe to repeat. A
    # missing age or number of days acts as that mean. `spend` is for everyone: buyers differ from it a little.
    log_price = (3.4, 0.8)
    age = (38.0, 12.0)
    log_days = (1.8, 0.8)
    log_spend = (4.0, 0.6)
    log_spend_noise = 0.4

    def __init__(self, *, examples: int, rng: Generator) -> None:
        C, K = len(self.categories), NUM_FACTORS
        self.num_users = min(max(examples // 100, 1_000), 10_000_000)
        self.num_items = min(max(examples // 400, 300), 2_000_000) // C * C
        self.num_ads = min(max(examples // 2_000, 50), 100_000)
        self.description = (
            f"an online shop; {self.num_users:,} users, {self.num_items:,} items in {C} categories, "
            f"{self.num_ads:,} ads"
        )
        # Effects by id; row 0 is that of a missing id. Float32: the largest tables hold ten million rows.
        users, items = self.num_users + 1, self.num_items + 1
        category_I = _category(np.arange(items), num_categories=C)
        self.category_factors_CK = _normal(rng, C, K)
        self.user_factors_K = _normal(rng, users, K)
        self.item_factors_K = 0.8 * self.category_factors_CK[category_I] + 0.6 * _normal(rng, items, K)
        self.ad_factors_K = _normal(rng, self.num_ads + 1, K)
        self.user_age = np.clip(self.age[0] + self.age[1] * _normal(rng, users), 18, 80).round()
        log_price = self.log_price[0] + self.log_price[1] * np.clip(_normal(rng, items), -2.5, 2.5)
        self.item_price = np.expm1(log_price).round(2)
        # Those who click much also buy somewhat more; an item that attracts clicks is bought somewhat less.
        eager, lure = _normal(rng, users), _normal(rng, C)[category_I] + _normal(rng, items)
        self.user_effect = {
            "click": eager,
            "purchase": 0.8 * eager + 0.4 * _normal(rng, users),
            "spend": _normal(rng, users),
            "ad_click": 0.5 * eager + 0.5 * _normal(rng, users),
        }
        self.item_effect = {
            "click": 0.7 * lure,
            "purchase": _normal(rng, C)[category_I] + 0.5 * _normal(rng, items) - 0.3 * lure,
            "spend": 0.5 * _normal(rng, C)[category_I],
        }
        self.ad_effect = _normal(rng, self.num_ads + 1)
        self.item_names = pa.array(["", *(f"sku-{index:05d}" for index in range(1, items))])
        self._calibrate(rng)

    def draw(self, rng: Generator, *, num_examples: int) -> pa.Table:
        """The next examples of the log, features, labels and truth."""
        visit = self._visits(rng, num_examples)
        truth = self._truth(visit)
        click = rng.random(num_examples) < truth["click"]
        purchase = rng.random(num_examples) < truth["purchase"]
        noise = np.clip(rng.standard_normal(num_examples), -4, 4)  # so that no spend is below 0
        spend = np.expm1(truth["spend"] + self.log_spend_noise * noise)
        ad_click = rng.random(num_examples) < truth["ad_click"]
        category = _category(visit.item_N, num_categories=len(self.categories))
        columns = {
            "user_id": pa.array(visit.user_N),
            "item_id": self.item_names.take(pa.array(visit.item_N)),
            "category": pa.array(self.categories).take(pa.array(category)),
            "hour": pa.array(visit.hour_N, pa.int8()),
            "recent_items": _lists(
                self.item_names.take(pa.array(visit.listed_items_I)),
                lengths=visit.list_lengths_N,
                missing=visit.list_missing_N,
            ),
            "price": pa.array(visit.price_N, pa.float32()),
            "user_age": pa.array(visit.age_N, pa.float32(), from_pandas=True),
            "days_since_visit": pa.array(visit.days_N, pa.float32(), from_pandas=True),
            "ad_id": pa.array(visit.ad_N, mask=visit.ad_N == 0),
            "click": pa.array(click.astype(np.int8)),
            "purchase": pa.array(purchase.astype(np.int8), mask=~click),
            "spend": pa.array(spend.astype(np.float32), mask=~(click & purchase)),
            "ad_click": pa.array(ad_click.astype(np.int8)),
        }
        return pa.table(columns | {f"truth_{task}": pa.array(value) for task, value in truth.items()})

    def _visits(self, rng: Generator, num_examples: int) -> Visit:
        C = len(self.categories)
        user_N = _zipf(rng, num_ids=self.num_users, exponent=0.8, size=num_examples)
        item_N = _zipf(rng, num_ids=self.num_items, exponent=0.9, size=num_examples)
        ad_N = _zipf(rng, num_ids=self.num_ads, exponent=0.7, size=num_examples)
        ad_N[rng.random(num_examples) < 0.05] = 0
        evening_H = 1 + 0.8 * np.cos((np.arange(24) - 20) * math.tau / 24)
        hour_N = rng.choice(24, p=evening_H / evening_H.sum(), size=num_examples)

        # Most of the recent items come from one category, drawn by the user's taste (the Gumbel trick).
        missing_N, empty_N = (rng.random(num_examples) < 0.05 for _ in range(2))
        lengths_N = np.where(missing_N | empty_N, 0, 1 + rng.poisson(4.5, num_examples))
        taste_NC = np.einsum("nk,ck->nc", self.user_factors_K[user_N], self.category_factors_CK)
        favourite_N = np.argmax(taste_NC + rng.gumbel(size=(num_examples, C)), axis=1)
        favourite_I = np.repeat(favourite_N, lengths_N)
        num_listed = len(favourite_I)
        listed_I = _zipf(rng, num_ids=self.num_items, exponent=0.9, size=num_listed)
        rank_I = _zipf(rng, num_ids=self.num_items // C, exponent=0.9, size=num_listed)
        listed_I = np.where(
            rng.random(num_listed) < 0.7, (rank_I - 1) * C + favourite_I + 1, listed_I
        )

        age_N = np.where(rng.random(num_examples) < 0.10, np.nan, self.user_age[user_N])
        log_days_N = rng.normal(*self.log_days, size=num_examples)
        days_N = np.expm1(np.clip(log_days_N, 0, 6)).astype(np.float32)
        days_N[rng.random(num_examples) < 0.15] = np.nan
        return Visit(
            user_N=user_N,
            item_N=item_N,
            ad_N=ad_N,
            hour_N=hour_N,
            list_lengths_N=lengths_N,
            list_missing_N=missing_N,
            listed_items_I=listed_I,
            price_N=self.item_price[item_N],
            age_N=age_N,
            days_N=days_N,
        )

    def _signals(self, visit: Visit) -> dict[str, Floats]:
        """Each task's logit (spend: mean) but for its scale and its offset; signals are about 1 in size."""
        price_N = (np.log1p(visit.price_N) - self.log_price[0]) / self.log_price[1]
        age_N = np.nan_to_num((visit.age_N - self.age[0]) / self.age[1])
        days_N = np.nan_to_num((np.log1p(visit.days_N) - self.log_days[0]) / self.log_days[1])
        evening_N = np.cos((visit.hour_N - 21) * math.tau / 24)
        user_NK = self.user_factors_K[visit.user_N]
        item_NK = self.item_factors_K[visit.item_N]
        taste_N = (user_NK * item_NK).sum(axis=1) / math.sqrt(NUM_FACTORS)
        listed_NK = _means(self.item_factors_K[visit.listed_items_I], lengths=visit.list_lengths_N)
        history_N = (listed_NK * item_NK).sum(axis=1)
        ad_taste_N = (user_NK * self.ad_factors_K[visit.ad_N]).sum(axis=1) / math.sqrt(NUM_FACTORS)
        # The price that a visitor finds right rises with age; farther off is worse, on either side.
        misfit_N = np.abs(price_N - 0.7 * age_N)
        user, item, user_N, item_N = self.user_effect, self.item_effect, visit.user_N, visit.item_N
        return {
            "click": user["click"][user_N] + item["click"][item_N] + 0.6 * taste_N
            + 0.6 * history_N - 0.5 * misfit_N + 0.4 * evening_N,
            "purchase": user["purchase"][user_N] + item["purchase"][item_N] + 0.4 * taste_N
            + 0.4 * history_N - 0.8 * misfit_N - 0.6 * np.tanh(days_N),
            "spend": 0.6 * user["spend"][user_N] + item["spend"][item_N] + price_N + 0.4 * age_N,
            "ad_click": user["ad_click"][user_N] + self.ad_effect[visit.ad_N] + 0.5 * ad_taste_N
            + 0.4 * evening_N + 0.3 * np.tanh(days_N),
        }  # fmt: skip

    def _truth(self, visit: Visit) -> dict[str, Floats]:
        truth = {}
        for task, signal_N in self._signals(visit).items():
            offset, slope = self.scale[task]
            value_N = offset + slope * signal_N.astype(np.float64)
            if self.tasks[task] == "regression":
                mean, std = self.log_spend
                truth[task] = np.clip(value_N, mean - 3 * std, mean + 3 * std)
            else:
                truth[task] = _sigmoid(value_N)
        return truth

    def _calibrate(self, rng: Generator) -> None:
        """Finds `scale`: each task's (offset, slope) of its signal, from a pilot sample."""
        visit = self._visits(rng, NUM_PILOT_EXAMPLES)
        self.scale: dict[str, tuple[float, float]] = {}
        raise NotImplementedError


SCENARIOS = {"ecommerce": Ecommerce}
