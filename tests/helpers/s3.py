"""The S3 server of `make s3-server` for tests: they skip themselves where it does not run.

A test that takes the fixture `s3_root` or `s3_env` is marked `s3`.
"""

from __future__ import annotations

import os
import re
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from data_loaders import storage

ENV_FILE = Path(__file__).parents[2] / ".s3" / "env.sh"
NOT_RUNNING = "S3 server not running: start it with 'make s3-server'"


def s3_environment(env_file: Path = ENV_FILE) -> dict[str, str] | None:
    """The environment of a client of the server; None if none takes connections."""
    if not env_file.exists():
        return None
    env = dict(re.findall(r"^export (\w+)=(.*)$", env_file.read_text(), flags=re.MULTILINE))
    endpoint = urlsplit(env["AWS_ENDPOINT_URL"])
    try:
        socket.create_connection((endpoint.hostname, endpoint.port), timeout=2).close()
    except OSError:
        return None
    return env


@pytest.fixture
def s3_env(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The environment of a client, set for this process and those that the test starts."""
    env = s3_environment()
    if env is None:
        pytest.skip(NOT_RUNNING)
    for name in os.environ:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    # Filesystems are kept per bucket with the environment in which they were opened.
    storage._filesystem.cache_clear()
    yield env
    storage._filesystem.cache_clear()


@pytest.fixture
def s3_root(s3_env: dict[str, str]) -> Iterator[str]:
    """The URI of a fresh folder on the server; what the test leaves there is deleted."""
    uri = f"s3://{s3_env['POLYTOWER_S3_TEST_BUCKET']}/{uuid.uuid4().hex}"
    root = storage.locate(uri)
    yield uri
    root.delete()
