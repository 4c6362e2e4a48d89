"""Public data sets: hand-made raw files in the published format, and the real ones if at hand."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_loaders.dataset import parquet_files, read_dataset_info
from data_loaders.errors import InputError, SchemaError, StorageError
from data_loaders.public.census_income import CATEGORICAL, COLUMNS, NUMERIC
from data_loaders.public.datasets import prepare
from data_loaders.public.kuairand import (
    LABELS,
    LOGS,
    SEQUENCES,
    USER_CATEGORIES,
    USER_NUMBERS,
    USERS,
    VIDEOS,
)
from data_loaders.public.vocabulary import Buckets, Vocabulary
from data_loaders.storage import locate

REAL = Path(__file__).parents[4] / "shared/data"


def read(root: Path | str, split: str) -> pa.Table:
    """All rows of a split, in the order of its files."""
    files = parquet_files(locate(str(root)), split=split)  # type: ignore[arg-type]
    return pa.concat_tables([pq.read_table(file.path) for file in files])


def real_folder(name: str) -> Path:
    """The raw files of a public data set, or the test is skipped."""
    folder = REAL / name
    if not folder.is_dir():
        pytest.skip(f"the raw files of {name} are not in shared/data beside the checkout")
    return folder


# --- Codes ---


def test_a_vocabulary_codes_known_values_from_one_and_all_else_zero() -> None:
    """Values are coded in ascending order; rare, unseen and missing ones have code 0."""
    vocabulary = Vocabulary.fit(pa.array(["b", "a", None, "b", "c", "a"]), min_count=2)
    assert vocabulary.values.to_pylist() == ["a", "b"]
    assert vocabulary.num_codes == 3
    codes = vocabulary.encode(pa.array(["b", "c", "unseen", None, "a"]))
    assert codes.to_pylist() == [2, 0, 0, 0, 1]


@pytest.mark.parametrize("num_buckets", [3, 10, 1000])
def test_buckets_grow_with_the_number_and_stay_below_num_codes(num_buckets: int) -> None:
    """Codes are in [1, num_codes), never fall as the number grows, and are 0 only for NaN."""
    numbers = np.random.default_rng(0).exponential(100.0, size=500).round()
    buckets = Buckets.fit(numbers, num_buckets=num_buckets)
    unseen = np.array([-5.0, 1e9])
    codes = buckets.encode(np.sort(np.concatenate([numbers, unseen]))).to_numpy()
    assert (np.diff(codes) >= 0).all()
    assert codes.min() == 1
    assert codes.max() == buckets.num_codes - 1 <= num_buckets
    assert buckets.encode(np.array([np.nan])).to_pylist() == [0]


# --- Census-Income ---


def census_line(*, age: int, marital_status: str, income: str, **others: str) -> str:
    values = {name: "0" if name in NUMERIC else "Not in universe" for name in COLUMNS}
    values |= {"age": str(age), "marital_status": marital_status, "instance_weight": "1700.09"}
    values |= others
    return ", ".join([*list(values.values())[:-1], income])


def write_census(folder: Path, *, num_train: int = 40, num_held_out: int = 21) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rich_widow = {"marital_status": "Widowed", "income": "50000+.", "sex": "Female"}
    poor_child = {"marital_status": "Never married", "income": "- 50000.", "migration_msa": "?"}
    for name, num_rows in (("data", num_train), ("test", num_held_out)):
        lines = [
            census_line(age=index, **(rich_widow if index % 4 == 0 else poor_child))
            for index in range(num_rows)
        ]
        if name == "test":
            lines[1] = census_line(age=1, marital_status="Odd", income="- 50000.", race="Martian")
        with gzip.open(folder / f"census-income.{name}.gz", "wt") as file:
            file.write("\n".join(lines) + "\n")
    return folder


def test_census_income_becomes_labels_codes_and_numbers(tmp_path: Path) -> None:
    """Blanks are stripped, labels are 0 or 1, and codes read back as the raw strings."""
    source = write_census(tmp_path / "raw")
    info = prepare("census-income", source=str(source), out=str(tmp_path / "out"))
    assert {split: item.examples for split, item in info.splits.items()} == {
        "train": 40,
        "valid": 10,
        "test": 11,
    }
    assert read_dataset_info(locate(str(tmp_path / "out"))) == info

    train = read(tmp_path / "out", "train")
    widowed = np.arange(40) % 4 == 0
    np.testing.assert_array_equal(train["income"].to_numpy(), widowed)
    np.testing.assert_array_equal(train["never_married"].to_numpy(), ~widowed)
    np.testing.assert_array_equal(train["age"].to_numpy(), np.arange(40))
    np.testing.assert_array_equal(train["age_bucket"].to_numpy(), np.arange(40) + 1)
    described = json.loads((tmp_path / "out/vocabularies.json").read_text())
    values = np.array([None, *described["migration_msa"]["values"]])
    assert values[train["migration_msa"].to_numpy()].tolist() == [
        "Not in universe" if rich else "?" for rich in widowed
    ]


def test_census_income_is_coded_by_what_train_holds(tmp_path: Path) -> None:
    """A category or an age that only the published test file holds gets no code of its own."""
    source = write_census(tmp_path / "raw", num_train=12)
    prepare("census-income", source=str(source), out=str(tmp_path / "out"))
    held_out = pa.concat_tables([read(tmp_path / "out", split) for split in ("valid", "test")])
    martian = held_out["age"].to_numpy() == 1
    assert (held_out["race"].to_numpy() == np.where(martian, 0, 1)).all()
    assert held_out["marital_status"].to_numpy()[martian].tolist() == [0]
    assert held_out["age_bucket"].to_numpy().max() == 12


def test_the_published_test_file_is_halved_by_the_seed(tmp_path: Path) -> None:
    """Valid and test share no row, together are the file, and depend on the seed alone."""
    source = write_census(tmp_path / "raw", num_held_out=41)
    ages = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        prepare("census-income", source=str(source), out=str(tmp_path / name), seed=seed)
        for split in ("valid", "test"):
            ages[name, split] = read(tmp_path / name, split)["age"].to_pylist()
        assert sorted(ages[name, "valid"] + ages[name, "test"]) == list(range(41))
    assert ages["a", "valid"] == ages["b", "valid"] != ages["c", "valid"]


def test_the_real_census_income_has_the_published_counts_and_rates(tmp_path: Path) -> None:
    """199,523 and 99,762 rows; 6.2 % above 50,000 dollars; no code out of the recipe's range."""
    info = prepare("census-income", source=str(real_folder("census_income")), out=str(tmp_path))
    assert info.splits["train"].examples == 199_523
    assert info.splits["valid"].examples + info.splits["test"].examples == 99_762
    for split in ("train", "valid", "test"):
        table = read(tmp_path, split)
        assert np.mean(table["income"].to_numpy()) == pytest.approx(0.062, abs=0.0015)
        assert np.mean(table["never_married"].to_numpy()) == pytest.approx(0.433, abs=0.003)
        both = table["income_and_never_married"].to_numpy()
        assert 0 < both.sum() < table["income"].to_numpy().sum()
        np.testing.assert_array_equal(
            both, table["income"].to_numpy() * table["never_married"].to_numpy()
        )
        assert sum(column.null_count for column in table.columns) == 0
    described = json.loads((tmp_path / "vocabularies.json").read_text())
    train = read(tmp_path, "train")
    for name in (*CATEGORICAL, *(f"{name}_bucket" for name in NUMERIC)):
        known = described[name].get("values", [None, *described[name].get("edges", [])])
        assert set(train[name].unique().to_pylist()) == set(range(1, len(known) + 1)), name
    for file in parquet_files(locate(str(tmp_path)), split="train"):
        assert pq.ParquetFile(file.path).num_row_groups >= 2


# --- KuaiRand ---

USER_FEATURES = dict.fromkeys(USER_CATEGORIES, "a") | dict.fromkeys(USER_NUMBERS, "7")
VIDEO_FEATURES = {
    "author_id": "5",
    "video_type": "NORMAL",
    "upload_type": "Web",
    "video_duration": "20000.0",
    "music_id": "9",
    "music_type": "9.0",
    "tag": '"12,65"',
}
MIDNIGHT = 1_651_766_400_000  # 2022-05-06 00:00 in Beijing


def write_features(path: Path, *, key: str, ids: list[int], features: dict[str, str]) -> None:
    lines = [",".join([key, *features])]
    lines += [",".join([str(item), *features.values()]) for item in ids]
    with gzip.open(path, "wt") as file:
        file.write("\n".join(lines) + "\n")


def write_kuairand(folder: Path, *, impressions: list[dict[str, int]]) -> Path:
    """Raw files with these impressions (user, video, minutes after MIDNIGHT, and other columns)."""
    folder.mkdir(parents=True, exist_ok=True)
    defaults = dict.fromkeys(LABELS.values(), 0) | {"tab": 1, "duration_ms": 20_000, "hourmin": 100}
    rows = []
    for given in impressions:
        minutes = given["minutes"]
        date = 20220506 if minutes >= 0 else 20220505
        moment = {"time_ms": MIDNIGHT + 60_000 * minutes, "date": date}
        rows.append(
            defaults | moment | {"user_id": given["user"], "video_id": given["video"]} | given
        )
    for name, part in zip(LOGS, (rows[:1], rows[1:]), strict=True):
        table = {column: [row[column] for row in part] for column in (*defaults, *KEYS)}
        pq.write_table(pa.table(table), folder / name)
    lists = pa.list_(pa.int64())
    sequences = {
        "user_id": pa.array([0, 1], pa.int64()),
        "last_time_ms": pa.array([MIDNIGHT - 10**9, MIDNIGHT - 10**9 + 5], pa.int64()),
        "watch_seq": pa.array([[3, 4], [4]], lists),
        "like_seq": pa.array([[], [4]], lists),
        "long_watch_seq": pa.array([[3], [4]], lists),
    }
    pq.write_table(pa.table(sequences), folder / SEQUENCES)
    write_features(folder / USERS, key="user_id", ids=[0, 1], features=USER_FEATURES)
    write_features(folder / VIDEOS, key="video_id", ids=[0, 1, 2, 3, 4], features=VIDEO_FEATURES)
    return folder


KEYS = ("user_id", "video_id", "time_ms", "date")


def by_time(root: Path, split: str) -> dict[str, np.ndarray]:
    """The split's columns as arrays, rows in the order of time."""
    table = read(root, split).sort_by([("time_ms", "ascending"), ("video_id", "ascending")])
    return {name: np.array(table[name].to_pylist(), dtype=object) for name in table.column_names}


def test_an_impression_sees_only_what_its_user_did_before(tmp_path: Path) -> None:
    """Neither itself, nor the same moment, nor later; the sequence comes before the log."""
    watched = {"is_click": 1, "long_view": 1, "is_like": 1}
    source = write_kuairand(
        tmp_path / "raw",
        impressions=[
            {"user": 0, "video": 0, "minutes": -900, **watched},
            {"user": 0, "video": 1, "minutes": -800, **watched},
            {"user": 0, "video": 2, "minutes": -800, "is_click": 1},
            {"user": 1, "video": 0, "minutes": -700, **watched},
            {"user": 0, "video": 0, "minutes": -600, **watched},
            {"user": 0, "video": 4, "minutes": 60, "play_time_ms": 1000},
        ],
    )
    info = prepare("kuairand", source=str(source), out=str(tmp_path / "out"))
    assert {split: item.examples for split, item in info.splits.items()} == {"train": 5, "test": 1}
    train, test = by_time(tmp_path / "out", "train"), by_time(tmp_path / "out", "test")
    assert train["past_user_impressions"].tolist() == [2, 3, 3, 1, 5]
    assert train["past_user_today_impressions"].tolist() == [0, 1, 1, 0, 3]
    assert train["past_seconds_since"].tolist() == [None, 6000, 6000, None, 12000]
    assert train["past_latest_long_view"].tolist()[:2] == [None, 1]
    assert test["past_user_impressions"].tolist() == [6]
    assert train["past_video_impressions"].tolist() == [0, 0, 0, 0, 0]  # whole days only
    assert test["past_video_impressions"].tolist() == [2]  # video 4, of the sequences
    values = json.loads((tmp_path / "out/vocabularies.json").read_text())["video"]["values"]
    codes = {video: 1 + values.index(video) if video in values else 0 for video in range(5)}
    histories = [[3], [3, 0], [3, 0], [4], [3, 0, 1]]
    expected = [[codes[video] for video in history] for history in histories]
    assert [list(history) for history in train["long_view_history"]] == expected
    assert [len(history) for history in train["like_history"]] == [0, 1, 1, 1, 2]
    assert [len(history) for history in test["long_view_history"]] == [4]
    prior, strength = 0.8, 5  # train's mean of long_view, and SCOPES["user"].prior_events
    rates = (np.array([1, 2, 2, 1, 3]) + prior * strength) / (np.array([2, 3, 3, 1, 5]) + strength)
    assert train["past_user_long_view"].astype(float) == pytest.approx(rates)
    assert test["play_time"].tolist() == [1000]


def test_no_feature_of_train_depends_on_the_test_rows(tmp_path: Path) -> None:
    """Rows dated as test change nothing in train, not even those before train's midnight."""
    train = [
        {"user": user, "video": video, "minutes": -60 * video - 5 - user, "is_click": video % 2}
        for user in (0, 1)
        for video in (0, 1, 2)
    ]
    early = {"user": 0, "video": 1, "minutes": -30, "date": 20220506, "is_click": 1, "long_view": 1}
    late = {"user": 0, "video": 2, "minutes": 30}
    for name, test in (("a", [late]), ("b", [early, late])):
        source = write_kuairand(tmp_path / f"raw-{name}", impressions=train + test)
        prepare("kuairand", source=str(source), out=str(tmp_path / name))
    assert read(tmp_path / "a", "train").equals(read(tmp_path / "b", "train"))
    assert read(tmp_path / "b", "test").num_rows == 2


@pytest.mark.slow
def test_the_real_kuairand_has_the_published_counts_and_rates(tmp_path: Path) -> None:
    """228,329 rows split by date; label rates as published; the same seed gives the same files."""
    source = str(real_folder("kuairand_pure"))
    info = prepare("kuairand", source=source, out=str(tmp_path / "a"))
    prepare("kuairand", source=source, out=str(tmp_path / "b"))
    assert info.splits["train"].examples == 185_061
    assert info.splits["test"].examples == 43_268
    train, test = read(tmp_path / "a", "train"), read(tmp_path / "a", "test")
    assert train.equals(read(tmp_path / "b", "train"))
    assert test.equals(read(tmp_path / "b", "test"))
    assert np.max(train["date"].to_numpy()) == 20220505
    assert np.min(test["date"].to_numpy()) == 20220506
    for table in (train, test):
        rates = {"click": 0.44, "long_view": 0.31, "like": 0.017, "profile_enter": 0.0185}
        for task, rate in rates.items():
            assert np.mean(table[task].to_numpy()) == pytest.approx(rate, rel=0.03), task


@pytest.mark.slow
def test_no_real_history_holds_its_own_impression_or_later_ones(tmp_path: Path) -> None:
    """Of 500 train rows, each history is exactly what a look through log and sequences finds."""
    folder = real_folder("kuairand_pure")
    prepare("kuairand", source=str(folder), out=str(tmp_path))
    log = pa.concat_tables([pq.read_table(folder / name) for name in LOGS]).to_pandas()
    sequences = pq.read_table(folder / SEQUENCES).to_pandas().set_index("user_id")
    start = sequences["last_time_ms"].max()
    values = json.loads((tmp_path / "vocabularies.json").read_text())["video"]["values"]
    codes = {video: 1 + index for index, video in enumerate(values)}
    rows = read(tmp_path, "train").slice(0, 500).to_pandas()
    log = log[log.user_id.isin(rows.user_id)]
    for row in rows.itertuples():
        known = log[(log.user_id == row.user_id) & (log.time_ms < row.time_ms)]
        known = known[(known.date <= 20220505) & (known.long_view == 1)]
        videos: list[int] = []
        if row.time_ms > start and row.user_id in sequences.index:
            sequence = sequences.loc[row.user_id]
            videos += [item for item in sequence.watch_seq if item in sequence.long_watch_seq]
        videos += known.sort_values(["time_ms", "video_id", "tab"]).video_id.tolist()
        expected = [codes.get(video, 0) for video in videos][-50:]
        assert list(row.long_view_history) == expected
        assert (known.time_ms < row.time_ms).all()


# --- What is refused ---


def test_an_unknown_data_set_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    """The message names what was asked for and what was probably meant."""
    with pytest.raises(InputError, match=r"^census_incom: .*did you mean census-income"):
        prepare("census_incom", source=str(tmp_path), out=str(tmp_path / "out"))


def test_a_missing_raw_file_is_named_with_what_is_expected(tmp_path: Path) -> None:
    """Nothing is written, and the message says which file the folder lacks."""
    write_census(tmp_path / "raw")
    (tmp_path / "raw/census-income.test.gz").unlink()
    with pytest.raises(StorageError, match=r"raw/census-income\.test\.gz: no such file.*UCI"):
        prepare("census-income", source=str(tmp_path / "raw"), out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_file_of_another_shape_is_refused(tmp_path: Path) -> None:
    """A line with too few fields is a schema error that names the file."""
    write_census(tmp_path / "raw")
    with gzip.open(tmp_path / "raw/census-income.data.gz", "wt") as file:
        file.write("73, Not in universe\n")
    with pytest.raises(SchemaError, match=r"census-income\.data\.gz: .*expected UCI"):
        prepare("census-income", source=str(tmp_path / "raw"), out=str(tmp_path / "out"))


def test_a_folder_that_holds_files_is_refused(tmp_path: Path) -> None:
    """Data sets are never overwritten."""
    source = write_census(tmp_path / "raw")
    with pytest.raises(StorageError, match="is not empty"):
        prepare("census-income", source=str(source), out=str(source))
