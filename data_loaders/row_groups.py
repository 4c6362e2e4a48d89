"""The row groups of a split, known from the files' footers, and checked against the recipe."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_loaders.config import (
    DataConfig,
    IdListFeature,
)
from data_loaders.dataset import SPLITS, Split, open_parquet, parquet_files, read_dataset_info
from data_loaders.errors import InputError, SchemaError, StorageError, UnreachableError, counted
from data_loaders.log_schema import check_schema
from data_loaders.retries import retried
from data_loaders.skipping import Skipped
from data_loaders.storage import Location, locate

# Footers are small and far away: latency, not work.
FOOTER_THREADS = 16


@dataclass(frozen=True)
class RowGroups:
    """All row groups of a split, file by file.

    Attributes:
        files: the split's Parquet files, by name.
        file_G: int64 (G,), index into `files` of each row group.
        index_G: int64 (G,), index of each row group in its file.
        num_rows_G: int64 (G,), rows of each row group.
        digests: of each file; changes with its size and with its footer (row groups, where their
            columns lie, and their statistics).
        num_bytes: size of each file.
        skipped: files that `data.on_error: skip` left out, and examples that are missing.
    """

    files: tuple[Location, ...]
    file_G: np.ndarray
    index_G: np.ndarray
    num_rows_G: np.ndarray
    digests: tuple[str, ...]
    num_bytes: tuple[int, ...]
    skipped: tuple[Skipped, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Changes with any file's name or digest."""
        names = [file.name for file in self.files]
        identity = list(zip(names, self.digests, strict=True))
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]

    @property
    def identities(self) -> dict[str, tuple[int, str]]:
        """Size and digest of each file, by its name."""
        names = [file.name for file in self.files]
        return dict(zip(names, zip(self.num_bytes, self.digests, strict=True), strict=True))

    @property
    def num_examples(self) -> int:
        return int(self.num_rows_G.sum())


def has_split(config: DataConfig, *, split: Split) -> bool:
    """Whether the data set has Parquet files for this split."""
    return bool(parquet_files(locate_root(config), split=split))


def locate_root(config: DataConfig) -> Location:
    """Where the data set lies.

    Raises:
        InputError: the recipe names none.
        StorageError: there is nothing at that URI.
    """
    if config.root is None:
        raise InputError(
            "data.root: is not set; give the data set's URI, e.g. data.root=s3://bucket/log"
        )
    root = locate(config.root)
    if not root.exists():
        raise StorageError(
            f"{root.uri}: does not exist (data.root); expected a folder with train/*.parquet; "
            "write one with `polytower generate` or `polytower prepare`, or correct the URI"
        )
    return root


def list_row_groups(config: DataConfig, *, split: Split) -> RowGroups:
    """Reads the footers of a split's files and checks each file against the recipe.

    Raises:
        StorageError: the data set, the split or a file is missing or unreadable.
        SchemaError: a file lacks a column, has it with a type that the recipe cannot use, or the
            split has no rows. Of single files only under `data.on_error: fail`.
    """
    root = locate_root(config)
    files = parquet_files(root, split=split)
    if not files:
        nearest = [name for name in SPLITS if parquet_files(root, split=name)]
        raise StorageError(
            f"{root.child(split).uri}: no *.parquet file there; "
            f"data.root needs a folder {split}/ with Parquet files"
            + (f" (found: {', '.join(f'{name}/' for name in nearest)})" if nearest else "")
        )
    with ThreadPoolExecutor(FOOTER_THREADS) as pool:
        found = list(pool.map(lambda file: _footer_or_skipped(file, config=config), files))
    skipped = [item for item in found if isinstance(item, Skipped)]
    footers = [item for item in found if isinstance(item, _Footer)]
    if not footers:
        raise SchemaError(
            f"{root.child(split).uri}: none of its {counted(len(files), 'file')} can be used "
            f"(data.on_error: skip); {skipped[0].uri}: {skipped[0].reason}"
        )
    num_rows = [footer.num_rows for footer in footers]
    if not sum(map(sum, num_rows)):
        raise SchemaError(
            f"{root.child(split).uri}: the log is empty: {counted(len(files), 'file')}, 0 rows"
        )
    skipped = _counted(
        skipped, root=root, split=split, num_found=sum(map(sum, num_rows)), config=config
    )
    return RowGroups(
        files=tuple(footer.file for footer in footers),
        file_G=np.repeat(np.arange(len(footers)), [len(rows) for rows in num_rows]),
        index_G=np.concatenate([np.arange(len(rows)) for rows in num_rows]),
        num_rows_G=np.concatenate([np.asarray(rows, np.int64) for rows in num_rows]),
        digests=tuple(footer.digest for footer in footers),
        num_bytes=tuple(footer.num_bytes for footer in footers),
        skipped=tuple(skipped),
    )


def read_columns(config: DataConfig) -> list[str]:
    """The columns that the recipe reads, each once."""
    # not features | tasks: the two may share a name
    named = [*config.features.items(), *config.tasks.items()]
    declared = [item.column or name for name, item in named]
    weights = [
        feature.weights
        for feature in config.features.values()
        if isinstance(feature, IdListFeature) and feature.weights is not None
    ]
    beside = [
        column
        for task in config.tasks.values()
        for column in (task.where, task.example_weight)
        if column is not None
    ]
    return list(dict.fromkeys(declared + weights + beside))


@dataclass(frozen=True)
class _Footer:
    file: Location
    num_rows: list[int]
    digest: str
    num_bytes: int


def _footer_or_skipped(file: Location, *, config: DataConfig) -> _Footer | Skipped:
    num_rows = None
    try:
        with retried(lambda: open_parquet(file), file=file) as parquet:
            metadata = parquet.metadata
            num_rows = metadata.num_rows
            check_schema(parquet.schema_arrow, file=file, config=config)
        num_bytes = retried(file.num_bytes, file=file)
    except (SchemaError, StorageError, UnreachableError) as error:
        if config.on_error == "fail" or isinstance(error, UnreachableError):
            raise
        return Skipped.because(error, uri=file.uri, num_rows=num_rows)
    return _Footer(
        file=file,
        num_rows=[metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)],
        digest=footer_digest(footer_bytes(metadata), num_bytes=num_bytes),
        num_bytes=num_bytes,
    )


def footer_bytes(footer: pq.FileMetaData) -> pa.Buffer:
    """A footer as a Parquet file without rows: what `pyarrow.parquet.read_metadata` reads."""
    content = pa.BufferOutputStream()
    footer.write_metadata_file(content)
    return content.getvalue()


def footer_digest(footer: pa.Buffer, *, num_bytes: int) -> str:
    """Tells a file of `num_bytes` bytes from another by its `footer_bytes`."""
    digest = hashlib.sha256(footer)
    digest.update(str(num_bytes).encode())
    return digest.hexdigest()


def _counted(
    skipped: list[Skipped], *, root: Location, split: Split, num_found: int, config: DataConfig
) -> list[Skipped]:
    """What was left out, with the examples that are missing by `dataset.json`.

    Raises:
        SchemaError: there are more examples than it says; or fewer, under `data.on_error: fail`.
    """
    info = read_dataset_info(root)
    if info is None or split not in info.splits:
        return skipped
    folder, num_expected = root.child(split), info.splits[split].examples
    num_missing = num_expected - num_found - sum(item.num_rows or 0 for item in skipped)
    what = f"expected {counted(num_expected, 'example')}, as dataset.json says, found {num_found:,}"
    if num_missing < 0 or (num_missing and config.on_error == "fail"):
        raise SchemaError(
            f"{folder.uri}: {what}; files are missing or were added: write the data set again"
        )
    unknown = [item for item in skipped if item.num_rows is None]
    known = [item for item in skipped if item.num_rows is not None]
    if len(unknown) == 1:  # so these are its examples
        return [*known, replace(unknown[0], num_rows=num_missing)]
    known += [replace(item, num_rows=0) for item in unknown]
    if num_missing:
        reason = f"{what}; files are missing or cannot be read"
        known.append(Skipped(uri=folder.uri, num_rows=num_missing, reason=reason))
    return known
