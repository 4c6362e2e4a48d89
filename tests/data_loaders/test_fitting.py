"""What a recipe leaves to the training split, against numpy on the whole column."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_loaders.config import DataConfig, DenseFeature, IdFeature, IdListFeature, RegressionTask
from data_loaders.errors import SchemaError, StorageError
from data_loaders.fitting import fitted
from data_loaders.id_vocabulary import digest_of
from data_loaders.loader import InteractionLoader
from data_loaders.streams import Cursor
from tests.helpers.logs import write_toy_log
from tests.helpers.statistics import write_statistics

NUM_ROWS = {"user": 20, "item": 30, "history": 30, "age_range": 6, "zeros": 21}
COLUMNS: dict[str, Any] = {
    "user": "id",
    "item": "id",
    "history": "id",
    "age": "number",
    "price": "number",
    "watch": "number",
    "country": "number",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy log with statistics."""
    log = write_toy_log(tmp_path_factory.mktemp("log"))
    write_statistics(log, COLUMNS)
    return log


def make_config(
    root: Path | None, tasks: dict[str, Any] | None = None, **features: Any
) -> DataConfig:
    tree = {
        "root": None if root is None else str(root),
        "features": features or {"age": {"kind": "dense"}},
        "tasks": tasks or {"click": {"kind": "binary"}},
    }
    return DataConfig.model_validate(tree)


def fit_one(root: Path, name: str, **keys: Any) -> Any:
    """One feature, fitted."""
    config = fitted(make_config(root, **{name: keys}), num_rows=NUM_ROWS)
    return config.features[name]


def values_of(root: Path, column: str) -> np.ndarray:
    """All numbers of a column of `train/` that are not missing."""
    table = pa.concat_tables(
        pq.read_table(path, columns=[column]) for path in sorted((root / "train").iterdir())
    )
    return table[column].drop_null().to_numpy().astype(np.float64)


@pytest.mark.parametrize("log", [False, True])
def test_fit_takes_mean_and_deviation_of_the_training_split(root: Path, log: bool) -> None:
    """Of the number as it is used, for features and for labels."""
    feature = fit_one(root, "age", kind="dense", log=log, mean="fit", std="fit")
    numbers = values_of(root, "age")
    numbers = np.log1p(numbers) if log else numbers
    assert isinstance(feature, DenseFeature)
    assert feature.mean == pytest.approx(numbers.mean())
    assert feature.std == pytest.approx(numbers.std())
    task = {"kind": "regression", "log": log, "mean": "fit", "std": 2.0}
    watch = fitted(make_config(root, {"watch": task}), num_rows={}).tasks["watch"]
    labels = values_of(root, "watch")
    assert isinstance(watch, RegressionTask)
    assert watch.mean == pytest.approx((np.log1p(labels) if log else labels).mean())
    assert watch.std == 2.0


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("clip", [(4.0, 6.0), (0.0, 1e9), (6.5, 7.0)])
def test_fit_counts_what_clip_leaves(root: Path, clip: tuple[float, float], log: bool) -> None:
    """From the quantiles, so nearly; price has negative values, which clip lifts above -1."""
    feature = fit_one(root, "price", kind="dense", log=log, clip=clip, mean="fit", std="fit")
    numbers = np.clip(values_of(root, "price"), *clip)
    numbers = np.log1p(numbers) if log else numbers
    assert feature.mean == pytest.approx(numbers.mean(), abs=0.05 * numbers.std())
    assert feature.std == pytest.approx(numbers.std(), rel=0.05)


def test_a_column_of_one_value_is_not_divided_by_zero(root: Path, tmp_path: Path) -> None:
    """It becomes 0."""
    table = pa.table({"age": pa.array([3, 3, None]), "click": [0, 1, 0]})
    (tmp_path / "train").mkdir()
    pq.write_table(table, tmp_path / "train" / "part-0.parquet")
    write_statistics(tmp_path, {"age": "number"})
    feature = fit_one(tmp_path, "age", kind="dense", mean="fit", std="fit")
    assert (feature.mean, feature.std) == (3.0, 1.0)


def test_quantiles_cut_the_training_split_into_equal_parts(root: Path) -> None:
    """Five ranges of about a fifth each, numbered by the table's rows 1 to 5."""
    feature = fit_one(root, "age_range", kind="id", column="age", encoding="quantiles")
    ages = values_of(root, "age")
    assert len(feature.boundaries) == 4
    assert feature.boundaries == pytest.approx(np.quantile(ages, [0.2, 0.4, 0.6, 0.8]), abs=1)
    shares = np.bincount(np.searchsorted(feature.boundaries, ages, side="right")) / len(ages)
    assert shares == pytest.approx([0.2] * 5, abs=0.05)


def test_quantiles_of_a_column_with_few_values_have_fewer_ranges(tmp_path: Path) -> None:
    """Two thirds are zero: they have one range, and no boundary stands twice."""
    table = pa.table({"zeros": [0] * 60 + [1, 2, 3] * 10, "click": [0] * 90})
    (tmp_path / "train").mkdir()
    pq.write_table(table, tmp_path / "train" / "part-0.parquet")
    write_statistics(tmp_path, {"zeros": "number"})
    feature = fit_one(tmp_path, "zeros", kind="id", encoding="quantiles")
    assert feature.boundaries == sorted(set(feature.boundaries))
    rows = np.searchsorted(feature.boundaries, [0, 1, 2, 3], side="right")
    assert rows.tolist() == [0, 1, 2, 3]


def test_features_of_a_table_share_one_vocabulary(root: Path) -> None:
    """That of the first one's column, because a row of the table is one id."""
    config = make_config(
        root,
        item={"kind": "id", "encoding": "vocabulary"},
        history={"kind": "id_list", "encoding": "vocabulary", "table": "item"},
        user={"kind": "id", "encoding": "vocabulary"},
    )
    features = fitted(config, num_rows=NUM_ROWS).features
    item, history, user = (features[name] for name in ("item", "history", "user"))
    assert isinstance(item, IdFeature)
    assert isinstance(history, IdListFeature)
    assert isinstance(user, IdFeature)
    assert item.vocabulary == str(root / "vocabularies" / "item.parquet")
    assert item.vocabulary_digest == digest_of(str(item.vocabulary))
    assert history.vocabulary == item.vocabulary
    assert history.vocabulary_digest == item.vocabulary_digest
    assert user.vocabulary == str(root / "vocabularies" / "user.parquet")


def test_a_vocabulary_of_ones_own_is_taken(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named by any of the table's features, made absolute, even where the log has no statistics."""
    monkeypatch.chdir(root)
    config = make_config(
        root,
        item={"kind": "id", "encoding": "vocabulary", "column": "country"},
        history={
            "kind": "id_list",
            "encoding": "vocabulary",
            "table": "item",
            "vocabulary": "vocabularies/history.parquet",
        },
    )
    item = fitted(config, num_rows=NUM_ROWS).features["item"]
    assert isinstance(item, IdFeature)
    assert item.vocabulary == str(root / "vocabularies" / "history.parquet")


def make_full_config(root: Path) -> DataConfig:
    return make_config(
        root,
        {"click": {"kind": "binary"}, "watch": {"kind": "regression", "mean": "fit", "std": "fit"}},
        user={"kind": "id", "encoding": "vocabulary", "min_count": 3},
        age_range={"kind": "id", "column": "age", "encoding": "quantiles"},
        age={"kind": "dense", "log": True, "mean": "fit", "std": "fit"},
        price={"kind": "dense", "mean": "fit", "std": 1.0},
    )


def test_what_is_fitted_stays(root: Path, tmp_path: Path) -> None:
    """Fitting again changes nothing, reads nothing, and survives the way through JSON."""
    once = fitted(make_full_config(root), num_rows=NUM_ROWS)
    assert once != make_full_config(root)
    text = json.dumps(once.model_dump(mode="json"))
    moved = json.loads(text) | {"root": str(tmp_path / "nowhere")}
    again = DataConfig.model_validate(moved)
    assert fitted(again, num_rows=NUM_ROWS) == again
    assert again.features == once.features
    assert again.tasks == once.tasks


def test_other_data_are_read_with_the_statistics_of_training(root: Path, tmp_path: Path) -> None:
    """The same rows under another root, which has other statistics, are encoded alike."""
    other = write_toy_log(tmp_path / "other", splits={"train": ((5, 9),), "test": ((64,), (5, 22))})
    (other / "test").rename(tmp_path / "test")
    (other / "test").symlink_to(root / "test")
    write_statistics(other, COLUMNS)
    config = fitted(make_full_config(root), num_rows=NUM_ROWS)
    refitted = fitted(make_full_config(other), num_rows=NUM_ROWS)
    assert config.features != refitted.features

    def batch(config: DataConfig) -> tuple[list[int], np.ndarray]:
        loader = InteractionLoader(config, split="test", num_rows=NUM_ROWS, seed=None)
        [batch] = loader.batches(start=Cursor(), num_steps=1)
        return batch.ids.values().tolist(), batch.dense_BD.numpy()

    here = batch(config)
    there = batch(config.model_copy(update={"root": str(other)}))
    assert here[0] == there[0]
    np.testing.assert_array_equal(here[1], there[1])
    assert batch(refitted)[0] != here[0]


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        (
            "size",
            {"kind": "dense", "mean": "fit"},
            "column size as numbers, which data.features.size",
        ),
        (
            "user",
            {"kind": "dense", "std": "fit"},
            "column user as numbers, which .*give mean and std",
        ),
        (
            "age",
            {"kind": "id", "encoding": "vocabulary"},
            "column age as ids, which .*`polytower prepare`, or name a Parquet file",
        ),
        (
            "zeros",
            {"kind": "id", "encoding": "quantiles", "column": "user"},
            r"column user as numbers, which data\.features\.zeros \(encoding: quantiles\)",
        ),
        (
            "price",
            {"kind": "dense", "log": True, "mean": "fit"},
            "price: log: true needs numbers >= 0",
        ),
        (
            "price",
            {"kind": "dense", "log": True, "mean": "fit", "clip": [-9, 9]},
            "price: log: true needs numbers >= 0",
        ),
    ],
)
def test_what_the_data_set_does_not_know_is_refused(
    root: Path, name: str, keys: dict[str, Any], message: str
) -> None:
    """In one line, with what else to do."""
    with pytest.raises(SchemaError, match=message):
        fit_one(root, name, **keys)


def test_a_log_without_statistics_cannot_be_fitted(tmp_path: Path) -> None:
    """It has no dataset.json; what asks for nothing needs none, nor even a root."""
    log = write_toy_log(tmp_path / "log")
    with pytest.raises(SchemaError, match=r"dataset\.json: has no statistics of the column age"):
        fit_one(log, "age", kind="dense", mean="fit")
    config = make_config(None)
    assert fitted(config, num_rows={}) is config
    with pytest.raises(StorageError, match="no such file"):
        fit_one(log, "user", kind="id", encoding="vocabulary", vocabulary="/nowhere.parquet")
    assert math.isfinite(fit_one(log, "age", kind="dense").std)
