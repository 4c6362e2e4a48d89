"""Statistics of a log's training split in its `dataset.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq

from data_loaders.dataset import SPLITS, DatasetInfo, SplitInfo, write_dataset_info
from data_loaders.statistics import ColumnKind, Fitter
from data_loaders.storage import locate


def write_statistics(root: Path, columns: Mapping[str, ColumnKind]) -> DatasetInfo:
    """Fits some columns of `train/`, writes vocabularies and `dataset.json`."""
    fitter = Fitter(columns)
    for path in sorted((root / "train").glob("*.parquet")):
        fitter.add(pq.read_table(path))
    location = locate(str(root))
    info = DatasetInfo(
        name=root.name,
        splits={
            split: SplitInfo(
                examples=sum(pq.read_metadata(path).num_rows for path in (root / split).iterdir())
            )
            for split in SPLITS
            if (root / split).exists()
        },
        columns=fitter.write(location),
    )
    write_dataset_info(location, info)
    return info
