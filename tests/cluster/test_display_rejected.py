"""What a person sees in the terminal of the rows that `polytower prepare` left out."""

from __future__ import annotations

import pytest

from cluster.display import print_rejected


@pytest.mark.parametrize(("num_kept", "is_warned"), [(5, True), (6, False)])
def test_a_log_of_which_most_is_rejected_is_told_so(
    capsys: pytest.CaptureFixture[str], num_kept: int, is_warned: bool
) -> None:
    """In one line, if it is more than half."""
    print_rejected({"price: negative": 4, "duplicate": 2}, num_kept=num_kept, folder="log/rejected")
    assert ("6 of 11 rows were rejected" in capsys.readouterr().out) == is_warned
