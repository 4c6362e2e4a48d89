"""Public data sets as training data: raw files in, the layout of `data_loaders.dataset` out.

    ROOT/train/..., ROOT/test/...   Parquet, several files per split and several row groups per file
    ROOT/vocabularies.json          what the integer codes stand for, per column
    ROOT/dataset.json               written last: the data set is complete

Everything fitted (vocabularies, bucket edges) is fitted on the training split alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from data_loaders.dataset import (
    SPLITS,
    DatasetInfo,
    SplitInfo,
    begin_dataset,
    refuse_existing,
    write_dataset_info,
    write_split,
)
from data_loaders.errors import InputError, did_you_mean
from data_loaders.public import census_income, kuairand
from data_loaders.public.raw_data import PublicData
from data_loaders.storage import locate

DATASETS: dict[str, Callable[..., PublicData]] = {
    "census-income": census_income.build,
    "kuairand": kuairand.build,
}

FILES_PER_SPLIT = {"train": 8, "valid": 4, "test": 4}
ROW_GROUPS_PER_FILE = 8


def prepare(dataset: str, *, source: str, out: str, seed: int = 0) -> DatasetInfo:
    """Turns the raw files of a public data set into training data; the same seed, the same rows.

    Args:
        dataset: a word of `DATASETS`.
        source: URI or path of the folder that holds the raw files, as published.
        out: URI or path of an empty or missing folder.
        seed: of the order of the training rows and of random splits.

    Returns:
        What `dataset.json` says, which is written last.

    Raises:
        InputError: there is no such data set, or `seed` is negative.
        StorageError: a raw file is missing, or `out` holds files.
        SchemaError: a raw file lacks a column, or has no rows.
    """
    if seed < 0:
        raise InputError(f"seed: {seed} is negative; give 0 or more")
    if dataset not in DATASETS:
        raise InputError(f"{dataset}: no such data set; {did_you_mean(dataset, DATASETS)}")
    root = locate(out)
    refuse_existing(root)
    data = DATASETS[dataset](locate(source), seed=seed)
    begin_dataset(root, name=dataset)
    splits = {}
    for split in SPLITS:
        if split in data.splits:
            table = data.splits[split]
            rows_per_file = -(-table.num_rows // FILES_PER_SPLIT[split])
            splits[split] = SplitInfo(
                examples=write_split(
                    root,
                    split=split,
                    tables=[table],
                    rows_per_file=rows_per_file,
                    rows_per_row_group=-(-rows_per_file // ROW_GROUPS_PER_FILE),
                )
            )
    described = {column: codes.describe() for column, codes in data.codes.items()}
    root.child("vocabularies.json").write_text(json.dumps(described, indent=1) + "\n")
    info = DatasetInfo(name=dataset, description=data.description, splits=splits)
    write_dataset_info(root, info)
    return info
