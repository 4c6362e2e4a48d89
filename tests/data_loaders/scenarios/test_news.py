"""The news site is what it says: its clock, its new articles, and a truth that can be reached."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sklearn.metrics import roc_auc_score

from data_loaders.scenarios.calibration import sigmoid
from data_loaders.scenarios.news import News, Views
from tests.helpers.truth import observed

NUM_EXAMPLES = 40_000


@pytest.fixture(scope="module")
def world() -> News:
    return News(examples=NUM_EXAMPLES, rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def splits(world: News) -> dict[str, pa.Table]:
    """train in two chunks, valid and test"""
    rng = np.random.default_rng(4)

    def part(start: float, stop: float) -> pa.Table:
        num_examples = round(NUM_EXAMPLES * (stop - start))
        return world.draw(rng, num_examples=num_examples, start=start, stop=stop)

    return {
        "train": pa.concat_tables([part(0.0, 0.3), part(0.3, 0.8)]),
        "valid": part(0.8, 0.9),
        "test": part(0.9, 1.0),
    }


@pytest.fixture(scope="module")
def train(splits: dict[str, pa.Table]) -> pa.Table:
    return splits["train"]


@pytest.fixture(scope="module")
def views(world: News) -> Views:
    """From the last fifth of the log, where there are new articles and old ones."""
    hours = world._hours(np.linspace(0.8, 1.0, 2_000))
    return world._views(np.random.default_rng(2), hours)


def test_columns_hold_what_the_docstring_says(world: News, train: pa.Table) -> None:
    """Types, gaps, ranges."""
    types = {name: str(train.schema.field(name).type) for name in train.column_names[:16]}
    assert types == {
        "user_id": "int64",
        "article_id": "string",
        "publisher": "string",
        "topic": "string",
        "headline": "list<item: int16>",
        "recent_topics": "list<item: string>",
        "article_hours": "float",
        "reading_minutes": "float",
        "hour": "int8",
        "device": "string",
        "ad_id": "int64",
        "log_hours": "double",
        "article_id_is_new": "int8",
        "headline_click": "int8",
        "article_read": "int8",
        "ad_click": "int8",
    }
    gaps = {"publisher": 0.03, "headline": 0.05, "recent_topics": 0.05, "reading_minutes": 0.10}
    gaps |= {"ad_id": 0.05}
    for column in train.column_names[:13]:
        fraction = train[column].null_count / train.num_rows
        assert fraction == pytest.approx(gaps.get(column, 0.0), abs=0.006)
    lengths = pc.list_value_length(train["recent_topics"])
    assert pc.mean(pc.equal(lengths, 0)).as_py() == pytest.approx(0.10, abs=0.01)
    assert set(pc.list_value_length(train["headline"].drop_null()).to_pylist()) == set(range(4, 10))
    assert set(pc.list_flatten(train["headline"]).to_pylist()) == set(range(1, 121))
    assert set(pc.list_flatten(train["recent_topics"]).to_pylist()) == set(world.topics)
    assert set(train["topic"].to_pylist()) == set(world.topics)
    assert set(train["device"].to_pylist()) == set(world.devices)
    assert pc.count_distinct(train["publisher"]).as_py() == 30
    assert set(train["hour"].to_pylist()) == set(range(24))
    assert pc.min(train["reading_minutes"]).as_py() > 0
    assert not pc.any(pc.is_nan(train["reading_minutes"])).as_py()


def test_an_article_has_one_headline_topic_publisher_and_time_of_publication(
    splits: dict[str, pa.Table],
) -> None:
    """Whenever it is shown, in whatever split."""
    log = pa.concat_tables(splits.values())
    headlines = [None if words is None else str(words) for words in log["headline"].to_pylist()]
    log = log.append_column("words", pa.array(headlines))
    log = log.append_column("published", pc.subtract(log["log_hours"], log["article_hours"]))
    columns = ("words", "topic", "publisher", "reading_minutes", "article_id_is_new")
    articles = log.group_by("article_id").aggregate(
        [*((column, "count_distinct") for column in columns), ("published", "min_max")]
    )
    for column in columns:
        assert max(articles[f"{column}_count_distinct"].to_pylist()) == 1
    for spread in articles["published_min_max"].to_pylist():
        assert spread["max"] - spread["min"] < 0.001


def test_examples_are_in_order_of_time_and_fill_the_span(splits: dict[str, pa.Table]) -> None:
    """Over chunks and splits; `hour` is the hour of the day; more are shown by day."""
    times = np.concatenate([table["log_hours"].to_numpy() for table in splits.values()])
    assert (np.diff(times) >= 0).all()
    assert times[0] == pytest.approx(0, abs=0.1)
    assert times[-1] == pytest.approx(96, abs=0.1)
    hours = np.concatenate([table["hour"].to_numpy() for table in splits.values()])
    np.testing.assert_array_equal(hours, np.floor(times) % 24)
    shares = np.bincount(hours) / len(hours)
    assert shares.argmax() in range(12, 19)
    assert shares.max() > 2 * shares.min()


def test_new_articles_are_those_that_training_never_saw(splits: dict[str, pa.Table]) -> None:
    """`article_id_is_new` is 1 if and only if the article came after train's last example; no such
    article occurs in train, they are a fifth of valid's examples and almost half of test's."""
    seen = set(splits["train"]["article_id"].to_pylist())
    end = pc.max(splits["train"]["log_hours"]).as_py()
    for split, low, high in (("train", 0.0, 0.0), ("valid", 0.15, 0.3), ("test", 0.35, 0.5)):
        log = splits[split]
        is_new = log["article_id_is_new"].to_numpy() == 1
        published = log["log_hours"].to_numpy() - log["article_hours"].to_numpy()
        assert (log["article_hours"].to_numpy() >= 0).all()
        np.testing.assert_array_equal(is_new, published > end)
        assert low <= is_new.mean() <= high
        names = log["article_id"].to_numpy(zero_copy_only=False)
        assert not seen & set(names[is_new])
        unseen = [name not in seen for name in names[~is_new]]
        assert np.mean(unseen) < 0.02  # an old article that nobody was shown


def test_the_readers_of_an_article_fade(train: pa.Table) -> None:
    """Shows of an article fall by about e in ten hours, guides aside."""
    times, ages = train["log_hours"].to_numpy(), train["article_hours"].to_numpy()
    is_news = np.isclose((times - ages) % 1, 0, atol=1e-3) | np.isclose((times - ages) % 1, 1)
    counts = np.histogram(ages[is_news], bins=np.arange(1, 31))[0]
    slope, _ = np.polyfit(np.arange(1, 30), np.log(counts), deg=1)
    assert slope == pytest.approx(-0.1, abs=0.01)
    assert is_news.mean() == pytest.approx(0.65, abs=0.02)


def test_labels_are_as_frequent_as_their_truth_says(world: News, train: pa.Table) -> None:
    """In each of 20 bins of the truth, the count of ones lies within 4 standard errors."""
    for task in world.tasks:
        labels, truth = observed(train, task)
        for part in np.array_split(np.argsort(truth), 20):
            variance = (truth[part] * (1 - truth[part])).sum()
            assert abs(labels[part].sum() - truth[part].sum()) < 4 * np.sqrt(variance)
    assert train["article_read"].is_valid().equals(pc.equal(train["headline_click"], 1))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rates_and_best_auc_do_not_depend_on_the_seed(seed: int) -> None:
    """Base rates meet their targets, and every task can be learned, but not perfectly; on test,
    where the effects of new articles are unknown, less well."""
    world = News(examples=50_000, rng=np.random.default_rng(seed))
    rng = np.random.default_rng(seed + 100)
    train = world.draw(rng, num_examples=40_000, start=0.0, stop=0.8)
    test = world.draw(rng, num_examples=10_000, start=0.9, stop=1.0)
    for task, rate in (("headline_click", 0.25), ("article_read", 0.40), ("ad_click", 0.10)):
        labels, truth = observed(train, task)
        assert labels.mean() == pytest.approx(rate, rel=0.1)
        assert 0.79 < roc_auc_score(labels, truth) < 0.86
        assert 0.77 < roc_auc_score(*observed(test, task)) < 0.86


def test_the_truth_of_a_new_article_knows_nothing_of_the_article_itself(
    world: News, views: Views
) -> None:
    """It is the mean over a normal effect of its own, against a sample of such effects; that of an
    old article knows the effect, and labels are drawn with it in either case."""
    signals, is_new = world._signals(views), world._is_new(views)
    assert 0.2 < is_new.mean() < 0.5
    expected = world._expected(signals, views)
    drawn_from = world._truth(world._with_own(signals, views))
    effects = np.random.default_rng(3).standard_normal((10_000, 1))
    for task in world.tasks:
        np.testing.assert_allclose(expected[task][~is_new], drawn_from[task][~is_new], rtol=1e-6)
        scale, own = world.scales[task], world.own_weights.get(task, 0.0)
        logits = scale.offset + scale.slope * (signals[task][is_new][:50] + own * effects)
        means = sigmoid(logits).mean(axis=0)
        np.testing.assert_allclose(expected[task][is_new][:50], means, atol=0.01)
        apart = np.abs(expected[task] - drawn_from[task])[is_new].mean()
        assert (apart > 0.02) == (own > 0)


def test_new_articles_can_be_told_by_their_words_topic_and_publisher(
    splits: dict[str, pa.Table],
) -> None:
    """The truth orders their clicks well, but not as well as those of known articles."""
    log = pa.concat_tables([splits["valid"], splits["test"]])
    auc = {
        is_new: roc_auc_score(
            *observed(log.filter(pc.field("article_id_is_new") == is_new), "headline_click")
        )
        for is_new in (0, 1)
    }
    assert 0.70 < auc[1] < auc[0]


def test_missing_values_mean_to_the_truth_what_they_mean_to_a_model(
    world: News, views: Views
) -> None:
    """A missing number is the mean, a null list an empty one, "no id" one more id."""
    N = len(views.users)
    empty, all_null = np.array([], dtype=int), np.ones(N, dtype=bool)
    mean_minutes = np.full(N, np.expm1(world.log_minutes[0]))
    no_words = {"word_lengths": np.zeros(N, dtype=int), "listed_words": empty}
    no_topics = {"topic_lengths": np.zeros(N, dtype=int), "listed_topics": empty}
    for missing, present in (
        ({"minutes": np.full(N, np.nan)}, {"minutes": mean_minutes}),
        (no_words | {"word_missing": all_null}, no_words | {"word_missing": ~all_null}),
        (no_topics | {"topic_missing": all_null}, no_topics | {"topic_missing": ~all_null}),
    ):
        left = world._signals(dataclasses.replace(views, **missing))
        right = world._signals(dataclasses.replace(views, **present))
        for task in world.tasks:
            np.testing.assert_allclose(left[task], right[task], rtol=1e-12)
    for field, task in (("ads", "ad_click"), ("publishers", "headline_click")):
        none = world._signals(dataclasses.replace(views, **{field: np.zeros(N, dtype=int)}))
        one = world._signals(dataclasses.replace(views, **{field: np.ones(N, dtype=int)}))
        assert not np.allclose(none[task], one[task])


def test_recent_topics_show_the_taste_of_the_user(train: pa.Table) -> None:
    """What a heavy user reads more of than others do is the same in both halves."""

    def preferences(half: pa.Table) -> np.ndarray:
        shares = []
        for user in range(1, 21):
            lists = half.filter(pc.equal(half["user_id"], user))["recent_topics"]
            topics = np.array(pc.list_flatten(lists).to_pylist())
            shares.append([np.mean(topics == topic) for topic in News.topics])
        return np.array(shares) - np.mean(shares, axis=0)

    middle = train.num_rows // 2
    first, second = preferences(train.slice(0, middle)), preferences(train.slice(middle))
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.9
