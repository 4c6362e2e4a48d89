"""The ways to read a log that the input benchmark compares.

    scan                 pyarrow alone: the columns are read, decoded and dropped
    loader               this project: shuffled, hashed, standardised, in the model's tensors
    dataloader           `torch.utils.data.DataLoader` as most people write it for Parquet
    dataloader_batched   the same by somebody who knows pyarrow and numpy well
    ray_data             `ray.data.read_parquet(...).map_batches(...).iter_torch_batches(...)`

All read the same columns of the same files once, from first to last. Only the loader shuffles: the
others are spared it. What a reader makes once for all epochs (this loader's list of row groups, a
DataLoader's worker processes, Ray's cluster) is made before any clock starts.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

import pyarrow.parquet as pq
from torch import Tensor

from benchmarks.input_encoding import LENGTHS_PREFIX, encode_table
from benchmarks.parquet_datasets import batch_loader, row_loader
from benchmarks.parquet_log import Log
from cluster.launch import INIT_SETTINGS
from data_loaders.batch import InteractionBatch
from data_loaders.loader import InteractionLoader
from data_loaders.storage import Location
from data_loaders.streams import Cursor

# Sums of float32 in another order, and logarithms of another library.
SUMS_TOLERANCE = 1e-4


class ContendersDisagreeError(RuntimeError):
    """Two contenders read different things, so their times must not be compared."""


@dataclass(frozen=True)
class Contents:
    """Sums that are the same for all who read the same log.

    Attributes:
        num_examples: rows.
        num_list_ids: ids of all lists, after `max_length`.
        num_labels: observed ones.
        label_sum: of those, in the units of the loss.
        dense_sum: of all dense features, standardised.
    """

    num_examples: int = 0
    num_list_ids: int = 0
    num_labels: int = 0
    label_sum: float = 0.0
    dense_sum: float = 0.0

    def __add__(self, other: Contents) -> Contents:
        names = [field.name for field in fields(Contents)]
        return Contents(**{name: getattr(self, name) + getattr(other, name) for name in names})


@dataclass(frozen=True)
class Contender:
    """A reader of the log.

    Attributes:
        name: as in the module's docstring.
        batches: reads an epoch.
        num_examples: of a batch.
        contents: of a batch; None for a reader that makes no tensors.
    """

    name: str
    batches: Callable[[], Iterable[Any]]
    num_examples: Callable[[Any], int]
    contents: Callable[[Any], Contents] | None

    def read(self) -> int:
        """Reads an epoch, keeps nothing, and counts its examples."""
        return sum(map(self.num_examples, self.batches()))


def check_agreement(contents: Mapping[str, Contents], *, num_examples: int) -> None:
    """Whether contenders have read the same.

    Args:
        contents: of an epoch, by contender, the loader's among them; of the scan, only its
            `num_examples`.
        num_examples: of the log.

    Raises:
        ContendersDisagreeError: they have not; the message names contender and sum.
    """
    for name, read in contents.items():
        if read.num_examples != num_examples:
            raise ContendersDisagreeError(
                f"{name} read {read.num_examples:,} examples of {num_examples:,}"
            )
        if name == "scan":
            continue
        expected = asdict(contents["loader"])
        for key, value in asdict(read).items():
            if isinstance(value, int):
                is_same = value == expected[key]
            else:  # a sum of standardised numbers may be near 0
                tolerance = SUMS_TOLERANCE * num_examples
                is_same = math.isclose(
                    value, expected[key], rel_tol=SUMS_TOLERANCE, abs_tol=tolerance
                )
            if not is_same:
                raise ContendersDisagreeError(
                    f"{key}: {name} has {value:,}, the loader {expected[key]:,}"
                )


def scan(log: Log, *, num_threads: int) -> Contender:
    """`ParquetFile.read` of whole files, a thread per core, each decoding its file by itself.

    The fastest of what was tried: `pyarrow.dataset`'s scanner, `ParquetFile.iter_batches`,
    `read_table`, and `read_row_group` in a thread pool came behind it.
    """
    use_threads = len(log.files) < num_threads  # Arrow's, where files alone would leave cores idle

    def num_rows(file: Location) -> int:
        with pq.ParquetFile(file.path, filesystem=file.filesystem) as parquet:
            return int(parquet.read(columns=list(log.names), use_threads=use_threads).num_rows)

    def batches() -> Iterator[int]:
        with ThreadPoolExecutor(num_threads) as pool:
            yield from pool.map(num_rows, log.files)

    return Contender(name="scan", batches=batches, num_examples=int, contents=None)


def loader(log: Log, *, reader: InteractionLoader) -> Contender:
    """This project's loader, from the beginning of its first epoch."""

    def num_examples(batch: InteractionBatch) -> int:
        return int(batch.weights_B.sum())

    def contents(batch: InteractionBatch) -> Contents:
        return _contents(
            num_examples=num_examples(batch),
            num_list_ids=sum(int(batch.ids[name].lengths().sum()) for name in log.columns.lists),
            dense=batch.dense_BD,
            labels=batch.labels_BT,
        )

    return Contender(
        name="loader",
        batches=lambda: reader.batches(start=Cursor(), num_steps=reader.steps_per_epoch),
        num_examples=num_examples,
        contents=contents,
    )


def dataloader(log: Log, *, num_workers: int) -> Contender:
    """`DataLoader(dataset, batch_size=..., num_workers=..., collate_fn=...)`.

    What most code for Parquet does: the dataset yields rows as Python dicts (`iter_batches`, then
    `to_pylist`), the workers share the files, and `collate_fn` hashes strings, pads lists and makes
    tensors of the rows.
    """
    batches = row_loader(log, num_workers=num_workers)
    return _rival("dataloader", lambda: batches)


def dataloader_batched(log: Log, *, num_workers: int) -> Contender:
    """A DataLoader whose dataset yields whole batches, encoded a column at a time."""
    batches = batch_loader(log, num_workers=num_workers)
    return _rival("dataloader_batched", lambda: batches)


def ray_data(log: Log) -> Contender:
    """Ray Data with its own choice of blocks; `map_batches` encodes a block a column at a time.

    Torch holds neither strings nor lists, so a user has to encode them; Ray runs that in its
    workers. Needs `local_ray`.
    """
    import ray.data

    files = ray.data.read_parquet(
        [file.path for file in log.files], filesystem=log.files[0].filesystem
    )
    encoded = files.select_columns(list(log.names)).map_batches(
        partial(encode_table, columns=log.columns), batch_format="pyarrow", batch_size=None
    )
    return _rival("ray_data", lambda: encoded.iter_torch_batches(batch_size=log.batch_size))


@contextlib.contextmanager
def local_ray(*, num_cpus: int) -> Iterator[None]:
    """A Ray cluster on this machine that prints nothing, and ends with the block."""
    import ray
    import ray.data

    added = {name: value for name, value in INIT_SETTINGS.items() if name not in os.environ}
    os.environ.update(added)
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield
    finally:
        ray.shutdown()
        for name in added:
            os.environ.pop(name, None)


def _rival(name: str, batches: Callable[[], Iterable[Mapping[str, Tensor]]]) -> Contender:
    """A reader whose batches are dicts, as `input_encoding` makes them."""

    def contents(batch: Mapping[str, Tensor]) -> Contents:
        lengths = [value for key, value in batch.items() if key.startswith(LENGTHS_PREFIX)]
        return _contents(
            num_examples=len(batch["labels"]),
            num_list_ids=sum(int(value.sum()) for value in lengths),
            dense=batch["dense"],
            labels=batch["labels"],
        )

    return Contender(
        name=name,
        batches=batches,
        num_examples=lambda batch: len(batch["labels"]),
        contents=contents,
    )


def _contents(*, num_examples: int, num_list_ids: int, dense: Tensor, labels: Tensor) -> Contents:
    return Contents(
        num_examples=num_examples,
        num_list_ids=num_list_ids,
        num_labels=int((~labels.isnan()).sum()),
        label_sum=float(labels.double().nansum()),
        dense_sum=float(dense.double().sum()),
    )
