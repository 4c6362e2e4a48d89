"""Words of messages."""

from __future__ import annotations

import pytest

from data_loaders.errors import counted


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 raw files"), (1, "1 raw file"), (1234, "1,234 raw files")]
)
def test_only_one_is_singular(count: int, words: str) -> None:
    """None are many."""
    assert counted(count, "raw file") == words
