"""Lists of vectors of any length, one behind the other.

    vectors_NW  a0 a1 a2 | c0 | d0 d1      the list of example 1 is empty
    lengths_B   3 0 1 2
    rows_N      0  0  0    2    3  3

Shape legend: B examples on this rank, N ids of one feature in the batch, W width of a vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import JaggedTensor


@dataclass(frozen=True)
class VectorLists:
    """The vectors of one feature's ids.

    Attributes:
        vectors_NW: float32.
        lengths_B: int64; 0 for an empty list, and in padding.
        rows_N: int64, the example of each vector.
    """

    vectors_NW: Tensor
    lengths_B: Tensor
    rows_N: Tensor

    @classmethod
    def of(cls, jagged: JaggedTensor) -> VectorLists:
        """Those that an EmbeddingCollection returns."""
        lengths_B = jagged.lengths().long()
        rows_B = torch.arange(len(lengths_B), device=lengths_B.device)
        vectors_NW = jagged.values()
        return cls(
            vectors_NW=vectors_NW,
            lengths_B=lengths_B,
            # with the sum at hand it need not wait for a GPU to find it
            rows_N=rows_B.repeat_interleave(lengths_B, output_size=len(vectors_NW)),
        )

    def summed(self, values_NW: Tensor) -> Tensor:
        """The sums over each list, float32 (B, W); 0 for an empty one."""
        zeros_BW = values_NW.new_zeros(len(self.lengths_B), *values_NW.shape[1:])
        return zeros_BW.index_add(0, self.rows_N, values_NW)

    def mean(self, values_NW: Tensor) -> Tensor:
        """The means over each list, float32 (B, W); 0 for an empty one."""
        return self.summed(values_NW) / self.lengths_B.clamp(min=1).unsqueeze(1)

    def places(self) -> Tensor:
        """int64 (N,): of each vector in its list, counted from the last one, which has 0."""
        ends_N = self.lengths_B.cumsum(0)[self.rows_N]
        return ends_N - 1 - torch.arange(len(ends_N), device=ends_N.device)

    def padded(self, values_NW: Tensor, *, length: int) -> Tensor:
        """float32 (B, length, W), the last vector of each list first, zeros behind the first."""
        zeros_XW = values_NW.new_zeros(len(self.lengths_B) * length, values_NW.shape[1])
        padded_XW = zeros_XW.index_copy(0, self.rows_N * length + self.places(), values_NW)
        return padded_XW.unflatten(0, (-1, length))

    def unpadded(self, padded_BLW: Tensor) -> Tensor:
        """float32 (N, W): those of `padded` that stand for a vector of a list."""
        places_N = self.rows_N * padded_BLW.shape[1] + self.places()
        return padded_BLW.flatten(0, 1).index_select(0, places_N)
