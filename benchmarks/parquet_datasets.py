"""`torch.utils.data` over Parquet as users write it; light to import, because every worker does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from benchmarks.input_encoding import RowCollate, encode_table
from benchmarks.parquet_log import Log


class ParquetRows(IterableDataset[dict[str, Any]]):
    """This worker's rows, one Python dict each."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in _record_batches(self._log):
            yield from batch.to_pylist()


class ParquetBatches(IterableDataset[dict[str, Tensor]]):
    """This worker's batches, of tensors."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for batch in _record_batches(self._log):
            table = pa.Table.from_batches([batch])
            encoded = encode_table(table, columns=self._log.columns)
            yield {name: torch.from_numpy(array) for name, array in encoded.items()}


def _record_batches(log: Log) -> Iterator[pa.RecordBatch]:
    """Of every num_workers-th file, in a worker."""
    worker = get_worker_info()
    assert worker is not None
    for file in log.files[worker.id :: worker.num_workers]:
        with pq.ParquetFile(file.path, filesystem=file.filesystem) as parquet:
            yield from parquet.iter_batches(batch_size=log.batch_size, columns=list(log.names))


def row_loader(log: Log, *, num_workers: int) -> DataLoader[dict[str, Tensor]]:
    """Gathers rows into batches in `collate_fn`."""
    return _started_once(
        ParquetRows(log),
        num_workers=num_workers,
        batch_size=log.batch_size,
        collate_fn=RowCollate(log.columns),
    )


def batch_loader(log: Log, *, num_workers: int) -> DataLoader[dict[str, Tensor]]:
    """Passes on the batches of its dataset."""
    return _started_once(ParquetBatches(log), num_workers=num_workers, batch_size=None)


def _started_once(
    dataset: IterableDataset[Any], *, num_workers: int, **kwargs: Any
) -> DataLoader[dict[str, Tensor]]:
    return DataLoader(
        dataset,
        num_workers=num_workers,
        persistent_workers=True,  # started once, not in every epoch
        multiprocessing_context="spawn",  # a fork would copy the locks of Arrow's and Ray's threads
        **kwargs,
    )
