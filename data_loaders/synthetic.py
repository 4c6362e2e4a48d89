"""Interaction logs whose ground truth is known: for trials, for tests, to see the best possible.

Beside every label lies a column `truth_<label>` (float64, never null): the probability that a
binary label was drawn from, or the mean of log(1 + label) of a regression label. It is a function
of the example's other columns and of hidden effects of each user, item, category and ad, which a
model can learn: none does better, but by luck. What the truth itself reaches on a split's observed
labels is written to `dataset.json` as `best`:

    binary      auc, and normalized_entropy: its cross-entropy over the entropy of the base rate
    regression  mse of log(1 + label), NOT standardised: a model of (log(1 + y) - mean) / std
                multiplies its own mse by std ** 2 to compare

A missing value means to the truth what it means to a model (data_loaders/config.py): a missing
number is the feature's mean, a missing or empty id list is a zero vector, and "no id" is one more
id.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numpy.random import PCG64, Generator, SeedSequence

from data_loaders.dataset import (
    SPLITS,
    DatasetInfo,
    Split,
    SplitInfo,
    begin_dataset,
    write_dataset_info,
    write_split,
)
from data_loaders.errors import InputError, did_you_mean
from data_loaders.oracle import BEST, BinaryBest, RegressionBest
from data_loaders.storage import locate

# Shapes: N examples, I ids in all their lists, K latent factors, C categories, Q bins.
Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MIN_EXAMPLES = 1_000
CHUNK_EXAMPLES = 65_536
NUM_PILOT_EXAMPLES = 20_000
NUM_FACTORS = 2


def generate(
    scenario: str,
    *,
    out: str,
    examples: int,
    seed: int = 0,
    on_progress: Callable[[int], None] | None = None,
) -> DatasetInfo:
    """Writes a log of `examples` examples: 80% of them in train, 10% each in valid and test.

    The same scenario, examples and seed give the same bytes. Memory is bounded: held are a file of
    at most 500,000 examples, and the effects of users, items and ads, whose numbers are capped.

    Args:
        scenario: a word of `SCENARIOS`.
        out: URI of a folder that is empty or does not exist yet.
        on_progress: called after each chunk with the number of examples drawn so far, of all splits
            together.

    Raises:
        InputError: the scenario is unknown, `examples` below 1,000, or `seed` negative.
        StorageError: `out` is not empty, or cannot be reached or written.
    """
    if scenario not in SCENARIOS:
        raise InputError(f"{scenario}: no such scenario; {did_you_mean(scenario, SCENARIOS)}")
    if examples < MIN_EXAMPLES:
        raise InputError(f"examples: {examples} are too few; give {MIN_EXAMPLES} or more")
    if seed < 0:
        raise InputError(f"seed: {seed} is negative; give 0 or more")
    root = locate(out)
    begin_dataset(root, name=scenario)

    num_held_out = examples // 10
    sizes = (examples - 2 * num_held_out, num_held_out, num_held_out)
    # A small train split has 8 files of 8 row groups, enough for 64 streams; a large one more.
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
    description = f"synthetic log of {world.description}; {examples:,} examples, seed {seed}"
    info = DatasetInfo(name=scenario, description=description, splits=splits)
    write_dataset_info(root, info)
    return info


def _chunks(
    world: Ecommerce,
    *,
    rng: Generator,
    num_examples: int,
    best: dict[str, BinaryBest | RegressionBest],
) -> Iterator[pa.Table]:
    """A split's examples; `best` has seen those that are drawn."""
    for start in range(0, num_examples, CHUNK_EXAMPLES):
        table = world.draw(rng, num_examples=min(CHUNK_EXAMPLES, num_examples - start))
        for task, scores in best.items():
            observed_N = table[task].is_valid().to_numpy()
            labels_N, truth_N = table[task].to_numpy(), table[f"truth_{task}"].to_numpy()
            scores.add(truth=truth_N[observed_N], labels=labels_N[observed_N])
        yield table


def _reported(
    tables: Iterator[pa.Table], *, num_before: int, on_progress: Callable[[int], None] | None
) -> Iterator[pa.Table]:
    for table in tables:
        num_before += table.num_rows
        if on_progress is not None:
            on_progress(num_before)
        yield table


@dataclass(frozen=True)
class Visits:
    """The examples of a chunk before labels; ids count from 1, a missing number is NaN."""

    users: Ints
    items: Ints
    ads: Ints  # 0: an ad without an id
    hours: Ints
    list_lengths: Ints
    list_missing: Bools
    listed_items: Ints  # of all lists, one after the other
    prices: Floats
    ages: Floats
    days: Floats


class Ecommerce:
    """A shop: visitors see an item and an ad; some click, and some of those buy.

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
    click             int8; 25% are 1
    purchase          int8, null without a click; 30% of the others are 1
    spend             float32, null without a purchase; log(1 + spend) is normal with deviation 0.4
    ad_click          int8; 10% are 1

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
    tasks: ClassVar[dict[str, Literal["binary", "regression"]]] = {
        "click": "binary",
        "purchase": "binary",
        "spend": "regression",
        "ad_click": "binary",
    }
    # Binary: the rate, and the standard deviation of the true logits. Regression: mean and standard
    # deviation of the true means.
    targets: ClassVar[dict[str, tuple[float, float]]] = {
        "click": (0.25, 1.6),
        "purchase": (0.30, 1.6),
        "spend": (4.0, 0.6),
        "ad_click": (0.10, 1.4),
    }
    log_spend_noise = 0.4
    # Means and standard deviations, for a recipe to repeat.
    log_price = (3.4, 0.8)  # log(1 + price)
    age = (38.0, 12.0)
    log_days = (1.8, 0.8)  # log(1 + days_since_visit)

    def __init__(self, *, examples: int, rng: Generator) -> None:
        C, K = len(self.categories), NUM_FACTORS
        self.num_users = min(max(examples // 150, 1_000), 10_000_000)
        self.num_items = min(max(examples // 400, 300), 2_000_000) // C * C
        self.num_ads = min(max(examples // 2_000, 50), 100_000)
        self.description = (
            f"an online shop with {self.num_users:,} users, {self.num_items:,} items in {C} "
            f"categories and {self.num_ads:,} ads"
        )
        # Effects by id, row 0 for "no id"; float32, because the largest have ten million rows.
        users, items = self.num_users + 1, self.num_items + 1
        category = _category(np.arange(items), num_categories=C)
        self.category_factors_CK = _standardized(_normal(rng, C, K))
        self.item_factors = 0.8 * self.category_factors_CK[category] + 0.6 * _normal(rng, items, K)
        self.user_factors = _normal(rng, users, K)
        self.ad_factors = _normal(rng, self.num_ads + 1, K)
        self.user_age = np.clip(self.age[0] + self.age[1] * _normal(rng, users), 18, 80).round()
        log_price = self.log_price[0] + self.log_price[1] * np.clip(_normal(rng, items), -2.5, 2.5)
        self.item_price = np.expm1(log_price).round(2)
        # Who clicks much also buys somewhat more; what lures clicks is bought somewhat less.
        eager = _normal(rng, users)
        lure, liked, dear = _standardized(_normal(rng, C, 3)).T[:, category]
        lure += 0.6 * _normal(rng, items)
        self.user_effect = {
            "click": eager,
            "purchase": 0.8 * eager + 0.4 * _normal(rng, users),
            "spend": _normal(rng, users),
            "ad_click": 0.5 * eager + 0.5 * _normal(rng, users),
        }
        self.item_effect = {
            "click": lure,
            "purchase": liked + 0.5 * _normal(rng, items) - 0.3 * lure,
            "spend": 0.5 * dear,
        }
        self.ad_effect = _normal(rng, self.num_ads + 1)
        self.item_names = pa.array(["", *(f"sku-{index:05d}" for index in range(1, items))])
        self.scale = self._calibrate(rng)

    def draw(self, rng: Generator, *, num_examples: int) -> pa.Table:
        """The next examples of the log: features, labels and truth."""
        visits = self._visits(rng, num_examples)
        truth = self._truth(visits)
        click_N, purchase_N, ad_click_N = (
            rng.random(num_examples) < truth[task] for task in ("click", "purchase", "ad_click")
        )
        noise_N = np.clip(rng.standard_normal(num_examples), -4, 4)  # so that no spend is negative
        spend_N = np.expm1(truth["spend"] + self.log_spend_noise * noise_N)
        category_N = _category(visits.items, num_categories=len(self.categories))
        listed = self.item_names.take(pa.array(visits.listed_items))
        columns = {
            "user_id": pa.array(visits.users),
            "item_id": self.item_names.take(pa.array(visits.items)),
            "category": pa.array(self.categories).take(pa.array(category_N)),
            "hour": pa.array(visits.hours, pa.int8()),
            "recent_items": _lists(
                listed, lengths=visits.list_lengths, missing=visits.list_missing
            ),
            "price": pa.array(visits.prices, pa.float32()),
            "user_age": pa.array(visits.ages, pa.float32(), from_pandas=True),
            "days_since_visit": pa.array(visits.days, pa.float32(), from_pandas=True),
            "ad_id": pa.array(visits.ads, mask=visits.ads == 0),
            "click": pa.array(click_N.astype(np.int8)),
            "purchase": pa.array(purchase_N.astype(np.int8), mask=~click_N),
            "spend": pa.array(spend_N.astype(np.float32), mask=~(click_N & purchase_N)),
            "ad_click": pa.array(ad_click_N.astype(np.int8)),
        }
        columns |= {f"truth_{task}": pa.array(truth_N) for task, truth_N in truth.items()}
        return pa.table(columns)

    def _visits(self, rng: Generator, num_examples: int) -> Visits:
        C = len(self.categories)
        users = _zipf(rng, num_ids=self.num_users, exponent=0.8, size=num_examples)
        items = _zipf(rng, num_ids=self.num_items, exponent=0.9, size=num_examples)
        ads = _zipf(rng, num_ids=self.num_ads, exponent=0.7, size=num_examples)
        ads[rng.random(num_examples) < 0.05] = 0
        crowd = 1 + 0.8 * np.cos((np.arange(24) - 20) * math.tau / 24)
        hours = rng.choice(24, p=crowd / crowd.sum(), size=num_examples)

        # 70% of the recent items come from one category, by the user's taste (Gumbel's trick).
        list_missing, list_empty = rng.random((2, num_examples)) < 0.05
        lengths = np.where(list_missing | list_empty, 0, 1 + rng.poisson(4.5, num_examples))
        taste_NC = np.einsum("nk,ck->nc", self.user_factors[users], self.category_factors_CK)
        favourite_N = np.argmax(taste_NC + rng.gumbel(size=(num_examples, C)), axis=1)
        favourite_I = np.repeat(favourite_N, lengths)
        any_I = _zipf(rng, num_ids=self.num_items, exponent=0.9, size=len(favourite_I))
        rank_I = _zipf(rng, num_ids=self.num_items // C, exponent=0.9, size=len(favourite_I))
        of_favourite_I = (rank_I - 1) * C + favourite_I + 1
        listed = np.where(rng.random(len(favourite_I)) < 0.7, of_favourite_I, any_I)

        ages = np.where(rng.random(num_examples) < 0.10, np.nan, self.user_age[users])
        days = np.expm1(np.clip(rng.normal(*self.log_days, size=num_examples), 0, 6))
        days[rng.random(num_examples) < 0.15] = np.nan
        return Visits(
            users=users,
            items=items,
            ads=ads,
            hours=hours,
            list_lengths=lengths,
            list_missing=list_missing,
            listed_items=listed,
            prices=self.item_price[items],
            ages=ages,
            days=days,
        )

    def _signals(self, visits: Visits) -> dict[str, Floats]:
        """Each task's true logit, or mean, before `scale`."""
        user, item, users, items = self.user_effect, self.item_effect, visits.users, visits.items
        price = (np.log1p(visits.prices) - self.log_price[0]) / self.log_price[1]
        age = np.nan_to_num((visits.ages - self.age[0]) / self.age[1])
        away = np.tanh(np.nan_to_num((np.log1p(visits.days) - self.log_days[0]) / self.log_days[1]))
        evening = np.cos((visits.hours - 21) * math.tau / 24)
        # The price that a visitor finds right rises with age; farther off is worse, on either side.
        misfit = np.abs(price - 0.7 * age)
        listed_NK = _means(self.item_factors[visits.listed_items], lengths=visits.list_lengths)
        keen = listed_NK[:, 0]  # some items are looked at by those who mean to buy
        user_NK, item_NK = self.user_factors[users], self.item_factors[items]
        taste = _products(user_NK, item_NK)
        history = _products(listed_NK, item_NK)
        ad_taste = _products(user_NK, self.ad_factors[visits.ads])
        return {
            "click": item["click"][items] + 0.4 * user["click"][users] + 0.2 * taste
            + 0.15 * history + 0.5 * keen - 0.6 * misfit + 0.5 * evening,
            "purchase": item["purchase"][items] + 0.4 * user["purchase"][users] + 0.15 * taste
            + 0.15 * history + 0.5 * keen - misfit - 0.8 * away,
            "spend": item["spend"][items] + 0.4 * user["spend"][users] + price + 0.4 * age,
            "ad_click": self.ad_effect[visits.ads] + 0.5 * user["ad_click"][users]
            + 0.2 * ad_taste - 0.3 * keen + 0.5 * evening + 0.5 * away,
        }  # fmt: skip

    def _truth(self, visits: Visits) -> dict[str, Floats]:
        truth = {}
        for task, signal_N in self._signals(visits).items():
            offset, slope = self.scale[task]
            value_N = offset + slope * signal_N.astype(np.float64)
            if self.tasks[task] == "binary":
                truth[task] = _sigmoid(value_N)
            else:
                mean, std = self.targets[task]
                truth[task] = np.clip(value_N, mean - 3 * std, mean + 3 * std)
        return truth

    def _calibrate(self, rng: Generator) -> dict[str, tuple[float, float]]:
        """Each task's (offset, slope), with which its signal meets its target on a pilot sample."""
        signals = self._signals(self._visits(rng, NUM_PILOT_EXAMPLES))
        scale = {}
        click_N: Floats | None = None
        for task, signal_N in signals.items():
            target, spread = self.targets[task]
            weights_N = click_N if task == "purchase" else None  # its rate is that after a click
            mean, std = _mean_and_std(signal_N, weights=weights_N)
            slope = spread / std
            offset = target - slope * mean
            if self.tasks[task] == "binary":
                offset = _offset(slope * signal_N, rate=target, weights=weights_N)
            if task == "click":
                click_N = _sigmoid(offset + slope * signal_N)
            scale[task] = (offset, slope)
        return scale


SCENARIOS = {"ecommerce": Ecommerce}


def _zipf(rng: Generator, *, num_ids: int, exponent: float, size: int) -> Ints:
    """Ids from 1 to num_ids; the probability of id k falls as k ** -exponent, 0 < exponent < 1.

    The integral of the power law from k to k + 1 stands for its value at k: that takes no table.
    """
    power = 1 - exponent
    top = (num_ids + 1) ** power
    ids = (1 + rng.random(size) * (top - 1)) ** (1 / power)
    return np.minimum(ids.astype(np.int64), num_ids)


def _category(items: Ints, *, num_categories: int) -> Ints:
    """Items take the categories in turn, so that each has popular items and rare ones."""
    return (items - 1) % num_categories


def _normal(rng: Generator, *shape: int) -> npt.NDArray[np.float32]:
    return rng.standard_normal(shape, dtype=np.float32)


def _standardized(values: Floats) -> Floats:
    """Mean 0 and variance 1 in each column: with few rows, chance would leave neither."""
    return (values - values.mean(axis=0)) / values.std(axis=0)


def _products(left_NK: Floats, right_NK: Floats) -> Floats:
    return (left_NK * right_NK).sum(axis=1) / math.sqrt(NUM_FACTORS)


def _sigmoid(logits: Floats) -> Floats:
    return 1 / (1 + np.exp(-logits))


def _mean_and_std(values: Floats, *, weights: Floats | None) -> tuple[float, float]:
    mean = np.average(values, weights=weights)
    return float(mean), float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))


def _offset(logits: Floats, *, rate: float, weights: Floats | None) -> float:
    """What to add to the logits for a mean probability of `rate`, by bisection."""
    low, high = -30.0, 30.0
    for _ in range(50):
        middle = (low + high) / 2
        if np.average(_sigmoid(logits + middle), weights=weights) < rate:
            low = middle
        else:
            high = middle
    return low


def _lists(values: pa.Array, *, lengths: Ints, missing: Bools) -> pa.ListArray:
    """Cuts the values into lists; a missing one is null, and its length is 0."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(missing))


def _means(vectors_IK: Floats, *, lengths: Ints) -> Floats:
    """The mean vector of each list, (N, K); zeros for an empty one."""
    owner_I = np.repeat(np.arange(len(lengths)), lengths)
    sums = [np.bincount(owner_I, weights=v, minlength=len(lengths)) for v in vectors_IK.T]
    return np.stack(sums, axis=1) / np.maximum(lengths, 1)[:, None]
