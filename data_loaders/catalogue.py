"""The items that negatives are drawn from: a Parquet file with one row per item.

    item_id   category   price   count
    A-3       books      19.99   1042       columns of the log, and how often the item occurs there

Shape legend: I items.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from data_loaders.columns import column_of, numbers_of
from data_loaders.config import DataConfig, NegativesConfig
from data_loaders.dataset import open_parquet
from data_loaders.errors import SchemaError, StorageError
from data_loaders.log_schema import check_schema
from data_loaders.row_groups import footer_bytes, footer_digest, locate_root, read_columns
from data_loaders.storage import Location, first_line, locate

COUNT = "count"
KEY = "data.negatives.catalogue"


@dataclass(frozen=True)
class Catalogue:
    """A file whose footer suits the recipe.

    Attributes:
        location: of the file.
        items: the section `data` without tasks, and without the features whose columns the file
            does not have; a drawn item replaces those that are left.
        columns: to read.
        fingerprint: changes with the file's size and footer.
    """

    location: Location
    items: DataConfig
    columns: list[str]
    fingerprint: str

    def read(self) -> pa.Table:
        """Its columns, a row per item.

        Raises:
            StorageError: it is damaged.
        """
        try:
            with open_parquet(self.location) as parquet:
                return parquet.read(columns=self.columns)
        except (pa.ArrowException, OSError) as error:
            raise StorageError(
                f"{self.location.uri}: cannot be read ({first_line(error)}); the file is damaged "
                "or was changed: write it again"
            ) from error

    def weights(self, table: pa.Table, *, negatives: NegativesConfig) -> np.ndarray:
        """How often each item is drawn, relative to the others: float64 (I,).

        Args:
            table: as `read` gave it.

        Raises:
            SchemaError: a count is impossible, or none is above 0.
        """
        if negatives.sampling == "uniform":
            return np.ones(table.num_rows)
        counts_I = numbers_of(column_of(table, COUNT))
        is_wrong_I = ~(np.isfinite(counts_I) & (counts_I >= 0))
        if is_wrong_I.any():
            wrong = counts_I[is_wrong_I][0]
            found = "null" if np.isnan(wrong) else f"{wrong:g}"
            raise SchemaError(
                f"{self.location.uri}: column {COUNT}: {found}; expected a number >= 0 "
                "for each item (sampling: popularity); write the column anew"
            )
        if not counts_I.any():
            raise SchemaError(
                f"{self.location.uri}: column {COUNT}: is 0 for every item, so that none can be "
                "drawn; count them in train/, or use sampling: uniform"
            )
        return counts_I**negatives.power


def open_catalogue(config: DataConfig, *, negatives: NegativesConfig) -> Catalogue:
    """The catalogue that `negatives` names, checked as far as its footer tells.

    Raises:
        StorageError: there is none, or it cannot be read.
        SchemaError: it lacks a column, has one with a type that the recipe cannot use, or no rows.
    """
    location = _locate(config, uri=negatives.catalogue)
    try:
        num_bytes = location.num_bytes()
    except StorageError as error:
        raise StorageError(
            f"{error} ({KEY}); expected a Parquet file with one row per item; "
            "write it (docs/recipe.md says how), or correct the URI"
        ) from error
    with open_parquet(location) as parquet:
        schema, metadata = parquet.schema_arrow, parquet.metadata
    known = {
        name: feature
        for name, feature in config.features.items()
        if (feature.column or name) in schema.names
    }
    if not known:
        wanted = ", ".join(feature.column or name for name, feature in config.features.items())
        raise SchemaError(
            f"{location.uri}: has no column of a feature ({KEY}); expected the item's among "
            f"{wanted}; found {', '.join(schema.names) or 'no column'}"
        )
    items = config.model_copy(update={"features": known, "tasks": {}})
    check_schema(schema, file=location, config=items)
    columns = read_columns(items)
    if negatives.sampling == "popularity":
        _check_count(schema, uri=location.uri)
        columns = list(dict.fromkeys([*columns, COUNT]))
    if not metadata.num_rows:
        raise SchemaError(f"{location.uri}: has no rows ({KEY}); expected one per item")
    return Catalogue(
        location=location,
        items=items,
        columns=columns,
        fingerprint=footer_digest(footer_bytes(metadata), num_bytes=num_bytes)[:16],
    )


def _locate(config: DataConfig, *, uri: str) -> Location:
    """A relative path begins at the data set's root."""
    is_relative = "://" not in uri and not os.path.isabs(os.path.expanduser(uri))
    return locate_root(config).child(uri) if is_relative else locate(uri)


def _check_count(schema: pa.Schema, *, uri: str) -> None:
    found = schema.field(COUNT).type if COUNT in schema.names else None
    if found is None or not (pa.types.is_integer(found) or pa.types.is_floating(found)):
        raise SchemaError(
            f"{uri}: column {COUNT}: expected numbers, how often each item occurs in train/ "
            f"(sampling: popularity), found {found or 'no such column'}; "
            "write it, or use sampling: uniform"
        )
