"""`prepare_log` on a real Ray cluster: from raw files to a data set that the loader reads."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.connection import connected
from data_loaders.dataset import SPLITS, DatasetInfo, read_dataset_info
from data_loaders.errors import InputError, SchemaError, StorageError
from data_loaders.loader import InteractionLoader
from data_loaders.prepare import prepare_log
from data_loaders.statistics import IdStatistics, NumberStatistics
from data_loaders.storage import locate
from data_loaders.streams import Cursor
from tests.helpers.logs import toy_recipe, toy_table
from trainer.config import Recipe
from trainer.recipe_file import build_recipe

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
NUM_ROWS = 2_000
# a value whose hash falls into test
ONLY_HELD_OUT = "day-5"


@pytest.fixture(scope="module", autouse=True)
def cluster(token: Path) -> Iterator[None]:
    """A local cluster for all tests."""
    with connected(None, environment={}):
        yield


def recipe_of(**prepare: Any) -> Recipe:
    tree = toy_recipe("unused") | {"prepare": prepare}
    return build_recipe(tree, overrides=[], source="toy")


def prepared(
    out: Path, *sources: Path | str, block_bytes: int = 2**20, **prepare: Any
) -> DatasetInfo:
    recipe = recipe_of(**prepare)
    return prepare_log(
        recipe.data,
        prepare=recipe.prepare,
        num_rows=recipe.num_rows_of_feature(),
        name="toy",
        sources=[str(source) for source in sources],
        out=str(out),
        cluster=contextlib.nullcontext(),
        block_bytes=block_bytes,
    )


def write_csv(path: Path, table: pa.Table) -> Path:
    """As a spreadsheet would, lists as JSON arrays."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table.column_names)
        for row in table.to_pylist():
            cells = [json.dumps(cell) if isinstance(cell, list) else cell for cell in row.values()]
            writer.writerow(cells)
    return path


def write_json(path: Path, table: pa.Table) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    return path


def write_parquet(path: Path, table: pa.Table) -> Path:
    pq.write_table(table, path, row_group_size=300)
    return path


def rows_of(root: Path, split: str) -> list[dict[str, Any]]:
    files = sorted((root / split).glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def digest_of(root: Path) -> dict[str, str]:
    """Of every file."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def table() -> pa.Table:
    """The toy log with a time and a request id."""
    toy = toy_table(NUM_ROWS, seed=5)
    times = 1_772_323_200 + np.random.default_rng(1).permutation(NUM_ROWS)
    return toy.append_column("ts", pa.array(times)).append_column(
        "request", pa.array(range(NUM_ROWS))
    )


@pytest.fixture(scope="module")
def from_parquet(table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parquet")
    prepared(folder / "out", write_parquet(folder / "raw.parquet", table))
    return folder / "out"


@pytest.mark.parametrize("writer", [write_csv, write_json])
def test_the_format_of_the_raw_files_does_not_matter(
    writer: Any, table: pa.Table, from_parquet: Path, tmp_path: Path
) -> None:
    """CSV and JSON lines give the files that Parquet gives, to the byte."""
    ending = {"write_csv": "csv", "write_json": "jsonl"}[writer.__name__]
    prepared(tmp_path / "out", writer(tmp_path / f"raw.{ending}", table), block_bytes=20_000)
    assert digest_of(tmp_path / "out") == digest_of(from_parquet)


def test_how_the_raw_files_are_cut_does_not_matter(
    table: pa.Table, from_parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In files, blocks and hash ranges of any size, in formats mixed; only the number of files
    differs.
    """
    monkeypatch.setattr("data_loaders.prepare.RANGE_BYTES", 50_000)
    raw = tmp_path / "raw"
    raw.mkdir()
    write_csv(raw / "a.csv", table.slice(0, 700))
    write_parquet(raw / "b.parquet", table.slice(700, 650))
    write_json(raw / "c.ndjson", table.slice(1350))
    prepared(tmp_path / "out", raw, block_bytes=5_000)
    ours, theirs = digest_of(tmp_path / "out"), digest_of(from_parquet)
    del ours["dataset.json"], theirs["dataset.json"]
    assert ours == theirs
    one, other = (read_dataset_info(locate(str(root))) for root in (tmp_path / "out", from_parquet))
    assert one is not None
    assert other is not None
    assert one.columns == other.columns


def test_every_row_is_in_one_split_and_nothing_else_is_left(
    table: pa.Table, from_parquet: Path
) -> None:
    """In input order; about a tenth each is held out; nothing is left of what was on the way."""
    recipe = recipe_of()
    columns = [*recipe.data.features, *recipe.data.tasks]
    # ids become text, numbers float64
    expected = [
        str((None if row["user"] is None else str(row["user"]), row["item"], row["country"]))
        for row in table.select(columns).to_pylist()
    ]
    found = {
        split: [
            str((row["user"], row["item"], row["country"])) for row in rows_of(from_parquet, split)
        ]
        for split in SPLITS
    }
    assert sorted(row for rows in found.values() for row in rows) == sorted(expected)
    for rows in found.values():
        order = iter(expected)
        assert all(row in order for row in rows)
    assert len(found["test"]) == pytest.approx(NUM_ROWS / 10, rel=0.3)
    assert {path.name for path in from_parquet.iterdir()} == {
        *SPLITS,
        "vocabularies",
        "dataset.json",
    }


def test_statistics_are_of_the_training_split(from_parquet: Path) -> None:
    """Against numpy and a count by hand."""
    info = read_dataset_info(locate(str(from_parquet)))
    assert info is not None
    train = rows_of(from_parquet, "train")
    assert info.splits["train"].examples == len(train)
    prices = np.array([row["price"] for row in train if row["price"] is not None])
    price = info.columns["price"]
    assert isinstance(price, NumberStatistics)
    assert (price.count, price.missing) == (len(prices), len(train) - len(prices))
    assert (price.mean, price.std) == pytest.approx((prices.mean(), prices.std()), rel=1e-12)
    history = info.columns["history"]
    assert isinstance(history, IdStatistics)
    ids = [item for row in train for item in row["history"] or [] if item is not None]
    assert (history.count, history.distinct) == (len(ids), len(set(ids)))
    vocabulary = pq.read_table(from_parquet / history.vocabulary).to_pylist()
    assert all(row["count"] == ids.count(row["id"]) for row in vocabulary[:5])


def test_the_loader_reads_what_was_prepared(from_parquet: Path) -> None:
    """Every example of the training split, once an epoch."""
    recipe = recipe_of()
    data = recipe.data.model_copy(update={"root": str(from_parquet)})
    loader = InteractionLoader(
        data, split="train", num_rows=recipe.num_rows_of_feature(), seed=1, rank=0, world_size=1
    )
    with contextlib.closing(
        loader.batches(start=Cursor(), num_steps=loader.steps_per_epoch)
    ) as batches:
        num_examples = sum(int((batch.weights_B > 0).sum()) for batch in batches)
    assert num_examples == len(rows_of(from_parquet, "train"))


def test_rows_that_do_not_fit_are_rejected_with_the_reason(table: pa.Table, tmp_path: Path) -> None:
    """With value, file, row, and the row as it was; the counts are in dataset.json."""
    path = write_csv(tmp_path / "raw.csv", table.slice(0, 100).select([*table.column_names]))
    lines = path.read_text().splitlines()
    header = lines[0].split(",")
    bad = next(csv.reader([lines[7]]))
    bad[header.index("price")] = "cheap"
    lines[7] = ",".join(f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in bad)
    lines[9] = lines[9] + ",1"
    lines += [lines[3], lines[3]]
    path.write_text("\n".join(lines) + "\n")
    info = prepared(tmp_path / "out", path, ranges={"ts": [1_772_323_201, None]}, integers=["user"])
    outside = sum(value < 1_772_323_201 for value in table["ts"].slice(0, 100).to_pylist())
    assert info.rejected == {
        "duplicate": 2,
        "another number of cells than the header": 1,
        "price: not a number": 1,
        **({"ts: below 1.77232e+09 (prepare.ranges)": outside} if outside else {}),
    }
    rejected = rows_of(tmp_path / "out", "rejected")
    by_reason = {row["reason"]: row for row in rejected}
    price = by_reason["price: not a number"]
    assert (price["value"], price["row"], price["source"]) == ("cheap", 7, str(path))
    assert json.loads(price["raw"])["request"] == "6"
    assert [row["row"] for row in rejected if row["reason"] == "duplicate"] == [101, 102]
    assert sum(split.examples for split in info.splits.values()) == 98 - outside


def test_duplicates_are_found_across_files_and_the_first_one_stays(
    table: pa.Table, tmp_path: Path
) -> None:
    """Equal in the columns that shall be unique, whatever else differs."""
    raw = tmp_path / "raw"
    raw.mkdir()
    later = table.slice(0, 50).set_column(
        table.schema.get_field_index("price"), "price", pa.array([99.0] * 50)
    )
    write_parquet(raw / "1.parquet", table.slice(0, 200))
    write_csv(raw / "2.csv", later)
    info = prepared(
        tmp_path / "out",
        raw,
        unique=["request"],
        keep={"request": "integer"},
        split={"valid": 0, "test": 0},
    )
    assert info.rejected == {"duplicate": 50}
    assert [row["request"] for row in rows_of(tmp_path / "out", "train")] == list(range(200))
    assert {row["source"] for row in rows_of(tmp_path / "out", "rejected")} == {str(raw / "2.csv")}
    kept = prepared(tmp_path / "all", raw, unique=[])
    assert kept.rejected == {}
    assert sum(split.examples for split in kept.splits.values()) == 250


def test_the_latest_rows_are_held_out(table: pa.Table, tmp_path: Path) -> None:
    """No example of train is as late as one of valid, nor that as one of test."""
    path = write_parquet(tmp_path / "raw.parquet", table)
    split = {"time": "ts", "valid": 0.2, "test": 0.1}
    info = prepared(tmp_path / "out", path, split=split, keep={"ts": "time"})
    sizes = {name: part.examples for name, part in info.splits.items()}
    assert sizes == {"train": 1_400, "valid": 400, "test": 200}
    times = {name: [row["ts"] for row in rows_of(tmp_path / "out", name)] for name in SPLITS}
    assert max(times["train"]) < min(times["valid"])
    assert max(times["valid"]) < min(times["test"])


def test_a_user_is_in_one_split(table: pa.Table, tmp_path: Path) -> None:
    """All rows of equal values in that column go together."""
    prepared(tmp_path / "out", write_parquet(tmp_path / "raw.parquet", table), split={"by": "user"})
    users = [{row["user"] for row in rows_of(tmp_path / "out", name)} for name in SPLITS]
    assert not users[0] & users[1]
    assert not users[0] & users[2]
    assert not users[1] & users[2]


def test_files_and_row_groups_have_the_sizes_that_are_asked_for(
    table: pa.Table, tmp_path: Path
) -> None:
    """The last one of a split may be shorter."""
    path = write_parquet(tmp_path / "raw.parquet", table)
    split = {"valid": 0, "test": 0}
    prepared(tmp_path / "out", path, rows_per_file=900, rows_per_row_group=400, split=split)
    found = [pq.read_metadata(file) for file in sorted((tmp_path / "out/train").iterdir())]
    sizes = [[item.row_group(g).num_rows for g in range(item.num_row_groups)] for item in found]
    assert sizes == [[400, 400, 100], [400, 400, 100], [200]]


@pytest.mark.parametrize(
    ("prepare", "error", "message"),
    [
        (
            {"unique": ["reqest"]},
            SchemaError,
            r"column reqest \(prepare.unique\): .*found no such column.*mean request",
        ),
        (
            {"ranges": {"prize": [0, 1]}},
            SchemaError,
            r"column prize \(prepare.ranges\): .*did you mean price",
        ),
        (
            {"split": {"time": "tz"}},
            SchemaError,
            r"column tz \(prepare.split.time\): expected a time",
        ),
        ({"ranges": {"ts": [1e12, None]}}, SchemaError, "all 100 rows were rejected, 100 .*ts: "),
        ({"split": {"by": "day"}}, InputError, "no row is left for train"),
    ],
)
def test_what_a_recipe_asks_in_vain_is_refused(
    prepare: Any, error: type[Exception], message: str, table: pa.Table, tmp_path: Path
) -> None:
    """In one line."""
    one_day = table.slice(0, 100).append_column("day", pa.array([ONLY_HELD_OUT] * 100))
    path = write_parquet(tmp_path / "raw.parquet", one_day)
    with pytest.raises(error, match=message) as caught:
        prepared(tmp_path / "out", path, **prepare)
    assert "\n" not in str(caught.value)


def test_a_complete_data_set_is_never_overwritten(from_parquet: Path) -> None:
    """Nor is anything that prepare did not write."""
    before = digest_of(from_parquet)
    with pytest.raises(StorageError, match="is not empty"):
        prepared(from_parquet, "whatever")
    assert digest_of(from_parquet) == before


def test_only_what_prepare_began_is_begun_anew(table: pa.Table, tmp_path: Path) -> None:
    """Another's incomplete data set stays, and so does a file that lies in one of ours."""
    path = write_parquet(tmp_path / "raw.parquet", table.slice(0, 0))
    with pytest.raises(SchemaError, match="no rows"):
        prepared(tmp_path / "out", path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "dataset.json").write_text(DatasetInfo(name="x", splits={}).model_dump_json())
    with pytest.raises(StorageError, match="is not empty"):
        prepared(other, path)


KILLED = """
import sys
from cluster.connection import connected
from tests.data_loaders.test_prepare import prepared

with connected(None, environment={}):
    prepared(sys.argv[1], sys.argv[2], block_bytes=2_000)
"""


@pytest.mark.slow
def test_what_a_killed_job_left_behind_is_begun_anew(
    table: pa.Table, from_parquet: Path, tmp_path: Path
) -> None:
    """No reader takes it for a data set; the same call then ends with a complete one."""
    out = tmp_path / "out"
    path = write_csv(tmp_path / "raw.csv", pa.concat_tables([table] * 8))
    job = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(out), str(path)], cwd=ROOT, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 60
        while not list(out.glob("_staging/*")) and time.monotonic() < deadline:
            assert job.poll() is None
            time.sleep(0.02)
    finally:
        os.kill(job.pid, signal.SIGKILL)
        job.wait()
    assert list(out.glob("_staging/*"))
    with pytest.raises(SchemaError, match="incomplete"):
        read_dataset_info(locate(str(out)))
    info = prepared(out, path)
    assert info.rejected == {"duplicate": 7 * NUM_ROWS}
    ours = digest_of(out)
    theirs = digest_of(from_parquet)
    assert {name: ours[name] for name in theirs if name.startswith("train")} == {
        name: theirs[name] for name in theirs if name.startswith("train")
    }
    assert not (out / "_staging").exists()
