"""A generated log is written as it says: its layout, its bytes, its oracle."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from data_loaders.dataset import SPLITS, DatasetInfo, read_dataset_info
from data_loaders.errors import InputError, StorageError
from data_loaders.storage import locate
from data_loaders.synthetic import CHUNK_EXAMPLES, SCENARIOS, generate
from tests.helpers.truth import observed

NUM_EXAMPLES = 100_000
BINARY = ("click", "purchase", "ad_click", "coupon_click")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("synthetic") / "log"


@pytest.fixture(scope="module")
def info(root: Path) -> DatasetInfo:
    return generate("ecommerce", out=str(root), examples=NUM_EXAMPLES)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_best_is_what_the_truth_reaches_on_the_labels_of_the_split(
    root: Path, info: DatasetInfo, split: str
) -> None:
    """AUC against scikit-learn; normalised entropy and mse against their definitions."""
    table = pq.read_table(root / split)
    best = info.splits[split].best
    assert list(best) == ["click", "purchase", "spend", "ad_click", "coupon_click"]
    for task in BINARY:
        labels, truth = observed(table, task)
        cross_entropy = -np.mean(np.log(np.where(labels == 1, truth, 1 - truth)))
        rate = labels.mean()
        base_entropy = -rate * np.log(rate) - (1 - rate) * np.log(1 - rate)
        assert best[task]["auc"] == pytest.approx(roc_auc_score(labels, truth), abs=1e-4)
        assert best[task]["normalized_entropy"] == pytest.approx(cross_entropy / base_entropy)
    labels, truth = observed(table, "spend")
    assert best["spend"]["mse"] == pytest.approx(np.mean((np.log1p(labels) - truth) ** 2))


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
    """The smallest sizes too; progress goes from 0 to the total."""
    progress: list[int] = []
    info = generate(
        "ecommerce", out=str(tmp_path / "log"), examples=1_009, on_progress=progress.append
    )
    assert [split.examples for split in info.splits.values()] == [809, 100, 100]
    assert progress == [0, 809, 909, 1_009]


@pytest.mark.parametrize(
    ("scenario", "examples", "seed", "message"),
    [
        ("ecomerce", 1_000, 0, "ecomerce: no such scenario; did you mean ecommerce?"),
        (
            "xyz",
            1_000,
            0,
            f"xyz: no such scenario; there are: {', '.join(SCENARIOS)}",
        ),
        ("ecommerce", 999, 0, "examples: 999 are too few; give 1,000 or more"),
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


@pytest.mark.parametrize(
    ("scenario", "options", "message"),
    [
        (
            "social",
            {"correlation": 0.5},
            "correlation: the scenario social takes none; only correlated does",
        ),
        (
            "correlated",
            {"correlation": 1.5},
            "correlation: expected a number from -1 to 1, found 1.5",
        ),
        (
            "correlated",
            {"correlation": math.nan},
            "correlation: expected a number from -1 to 1, found nan",
        ),
        ("news", {"density": 0}, "density: expected 1 or more, found 0"),
        (
            "correlated",
            {"density": 2},
            "density: the scenario correlated takes none; it has no ids",
        ),
        (
            "news",
            {"density": 2},
            "density: 2 takes 300,000 examples or more, found 1,000; a shorter log has no fewer "
            "ids at a higher density",
        ),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(
    tmp_path: Path, scenario: str, options: dict[str, Any], message: str
) -> None:
    """And one beyond its range: in one line, before anything is written."""
    out = str(tmp_path / "log")
    with pytest.raises(InputError) as caught:
        generate(scenario, out=out, examples=1_000, **options)
    assert str(caught.value) == message
    assert not (tmp_path / "log").exists()


def test_a_denser_log_has_as_many_examples_of_fewer_ids(tmp_path: Path) -> None:
    """Users by so many times fewer as the density says; dataset.json says so."""
    users = {}
    for density in (1, 2):
        out = tmp_path / str(density)
        info = generate("ecommerce", out=str(out), examples=300_000, density=density)
        train = pq.read_table(out / "train", columns=["user_id"])
        assert info.splits["train"].examples == train.num_rows == 240_000
        users[density] = pc.max(train["user_id"]).as_py()
    assert users == {1: 2_000, 2: 1_000}
    assert info.description.endswith("seed 0, 2 times as many for each id")


def test_the_correlation_that_is_asked_for_is_the_logs(tmp_path: Path) -> None:
    """At 1 both tasks have one truth; dataset.json says so, and what mse is the best possible."""
    out = tmp_path / "log"
    info = generate("correlated", out=str(out), examples=2_000, correlation=1.0)
    train = pq.read_table(out / "train")
    np.testing.assert_allclose(train["truth_y1"], train["truth_y2"], atol=1e-12)
    assert "weights of correlation 1;" in info.description
    mse = np.mean((train["y1"].to_numpy() - train["truth_y1"].to_numpy()) ** 2)
    assert info.splits["train"].best["y1"] == {"mse": pytest.approx(mse)}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_dataset_json_knows_every_columns_statistics(tmp_path: Path, scenario: str) -> None:
    """Of train alone; ids have vocabularies; vectors and truths are left out."""
    info = generate(scenario, out=str(tmp_path / "log"), examples=1_000)
    train = pq.read_table(tmp_path / "log" / "train")
    fitted = {
        field.name
        for field in train.schema
        if not (field.name.startswith("truth_") or "float>" in str(field.type))
        and not str(field.type).startswith("fixed_size_list")
    }
    assert set(info.columns) == fitted
    for column, statistics in info.columns.items():
        if statistics.kind == "number":
            assert statistics.count + statistics.missing == train.num_rows
            assert statistics.mean == pytest.approx(pc.mean(train[column]).as_py())
        else:
            vocabulary = pq.read_table(tmp_path / "log" / statistics.vocabulary)
            assert vocabulary.num_rows == statistics.distinct > 0


def test_a_folder_that_holds_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    """Data sets are never overwritten."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="is not empty"):
        generate("ecommerce", out=str(tmp_path), examples=1_000)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def interrupt_generate(out: Path, *, examples: int) -> None:
    """Ends a call when the first file has been written."""

    def stop(done: int) -> None:
        if done > examples * 8 // 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate("ecommerce", out=str(out), examples=examples, on_progress=stop)


def test_what_an_interrupted_call_left_is_begun_anew(tmp_path: Path) -> None:
    """The log is the one that an uninterrupted call writes, byte by byte."""
    out, other = tmp_path / "log", tmp_path / "other"
    interrupt_generate(out, examples=4_000)
    assert sorted(path.name for path in out.iterdir()) == ["dataset.json", "train"]
    info = generate("ecommerce", out=str(out), examples=1_000)
    assert info == generate("ecommerce", out=str(other), examples=1_000)
    for split in SPLITS:
        written = {path.name: path.read_bytes() for path in (out / split).iterdir()}
        assert written == {path.name: path.read_bytes() for path in (other / split).iterdir()}


def test_an_interrupted_call_is_begun_anew_by_the_same_scenario_alone(tmp_path: Path) -> None:
    """Nor is anything deleted beside which a file of one's own lies."""
    interrupt_generate(tmp_path / "log", examples=1_000)
    with pytest.raises(StorageError, match="is not empty"):
        generate("social", out=str(tmp_path / "log"), examples=1_000)
    (tmp_path / "log" / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match=r"notes\.txt: lies in a data set that is incomplete"):
        generate("ecommerce", out=str(tmp_path / "log"), examples=1_000)
    assert (tmp_path / "log" / "train").exists()
