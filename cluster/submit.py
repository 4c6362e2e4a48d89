"""Trains a recipe as a Ray job: the driver runs on the cluster, and its log is followed here.

Polytower must be installed on the cluster's nodes, in the environment that `ray start` ran in. Only
the recipe file travels; data and the run's folder are named by URIs, and credentials are the
cluster's own.

Source: https://docs.ray.io/en/latest/cluster/running-applications/job-submission/sdk.html
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from data_loaders.errors import InputError
from data_loaders.storage import first_line

CONNECT_TIMEOUT_SECONDS = 5.0
RETRY_SECONDS = 2.0
# in which a head that answers also finds an agent that starts jobs
START_TIMEOUT_SECONDS = 60.0
EXIT_INTERRUPTED = 130


def submit(
    recipe_arguments: list[str],
    *,
    address: str,
    recipe_file: Path | None,
    workers: int | None,
    follow: Callable[[str], None],
) -> int:
    """Runs `polytower train` on a cluster and follows its log; Ctrl-C stops following, not the job.

    Args:
        recipe_arguments: of `polytower train`: the recipe, then overrides.
        address: of the cluster's dashboard, e.g. http://head:8265.
        recipe_file: takes the recipe's place if it is a file of this machine.
        workers: ranks; None leaves the choice to the cluster.
        follow: called with each line of the job's log, without its line end.

    Returns:
        The job's exit status: 0 if it succeeded, not 0 if it failed or was stopped; 130 after
        Ctrl-C.

    Raises:
        InputError: the cluster cannot be reached, or refuses the job.
    """
    recipe, *overrides = recipe_arguments
    if recipe_file is not None:
        recipe = f"./{recipe_file.name}"  # no shipped recipe of the same name
    command = ["python", "-m", "cluster.cli", "train", recipe, *overrides, "--address", "auto"]
    if workers is not None:
        command += ["--workers", str(workers)]
    client = _connect(address)
    job = _send(client, command=command, recipe_file=recipe_file, address=address)
    follow(f"job {job} on {address}")
    try:
        asyncio.run(_follow_log(client, job=job, follow=follow))
        return _exit_status(client, job=job, follow=follow)
    except KeyboardInterrupt:
        stop = f"RAY_AUTH_MODE=token ray job stop --address {address} {job}"
        follow(f"the job goes on; stop it with: {stop}")
        return EXIT_INTERRUPTED


def _connect(address: str) -> JobSubmissionClient:
    # Ray logs each package that it uploads, and the end of the log
    for name in ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
        logging.getLogger(name).setLevel(logging.ERROR)
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        raise InputError(
            f"--address {address}: expected the dashboard of a Ray cluster, e.g. http://head:8265"
        )
    remedy = "is it up, and listening to other machines (ray start --dashboard-host=0.0.0.0)?"
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        # requests would wait for minutes
        socket.create_connection((parts.hostname, port), CONNECT_TIMEOUT_SECONDS).close()
        return JobSubmissionClient(address, headers=_token_header())
    except AuthenticationError as error:
        raise InputError(_refusal(address)) from error
    except (OSError, ValueError) as error:  # ConnectionError and those of requests are among them
        raise InputError(
            f"--address {address}: no Ray dashboard answers: {first_line(error)}; {remedy}"
        ) from error
    except RuntimeError as error:  # another program, or a Ray older than jobs
        raise InputError(
            f"--address {address}: not a Ray dashboard that takes jobs: {first_line(error)}"
        ) from error


def _token_header() -> dict[str, str]:
    """The token of this machine, looked for where Ray looks for it; nothing if there is none."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled":
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN", "")
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if not token and path.is_file():
        token = path.read_text()
    return {"Authorization": f"Bearer {token.strip()}"} if token.strip() else {}


def _refusal(address: str) -> str:
    return (
        f"--address {address}: the cluster refused this machine's token; set RAY_AUTH_TOKEN_PATH "
        "(or RAY_AUTH_TOKEN) to the cluster's token, which `ray get-auth-token` prints on its head"
    )


def _send(
    client: JobSubmissionClient, *, command: list[str], recipe_file: Path | None, address: str
) -> str:
    runtime_env: dict[str, object] = {"env_vars": {"PYTHONUNBUFFERED": "1"}}
    with tempfile.TemporaryDirectory() as folder:
        if recipe_file is not None:
            shutil.copy(recipe_file, folder)
            runtime_env["working_dir"] = folder
        try:
            job = _taken(client, entrypoint=shlex.join(command), runtime_env=runtime_env)
        except AuthenticationError as error:
            raise InputError(_refusal(address)) from error
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"--address {address}: the cluster did not take the job: {first_line(error)}"
            ) from error
    return job


def _taken(client: JobSubmissionClient, **job: Any) -> str:
    """The job's name; a head that has just started takes jobs a few seconds later."""
    last_start = time.monotonic() + START_TIMEOUT_SECONDS
    while True:
        try:
            name: str = client.submit_job(**job)
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > last_start:
                raise
            time.sleep(RETRY_SECONDS)
        else:
            return name


async def _follow_log(
    client: JobSubmissionClient, *, job: str, follow: Callable[[str], None]
) -> None:
    """Passes on every line once, until the job has ended; a lost connection is made again."""
    num_lines = 0
    while True:
        rest, position = "", 0
        try:
            async for chunk in client.tail_job_logs(job):  # always from the log's first line
                *lines, rest = (rest + chunk).split("\n")
                for line in lines:
                    position += 1
                    if position > num_lines:
                        num_lines = position
                        follow(line)
            if rest:
                follow(rest)
            return
        except (aiohttp.ClientError, RuntimeError) as error:
            follow(f"lost the job's log ({first_line(error)}); trying again")
            await asyncio.sleep(RETRY_SECONDS)


def _exit_status(client: JobSubmissionClient, *, job: str, follow: Callable[[str], None]) -> int:
    while True:
        try:
            info = client.get_job_info(job)
        except requests.ConnectionError:
            time.sleep(RETRY_SECONDS)
            continue
        if info.status.is_terminal():
            break
        time.sleep(0.2)  # the log ends a moment before the job does
    if info.status == JobStatus.SUCCEEDED:
        return 0
    if info.driver_exit_code is None and info.message:  # it was stopped, or never started
        follow(" ".join(info.message.split()))
    code = info.driver_exit_code
    return code if code is not None and 0 < code < 256 else 1
