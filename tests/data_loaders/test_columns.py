"""Arrow columns as numpy arrays: what lies in them, and nothing beside it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from data_loaders.columns import write_rows_of_codes
from data_loaders.errors import WrongRowsError


def test_codes_take_the_row_of_their_string_to_its_place_and_nulls_that_of_missing_ones() -> None:
    """In a slice too, whose first bit of validity is not the first of its byte."""
    codes = pa.array([0, 2, None, 1, None, 0], pa.int32()).slice(1)
    rows, place = np.zeros(7, np.int64), np.array([6, 4, 0, 2, 1])
    write_rows_of_codes(codes, rows, place, rows_D=np.array([7, 8, 9]), missing_row=5)
    assert rows.tolist() == [8, 7, 5, 0, 5, 0, 9]


@pytest.mark.parametrize("code", [3, -1, 2**31 - 1])
def test_a_code_outside_its_dictionary_is_an_error_and_reads_no_foreign_memory(code: int) -> None:
    """As a damaged file may hold one; Arrow does not look."""
    codes = pa.array([1, code, 0], pa.int32())
    rows, place = np.zeros(3, np.int64), np.array([2, 0, 1])
    with pytest.raises(WrongRowsError, match="outside the dictionary") as caught:
        write_rows_of_codes(codes, rows, place, rows_D=np.array([7, 8, 9]), missing_row=0)
    assert caught.value.is_wrong_R.tolist() == [False, True, False]
