"""What a recipe leaves to the training split, filled in from `dataset.json` and a file's footer.

    mean: fit, std: fit        the column's mean and standard deviation
    encoding: quantiles        `boundaries`
    encoding: vocabulary       `vocabulary`, the URI of a file, and its digest
    encoding: hash             `id_type`, that of the first file that can be opened

The result says everything: a run and its checkpoints keep it, and an evaluation on another data set
takes the statistics of training from there.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from data_loaders.config import (
    AnyFeature,
    DataConfig,
    DenseFeature,
    IdFeature,
    IdListFeature,
    RegressionTask,
)
from data_loaders.dataset import DatasetInfo, open_parquet, parquet_files, read_dataset_info
from data_loaders.errors import SchemaError, StorageError, UnreachableError
from data_loaders.id_vocabulary import digest_of
from data_loaders.log_schema import id_type_of
from data_loaders.retries import retried
from data_loaders.row_groups import locate_root
from data_loaders.statistics import IdStatistics, NumberStatistics
from data_loaders.storage import Location, locate

Scaled = TypeVar("Scaled", DenseFeature, RegressionTask)
Listed = TypeVar("Listed", IdFeature, IdListFeature)

# between two of the 101 quantiles the values are taken as evenly spread
_POINTS_PER_QUANTILE = 100


def fitted(config: DataConfig, *, num_rows: Mapping[str, int]) -> DataConfig:
    """The section `data` with everything fitted; what stands there already stays.

    Args:
        config: its root is read, unless there is nothing to fit.
        num_rows: rows of the embedding table of each id feature.

    Raises:
        SchemaError: `dataset.json` does not know a column; the message says what else to do.
        StorageError: the data set or a vocabulary is out of reach.
    """
    config = _with_id_types(config)
    if not any(_is_open(item) for item in (*config.features.values(), *config.tasks.values())):
        return config
    known = _Known(locate_root(config))
    vocabularies = _vocabularies(config, known)
    features: dict[str, AnyFeature] = {}
    for name, feature in config.features.items():
        features[name] = feature
        if not _is_open(feature):
            continue
        if isinstance(feature, IdFeature) and feature.encoding == "quantiles":
            features[name] = _with_boundaries(feature, name, known, num_ranges=num_rows[name] - 1)
        elif isinstance(feature, IdFeature | IdListFeature):
            features[name] = feature.model_copy(update=vocabularies[feature.table or name])
        elif isinstance(feature, DenseFeature):
            features[name] = _scaled(feature, name, known)
    tasks = {
        name: _scaled(task, name, known) if isinstance(task, RegressionTask) else task
        for name, task in config.tasks.items()
    }
    return config.model_copy(update={"features": features, "tasks": tasks})


def _is_open(item: Any) -> bool:
    """Whether something is left to fit."""
    if isinstance(item, DenseFeature | RegressionTask):
        return "fit" in (item.mean, item.std)
    encoding = getattr(item, "encoding", None)
    if encoding == "quantiles":
        return item.boundaries is None
    return encoding == "vocabulary" and item.vocabulary_digest is None


def _with_id_types(config: DataConfig) -> DataConfig:
    """Columns of which no file tells what they hold stay open: reading the log refuses them."""
    features = dict(config.features)
    untyped = {
        name: feature
        for name, feature in features.items()
        if isinstance(feature, IdFeature | IdListFeature)
        and feature.encoding == "hash"
        and feature.id_type is None
    }
    schema = _train_schema(config) if untyped and config.root is not None else None
    if schema is None:
        return config
    for name, feature in untyped.items():
        column = feature.column or name
        if schema.names.count(column) == 1:
            found = schema.field(column).type
            if isinstance(feature, IdListFeature):
                found = getattr(found, "value_type", found)
            features[name] = feature.model_copy(update={"id_type": id_type_of(found)})
    return config.model_copy(update={"features": features})


def _train_schema(config: DataConfig) -> pa.Schema | None:
    """The columns of the training split's first file that can be opened, if there is one."""
    for file in parquet_files(locate_root(config), split="train"):
        try:
            with retried(functools.partial(open_parquet, file), file=file) as parquet:
                return parquet.schema_arrow
        except UnreachableError:
            raise
        except StorageError:  # told, or skipped, when the log is listed
            continue
    return None


class _Known:
    """The statistics of a data set's columns."""

    def __init__(self, root: Location) -> None:
        self.root = root
        self._info: DatasetInfo | None = read_dataset_info(root)

    def numbers(self, column: str, *, needed_by: str, instead: str) -> NumberStatistics:
        found = self._info.columns.get(column) if self._info else None
        if not isinstance(found, NumberStatistics):
            raise self._missing(column, "numbers", needed_by, instead)
        return found

    def ids(self, column: str, *, needed_by: str) -> IdStatistics:
        found = self._info.columns.get(column) if self._info else None
        if not isinstance(found, IdStatistics):
            instead = "name a Parquet file by `vocabulary`, or use encoding: hash"
            raise self._missing(column, "ids", needed_by, instead)
        return found

    def _missing(self, column: str, kind: str, needed_by: str, instead: str) -> SchemaError:
        return SchemaError(
            f"{self.root.child('dataset.json').uri}: has no statistics of the column {column} as "
            f"{kind}, which {needed_by} needs; fit them with `polytower prepare`, or {instead}"
        )


def _vocabularies(config: DataConfig, known: _Known) -> dict[str, dict[str, str]]:
    """By table: the one vocabulary that all its features share, because a row is one id.

    That which a feature names, or else that of the first feature's column.
    """
    users: dict[str, list[tuple[str, IdFeature | IdListFeature]]] = {}
    for name, feature in config.features.items():
        if isinstance(feature, IdFeature | IdListFeature) and feature.encoding == "vocabulary":
            users.setdefault(feature.table or name, []).append((name, feature))
    found = {}
    for table, features in users.items():
        closed = [item for _, item in features if item.vocabulary_digest is not None]
        named = [item for _, item in features if item.vocabulary is not None]
        if closed:
            found[table] = _reference(str(closed[0].vocabulary), str(closed[0].vocabulary_digest))
        elif named:
            uri = locate(str(named[0].vocabulary)).uri
            found[table] = _reference(uri, digest_of(uri))
        else:
            name, first = features[0]
            column = first.column or name
            statistics = known.ids(column, needed_by=f"data.features.{name} (encoding: vocabulary)")
            uri = known.root.child(statistics.vocabulary).uri
            found[table] = _reference(uri, digest_of(uri))
    return found


def _reference(uri: str, digest: str) -> dict[str, str]:
    return {"vocabulary": uri, "vocabulary_digest": digest}


def _with_boundaries(feature: IdFeature, name: str, known: _Known, *, num_ranges: int) -> IdFeature:
    statistics = known.numbers(
        feature.column or name,
        needed_by=f"data.features.{name} (encoding: quantiles)",
        instead="give `boundaries`",
    )
    fractions = np.arange(1, num_ranges) / num_ranges
    cuts = np.unique(_quantiles(statistics, fractions))
    # nothing lies below the least value, where many values are equal to it
    return feature.model_copy(update={"boundaries": cuts[cuts > statistics.min].tolist()})


def _scaled(spec: Scaled, name: str, known: _Known) -> Scaled:
    if not _is_open(spec):
        return spec
    section = "features" if isinstance(spec, DenseFeature) else "tasks"
    column = spec.column or name
    statistics = known.numbers(
        column, needed_by=f"data.{section}.{name} (fit)", instead="give mean and std as numbers"
    )
    clip = spec.clip if isinstance(spec, DenseFeature) else None
    if clip is not None:
        mean, std = _clipped_moments(statistics, clip=clip, log=spec.log)
    elif spec.log:
        mean, std = statistics.log_mean, statistics.log_std
    else:
        mean, std = statistics.mean, statistics.std
    if mean is None or std is None:
        raise SchemaError(
            f"data.{section}.{name}: log: true needs numbers >= 0; the column {column} goes down "
            f"to {statistics.min:g} in the training split; clip it, or leave out log"
        )
    fit = {"mean": mean, "std": std or 1.0}  # a column of one value is only shifted
    return spec.model_copy(
        update={key: value for key, value in fit.items() if getattr(spec, key) == "fit"}
    )


def _clipped_moments(
    statistics: NumberStatistics, *, clip: tuple[float, float], log: bool
) -> tuple[float | None, float | None]:
    """Mean and standard deviation behind clip and log, from the quantiles."""
    low, high = clip
    if log and max(low, statistics.min) < 0:
        return None, None
    num_points = 100 * _POINTS_PER_QUANTILE
    middles = (np.arange(num_points) + 0.5) / num_points
    values = np.clip(_quantiles(statistics, middles), low, high)
    if log:
        values = np.log1p(values)
    return float(values.mean()), float(values.std())


def _quantiles(statistics: NumberStatistics, fractions: np.ndarray) -> np.ndarray:
    known = np.linspace(0, 1, len(statistics.quantiles))
    return np.interp(fractions, known, statistics.quantiles)
