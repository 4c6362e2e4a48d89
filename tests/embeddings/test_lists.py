"""Lists of vectors against loops over them."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torchrec.sparse.jagged_tensor import JaggedTensor

from embeddings.lists import VectorLists

WIDTH, MAX_LENGTH = 2, 6


@given(lengths=st.lists(st.integers(0, MAX_LENGTH), min_size=1, max_size=8))
def test_sums_means_and_places_are_those_of_each_list(lengths: list[int]) -> None:
    """Empty ones give zeros; the last vector of a list comes first where they are padded."""
    vectors = torch.randn(sum(lengths), WIDTH, dtype=torch.float64)
    jagged = JaggedTensor(values=vectors, lengths=torch.tensor(lengths, dtype=torch.int32))
    lists = VectorLists.of(jagged)
    sums_BW, means_BW = lists.summed(vectors), lists.mean(vectors)
    padded_BLW = lists.padded(vectors, length=MAX_LENGTH)
    assert torch.equal(lists.unpadded(padded_BLW), vectors)
    assert lists.lengths_B.tolist() == lengths
    for row, part in enumerate(vectors.split(lengths)):
        torch.testing.assert_close(sums_BW[row], part.sum(0))
        torch.testing.assert_close(means_BW[row] * max(1, len(part)), part.sum(0))
        assert torch.equal(padded_BLW[row, : len(part)], part.flip(0))
        assert not padded_BLW[row, len(part) :].any()
        places = lists.places()[sum(lengths[:row]) :][: len(part)]
        assert places.tolist() == list(reversed(range(len(part))))
        assert lists.rows_N[sum(lengths[:row]) :][: len(part)].tolist() == [row] * len(part)
