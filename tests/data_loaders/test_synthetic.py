"""The synthetic log is what it says: its truth, its gaps, its layout, its oracle."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from data_loaders.dataset import DatasetInfo, read_dataset_info
from data_loaders.errors import InputError, StorageError
from data_loaders.oracle import BinaryBest, RegressionBest
from data_loaders.scenarios.ecommerce import Ecommerce
from data_loaders.storage import locate
from data_loaders.synthetic import CHUNK_EXAMPLES, generate

NUM_EXAMPLES = 100_000
BINARY = ("click", "purchase", "ad_click")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("synthetic") / "log"


@pytest.fixture(scope="module")
def info(root: Path) -> DatasetInfo:
    return generate("ecommerce", out=str(root), examples=NUM_EXAMPLES)


@pytest.fixture(scope="module")
def train(root: Path, info: DatasetInfo) -> pa.Table:
    return pq.read_table(root / "train")


def observed(table: pa.Table, task: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels and truth of a task where the label is not null."""
    table = table.filter(pc.field(task).is_valid())
    return table[task].to_numpy(), table[f"truth_{task}"].to_numpy()


@pytest.mark.parametrize("task", BINARY)
def test_labels_are_as_frequent_as_their_truth_says(train: pa.Table, task: str) -> None:
    """In each of 20 bins of the truth, the count of ones lies within 4 standard errors."""
    labels, truth = observed(train, task)
    for part in np.array_split(np.argsort(truth), 20):
        variance = (truth[part] * (1 - truth[part])).sum()
        assert abs(labels[part].sum() - truth[part].sum()) < 4 * np.sqrt(variance)


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
    assert train["click"].null_count == 0
    assert train["ad_click"].null_count == 0
    for task in (*BINARY, "spend"):
        assert train[f"truth_{task}"].type == pa.float64()
        assert train[f"truth_{task}"].null_count == 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rates_and_best_auc_do_not_depend_on_the_seed(tmp_path: Path, seed: int) -> None:
    """Base rates meet their targets, and every task can be learned, but not perfectly."""
    info = generate("ecommerce", out=str(tmp_path / "log"), examples=50_000, seed=seed)
    train = pq.read_table(tmp_path / "log" / "train")
    for task, rate in (("click", 0.25), ("purchase", 0.30), ("ad_click", 0.10)):
        labels, _ = observed(train, task)
        assert labels.mean() == pytest.approx(rate, rel=0.1)
        assert 0.79 < info.splits["train"].best[task]["auc"] < 0.86
        assert 0.65 < info.splits["train"].best[task]["normalized_entropy"] < 0.85


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_best_is_what_the_truth_reaches_on_the_labels_of_the_split(
    root: Path, info: DatasetInfo, split: str
) -> None:
    """AUC against scikit-learn; normalised entropy and mse against their definitions."""
    table = pq.read_table(root / split)
    best = info.splits[split].best
    assert list(best) == ["click", "purchase", "spend", "ad_click"]
    for task in BINARY:
        labels, truth = observed(table, task)
        cross_entropy = -np.mean(np.log(np.where(labels == 1, truth, 1 - truth)))
        rate = labels.mean()
        base_entropy = -rate * np.log(rate) - (1 - rate) * np.log(1 - rate)
        assert best[task]["auc"] == pytest.approx(roc_auc_score(labels, truth), abs=1e-4)
        assert best[task]["normalized_entropy"] == pytest.approx(cross_entropy / base_entropy)
    labels, truth = observed(table, "spend")
    assert best["spend"]["mse"] == pytest.approx(np.mean((np.log1p(labels) - truth) ** 2))


def test_the_auc_counts_ties_as_one_half() -> None:
    """Against scikit-learn, on 5 different probabilities, two of them beyond the outer bins."""
    rng = np.random.default_rng(0)
    truth = rng.choice([1e-9, 0.1, 0.3, 0.7, 1 - 1e-9], size=5_000)
    labels = (rng.random(5_000) < truth).astype(np.int8)
    best = BinaryBest()
    for part in np.array_split(np.arange(5_000), 7):
        best.add(truth=truth[part], labels=labels[part])
    assert best.metrics()["auc"] == pytest.approx(roc_auc_score(labels, truth), abs=1e-12)


def test_a_metric_that_is_not_defined_is_left_out() -> None:
    """No AUC without both kinds of labels, no mse without labels: dataset.json holds no NaN."""
    binary, regression = BinaryBest(), RegressionBest(log=True)
    binary.add(truth=np.array([0.2, 0.4]), labels=np.array([0, 0]))
    assert binary.metrics() == {}
    assert regression.metrics() == {}


@pytest.mark.parametrize(
    ("column", "exponent", "ranks"),
    [("user_id", 0.8, (5, 500)), ("item_id", 0.9, (5, 150)), ("ad_id", 0.7, (3, 50))],
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
    for column in train.column_names[:9]:
        fraction = train[column].null_count / train.num_rows
        assert fraction == pytest.approx(rates.get(column, 0.0), abs=0.005)
    lengths = pc.list_value_length(train["recent_items"])
    assert pc.mean(pc.equal(lengths, 0)).as_py() == pytest.approx(0.05 / 0.95, abs=0.005)
    for column in ("price", "user_age", "days_since_visit"):
        assert not pc.any(pc.is_nan(train[column])).as_py()


def test_columns_hold_what_the_docstring_says(train: pa.Table) -> None:
    """Types, ranges, and one price and one category for each item, also for the listed ones."""
    types = {name: str(train.schema.field(name).type) for name in train.column_names[:13]}
    assert types == {
        "user_id": "int64",
        "item_id": "string",
        "category": "string",
        "hour": "int8",
        "recent_items": "list<element: string>",
        "price": "float",
        "user_age": "float",
        "days_since_visit": "float",
        "ad_id": "int64",
        "click": "int8",
        "purchase": "int8",
        "spend": "float",
        "ad_click": "int8",
    }
    items = train.group_by("item_id").aggregate(
        [("price", "count_distinct"), ("category", "count_distinct")]
    )
    assert set(items["price_count_distinct"].to_pylist()) == {1}
    assert set(items["category_count_distinct"].to_pylist()) == {1}
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


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    """All files, dataset.json too, with a train split of more than one chunk."""
    num_examples = CHUNK_EXAMPLES * 3 // 2

    def digests(name: str, seed: int) -> dict[str, str]:
        generate("ecommerce", out=str(tmp_path / name), examples=num_examples, seed=seed)
        return {
            str(path.relative_to(tmp_path / name)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted((tmp_path / name).rglob("*"))
            if path.is_file()
        }

    first, again, other = digests("first", 7), digests("again", 7), digests("other", 8)
    assert first == again
    assert first.keys() == other.keys()
    assert not set(first.values()) & set(other.values())


def test_splits_have_no_example_in_common(root: Path, info: DatasetInfo) -> None:
    """The truth and the days since the last visit are an example's fingerprint."""
    prints: list[set[tuple[float, float]]] = []
    for split in info.splits:
        table = pq.read_table(root / split, columns=["days_since_visit", "truth_click"])
        table = table.filter(pc.field("days_since_visit") > 0)
        prints.append(set(zip(*(column.to_pylist() for column in table.columns), strict=True)))
    assert len(set.union(*prints)) == sum(map(len, prints))


def test_a_small_log_has_several_files_and_row_groups(root: Path, info: DatasetInfo) -> None:
    """8 files of 8 row groups in train; no example lost; dataset.json read back as returned."""
    files = sorted((root / "train").iterdir())
    assert [path.name for path in files] == [f"part-{index:05d}.parquet" for index in range(8)]
    assert {pq.read_metadata(path).num_row_groups for path in files} == {8}
    for split, num_examples in (("train", 80_000), ("valid", 10_000), ("test", 10_000)):
        assert pq.read_table(root / split, columns=["click"]).num_rows == num_examples
        assert info.splits[split].examples == num_examples
    assert read_dataset_info(locate(str(root))) == info


def test_an_uneven_number_of_examples_is_written_in_full(tmp_path: Path) -> None:
    """The smallest sizes too; progress ends at the total."""
    progress: list[int] = []
    info = generate(
        "ecommerce", out=str(tmp_path / "log"), examples=1_009, on_progress=progress.append
    )
    assert [split.examples for split in info.splits.values()] == [809, 100, 100]
    assert progress == [809, 909, 1_009]


@pytest.mark.parametrize(
    ("scenario", "examples", "seed", "message"),
    [
        ("ecomerce", 1_000, 0, "ecomerce: no such scenario; did you mean ecommerce?"),
        ("xyz", 1_000, 0, "xyz: no such scenario; there are: ecommerce"),
        ("ecommerce", 999, 0, "examples: 999 are too few; give 1000 or more"),
        ("ecommerce", 1_000, -1, "seed: -1 is negative; give 0 or more"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(
    tmp_path: Path, scenario: str, examples: int, seed: int, message: str
) -> None:
    """One line that names the remedy."""
    with pytest.raises(InputError) as caught:
        generate(scenario, out=str(tmp_path / "log"), examples=examples, seed=seed)
    assert str(caught.value) == message
    assert not (tmp_path / "log").exists()


def test_a_folder_that_holds_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    """Data sets are never overwritten."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="is not empty"):
        generate("ecommerce", out=str(tmp_path), examples=1_000)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
