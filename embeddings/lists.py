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

    def padded(self, length: int) -> Tensor:
        """float32 (B, length, W), the last vector of each list first, zeros behind the first."""
        before_B = self.lengths_B.cumsum(0) - 1  # the place in N of the last one
        order_N = torch.arange(len(self.rows_N), device=self.rows_N.device)
        zeros_BLW = self.vectors_NW.new_zeros(len(before_B), length, self.vectors_NW.shape[1])
        places = (self.rows_N, before_B[self.rows_N] - order_N)
        return zeros_BLW.index_put(places, self.vectors_NW)
