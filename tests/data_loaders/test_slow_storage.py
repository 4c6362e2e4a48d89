"""A slow or failing object store: the real one behind a proxy that fails on purpose."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from data_loaders import retries, storage
from data_loaders.batch import InteractionBatch
from data_loaders.config import DataConfig
from data_loaders.dataset import write_split
from data_loaders.errors import StorageError
from data_loaders.loader import InteractionLoader
from data_loaders.storage import locate
from data_loaders.streams import MAX_PIECE_ROWS, Cursor
from tests.helpers.faulty_s3 import Fault, Faults, faulty_endpoint

pytestmark = pytest.mark.s3

NUM_ROWS = 900
Behind = Callable[[Faults], AbstractContextManager[None]]


@pytest.fixture
def log(s3_root: str) -> str:
    """Three files of one row group on the server."""
    table = pa.table({"row": np.arange(NUM_ROWS), "odd": np.arange(NUM_ROWS) % 2})
    root = locate(s3_root)
    write_split(root, split="train", tables=[table], rows_per_file=300, rows_per_row_group=300)
    return s3_root


@pytest.fixture
def behind(s3_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Behind:
    """Puts a faulty proxy in front of the server; the client's own attempts are two, and soon."""
    monkeypatch.setattr(storage, "S3_MAX_ATTEMPTS", 2)
    monkeypatch.setattr(storage, "S3_REQUEST_TIMEOUT_SECONDS", 1)
    monkeypatch.setattr(retries, "WAITS_SECONDS", (0.1, 0.1))

    @contextlib.contextmanager
    def start(faults: Faults) -> Iterator[None]:
        with faulty_endpoint(s3_env["AWS_ENDPOINT_URL"], faults) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            storage._filesystem.cache_clear()
            yield
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3_env["AWS_ENDPOINT_URL"])
        storage._filesystem.cache_clear()

    return start


def loader(
    root: str, *, on_error: str = "fail", max_rows: int = NUM_ROWS, num_streams: int = 4
) -> InteractionLoader:
    tree = {
        "root": root,
        "batch_size": 64,
        "num_streams": num_streams,
        "on_error": on_error,
        "features": {"row": {"kind": "id", "encoding": "direct"}},
        "tasks": {"odd": {"kind": "binary"}},
    }
    config = DataConfig.model_validate(tree)
    return InteractionLoader(config, split="train", num_rows={"row": max_rows}, seed=1)


def read(item: InteractionLoader) -> list[InteractionBatch]:
    return list(item.batches(start=Cursor(), num_steps=item.steps_per_epoch))


def rows_of(batches: list[InteractionBatch]) -> list[torch.Tensor]:
    return [batch.ids.values() for batch in batches]


@pytest.mark.parametrize("on_error", ["fail", "skip"])
@pytest.mark.parametrize("kind", ["503", "cut", "hang up"])
def test_a_few_failures_change_nothing(
    log: str, behind: Behind, kind: Fault, on_error: str
) -> None:
    """More of each file than the client survives by itself; what is read is the same."""
    expected = rows_of(read(loader(log)))
    faults = Faults()
    with behind(faults):
        item = loader(log, on_error=on_error)
        faults.kind, faults.times = kind, 3
        faults.counts.clear()
        batches = read(item)
    assert min(faults.counts.values()) > 3
    assert len(faults.counts) == 3
    assert all(not batch.skipped for batch in batches)
    for found, rows in zip(rows_of(batches), expected, strict=True):
        assert torch.equal(found, rows)


@pytest.mark.parametrize("kind", ["503", "cut", "hang up"])
def test_failures_while_the_log_is_listed_are_survived(
    log: str, behind: Behind, kind: Fault
) -> None:
    """More of each footer than the client survives by itself."""
    faults = Faults(kind=kind, times=3)
    with behind(faults):
        assert loader(log).num_examples == NUM_ROWS
    assert len(faults.counts) == 3
    assert min(faults.counts.values()) > 3


@pytest.mark.parametrize("on_error", ["fail", "skip"])
@pytest.mark.parametrize("kind", ["503", "cut", "hang up", "silence"])
def test_a_store_that_fails_for_ever_ends_in_an_error_that_names_the_file(
    log: str, behind: Behind, kind: Fault, on_error: str
) -> None:
    """In one line, after a bounded number of requests; never skipped: the log is not at fault."""
    faults = Faults(of="part-00001")
    with behind(faults):
        item = loader(log, on_error=on_error)
        faults.kind = kind
        faults.counts.clear()
        with pytest.raises(StorageError) as caught:
            read(item)
        assert str(caught.value).startswith(f"{log}/train/part-00001.parquet: ")
        assert "\n" not in str(caught.value)
        assert "truncated" not in str(caught.value)
        assert "damaged" not in str(caught.value)
    assert sum(faults.counts.values()) <= 12  # three times two attempts, and why they failed


def test_a_slow_store_is_only_slow(log: str, behind: Behind) -> None:
    """Each answer takes a good part of what the client waits for."""
    expected = rows_of(read(loader(log)))
    with behind(Faults(delay_seconds=0.2)):
        batches = read(loader(log))
    for found, rows in zip(rows_of(batches), expected, strict=True):
        assert torch.equal(found, rows)


def test_a_large_row_group_is_read_on_after_a_failure(
    s3_root: str, behind: Behind, tmp_path: Path
) -> None:
    """It comes in parts; none is lost or doubled."""
    num_rows = 2 * MAX_PIECE_ROWS + 999
    table = pa.table({"row": np.arange(num_rows), "odd": np.arange(num_rows) % 2})
    write_split(
        locate(s3_root),
        split="train",
        tables=[table],
        rows_per_file=num_rows,
        rows_per_row_group=num_rows,
    )
    faults = Faults()
    with behind(faults):
        item = loader(s3_root, max_rows=num_rows, num_streams=1)
        faults.kind, faults.times = "cut", 3
        faults.counts.clear()
        rows = torch.cat(rows_of(read(item))).sort().values
    assert torch.equal(rows, torch.arange(num_rows))
