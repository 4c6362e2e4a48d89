"""A Ray cluster of one node, as `ray start --head` starts it, for all tests of the package."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
START_SECONDS = 60.0


@dataclass(frozen=True)
class Head:
    """Where the cluster listens."""

    address: str
    dashboard: str


@pytest.fixture(scope="session", autouse=True)
def _token(token: Path) -> None:
    """For every test of the package, also those that start a cluster of their own."""


@pytest.fixture(scope="package")
def head(token: Path) -> Iterator[Head]:
    """A running cluster with two CPUs, on which this checkout can be imported."""
    # a short path: Ray puts Unix sockets there
    folder = Path(tempfile.mkdtemp(prefix="ray"))
    ports = _free_ports(4)
    options = {
        "port": ports[0],
        "dashboard-port": ports[1],
        "ray-client-server-port": ports[2],
        # of its own too: beside another cluster's the agent would start no jobs
        "dashboard-agent-listen-port": ports[3],
        "dashboard-host": "127.0.0.1",
        "node-ip-address": "127.0.0.1",
        "num-cpus": 2,
        "temp-dir": folder,
    }
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    command += [f"--{name}={value}" for name, value in options.items()]
    # jobs find `python` on the PATH of the head, and this checkout may not be installed
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    environment["RAY_USAGE_STATS_ENABLED"] = "0"
    log = folder / "start.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, start_new_session=True
        )
    try:
        _wait_for(ports[:2], process=process, log=log)
        yield Head(address=f"127.0.0.1:{ports[0]}", dashboard=f"http://127.0.0.1:{ports[1]}")
    finally:
        process.send_signal(signal.SIGTERM)  # ends what `ray start` started, and nothing else
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # of our own session
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in servers]


def _wait_for(ports: list[int], *, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    for port in ports:
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"ray start failed:\n{log.read_text()}")
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
