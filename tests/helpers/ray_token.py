"""The token of the Ray clusters that tests start: one, because Ray reads it once a process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)  # whichever test is the first to start Ray
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A token of our own: Ray would write one into the home folder."""
    path = tmp_path_factory.mktemp("token") / "auth_token"
    path.write_text("d2f1c4b6a89e4f0db7a5c3e1f2968407")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
        yield path
