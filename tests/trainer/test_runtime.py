"""What a user does not get to see."""

from __future__ import annotations

import logging

import pytest

from trainer.runtime import quiet_libraries


def test_only_what_is_named_is_silenced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the root logger, that on which the planner speaks of data-parallel tables."""
    monkeypatch.setattr(logging.getLogger(), "filters", [])
    for _ in range(2):
        quiet_libraries()
    logging.warning("Sharding spec not found for tables.table_user")
    logging.warning("something else")
    assert [record.getMessage() for record in caplog.records] == ["something else"]
    assert len(logging.getLogger().filters) == 1
