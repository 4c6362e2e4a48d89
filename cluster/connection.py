"""Ray, quietly: a local cluster that lives as long as one command, or one that is already there.

Source: https://docs.ray.io/en/latest/ray-core/starting-ray.html
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import ray
from ray._private.authentication.authentication_token_setup import (
    maybe_enable_token_auth_if_token_available,
)
from ray._private.ray_logging import stdout_deduplicator
from ray.exceptions import AuthenticationError

from data_loaders.errors import InputError
from data_loaders.storage import first_line

# What Ray reads from the environment when it starts a cluster; what the user has set stays.
INIT_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # reports to the network, and says so on the terminal
    # idle processes, which would have to start with the environment above to be of use
    "RAY_prestart_worker_first_driver": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's future default; without it every start warns
}
CONNECT_TIMEOUT_SECONDS = 5.0


@contextlib.contextmanager
def connected(address: str | None, *, environment: Mapping[str, str]) -> Iterator[None]:
    """A Ray cluster inside `with`.

    Args:
        address: of a running cluster, `auto` or HOST:PORT; None starts one that ends with the
            block.
        environment: of the cluster's processes, where theirs does not come from this one.

    Raises:
        InputError: the cluster cannot be reached.
    """
    with settings(INIT_SETTINGS if address is None else {}):
        connect(address, environment=environment)
        try:
            yield
        finally:
            ray.shutdown()


def connect(address: str | None, *, environment: Mapping[str, str] | None = None) -> str:
    """Starts a local cluster or joins one; returns the folder of its logs on this node."""
    logging.getLogger("ray").setLevel(logging.ERROR)  # before ray.init, which does the same
    # printed whatever log_to_driver says; our own line tells of it
    stdout_deduplicator.skip_re = re.compile("worker died or was killed")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        # two at least, so that the smallest machine can try two ranks
        num_cpus = max(2, len(os.sched_getaffinity(0)))
        context = ray.init(address="local", num_cpus=num_cpus, include_dashboard=False, **quiet)
        return f"{context.address_info['session_dir']}/logs"
    host, mark, port = address.rpartition(":")
    if address != "auto" and (not mark or not port.isdigit() or "/" in host):
        raise InputError(
            f"--address {address}: expected auto or HOST:PORT of a Ray cluster that this machine "
            "is a node of; from elsewhere, use polytower submit"
        )
    remedy = (
        "start one with: ray start --head, give the address that it prints, or leave out --address"
    )
    try:
        if address != "auto":  # ray.init tries for half a minute
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_SECONDS).close()
            # ray.init looks for this machine's token only if the address is auto
            maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
        runtime_env = {"env_vars": dict(environment)} if environment else None
        context = ray.init(address=address, runtime_env=runtime_env, **quiet)
    except (OSError, ValueError) as error:  # includes ConnectionError
        raise InputError(
            f"--address {address}: no Ray cluster there: {first_line(error)}; {remedy}"
        ) from error
    except (AuthenticationError, RuntimeError) as error:
        text = " ".join(str(error).split())
        if isinstance(error, AuthenticationError) or "InvalidAuthToken" in text:
            raise InputError(
                f"--address {address}: the cluster refused this machine's token; set "
                "RAY_AUTH_TOKEN_PATH (or RAY_AUTH_TOKEN) to the cluster's token"
            ) from error
        # versions differ, or this machine is not a node
        raise InputError(
            f"--address {address}: cannot join this Ray cluster: {text:.300}"
        ) from error
    return f"{context.address_info['session_dir']}/logs"


@contextlib.contextmanager
def settings(added_settings: Mapping[str, str]) -> Iterator[None]:
    """Adds to this process's environment for a while."""
    added = {name: value for name, value in added_settings.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
