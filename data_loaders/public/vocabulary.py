"""Integer codes for columns, fitted on the training split: they are rows of an embedding table.

Code 0 is for what is missing, unseen in training or too rare. A column of codes is an id feature of
encoding `direct`, whose table needs `num_codes` rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

CODE_TYPE = pa.int32()


@dataclass(frozen=True)
class Vocabulary:
    """Known values, ascending; value i has code i + 1."""

    values: pa.Array

    @classmethod
    def fit(cls, values: pa.Array | pa.ChunkedArray, *, min_count: int = 1) -> Vocabulary:
        """The values that occur at least `min_count` times; nulls do not count."""
        counts = pc.value_counts(values)
        known = counts.filter(pc.greater_equal(counts.field("counts"), min_count)).field("values")
        known = known.drop_null()
        return cls(values=known.take(pc.array_sort_indices(known)))

    @property
    def num_codes(self) -> int:
        return len(self.values) + 1

    def encode(self, values: pa.Array | pa.ChunkedArray) -> pa.Array:
        """int32 codes of the same length; 0 where the value is null or not known."""
        found = pc.add(pc.index_in(values, value_set=self.values, skip_nulls=True), 1)
        codes = pc.fill_null(found, 0).cast(CODE_TYPE)
        return codes.combine_chunks() if isinstance(codes, pa.ChunkedArray) else codes

    def describe(self) -> dict[str, Any]:
        """For `vocabularies.json`."""
        return {"kind": "vocabulary", "codes_from": 1, "values": self.values.to_pylist()}


@dataclass(frozen=True)
class Buckets:
    """Ranges of a number: code 1 is below `edges[0]`, code i + 1 is from `edges[i - 1]` on."""

    edges: np.ndarray

    @classmethod
    def fit(cls, values: np.ndarray, *, num_buckets: int) -> Buckets:
        """One bucket per value if they are few; else one for the smallest, the rest by quantile."""
        distinct = np.unique(values[~np.isnan(values)])
        if len(distinct) <= num_buckets:
            return cls(edges=distinct[1:])
        rest = values[values > distinct[0]]
        fractions = np.linspace(0, 1, num_buckets)[:-1]
        return cls(edges=np.unique(np.quantile(rest, fractions, method="lower")))

    @property
    def num_codes(self) -> int:
        return len(self.edges) + 2

    def encode(self, values: np.ndarray) -> pa.Array:
        """int32 codes of the same length; 0 where the value is NaN."""
        codes = 1 + np.searchsorted(self.edges, values, side="right")
        return pa.array(np.where(np.isnan(values), 0, codes), CODE_TYPE)

    def describe(self) -> dict[str, Any]:
        """For `vocabularies.json`."""
        return {"kind": "buckets", "codes_from": 1, "edges": self.edges.tolist()}


Codes = Vocabulary | Buckets
