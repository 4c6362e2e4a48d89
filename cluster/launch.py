"""Puts `train()` on the ranks of a Ray cluster, and back on them after a failure.

    launch()  --Ray Train-->  controller  --starts, polls, restarts-->  ranks: train(recipe)
       ^                          |                                       |
       +---- Mailbox actor <------+-- "a rank failed, restarting"         +-- progress of rank 0

A rank that fails (killed, out of memory, its node lost) makes Ray Train start all ranks anew, and
`train()` resumes itself from the newest complete checkpoint. An `InputError` would fail again, so
it ends the run at once and is raised here as it was raised there.

Ranks take credentials (AWS_ACCESS_KEY_ID and their like) from the environment of the node that they
run on: a local cluster inherits this process's, a remote one has its own. Nothing is sent, because
Ray shows and stores what is.

Source: https://docs.ray.io/en/latest/train/user-guides/fault-tolerance.html
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import ray
import ray.train
from ray.exceptions import AuthenticationError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.failures import FailureWatch, LaunchError, explained
from cluster.mailbox import Mailbox
from cluster.ranks import RanksConfig, train_rank
from data_loaders.errors import InputError
from data_loaders.storage import first_line
from trainer.config import Recipe
from trainer.progress import Listener, Progress

# What Ray reads from this process's environment; what the user has set stays.
SETTINGS = {
    # how soon an end or a failure is seen; 2 s by default
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_METRICS_ENABLED": "0",  # of ray.train.report, which nothing here calls
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # ranks stay in the working directory of their node
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's future default; without it every start warns
}
# A cluster that lives as long as one run, on one machine.
LOCAL_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # reports to the network, and says so on the terminal
    # a process that waits for the cloud to take the node away
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # idle processes that Ray Train, whose processes have an environment of their own, never uses
    "RAY_prestart_worker_first_driver": "0",
}
__all__ = ["LaunchError", "launch"]

CONNECT_TIMEOUT_SECONDS = 5.0
MAILBOX_WAIT_SECONDS = 0.5
# Waits of 60 s for room on the cluster, which others may use or a new node has to bring.
NUM_WAITS_FOR_ROOM = 10


def launch(
    recipe: Recipe,
    *,
    num_workers: int,
    address: str | None,
    use_gpu: bool | None = None,
    max_failures: int = 3,
    listener: Listener | None,
) -> None:
    """Trains a recipe on a Ray cluster; returns when the run's folder is complete.

    Args:
        recipe: with `run.uri` and `data.root` set to what every node can reach.
        num_workers: ranks; each takes a GPU, or a CPU where the cluster has no GPU.
        address: of a running cluster, `auto` or HOST:PORT; None starts one that ends with the run.
        use_gpu: None means "if the cluster has any".
        max_failures: how often failed ranks are started again.
        listener: told the progress of rank 0, in this thread.

    Raises:
        InputError: the cluster cannot be reached or is too small, or a rank raised it.
        LaunchError: failures that starting again did not cure.
    """
    assert recipe.run.uri is not None, "the command line chooses run.uri"
    with _settings(local=address is None), tempfile.TemporaryDirectory() as scratch:
        try:
            log_folder = _connect(address, num_workers=num_workers)
            scaling = _scaling(num_workers=num_workers, use_gpu=use_gpu, local=address is None)
            node = NodeAffinitySchedulingStrategy(
                ray.get_runtime_context().get_node_id(), soft=False
            )
            mailbox = ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=node).remote()
            trainer = DataParallelTrainer(
                train_rank,
                train_loop_config={
                    "recipe": recipe.model_dump(mode="json"),
                    "mailbox": mailbox if listener is not None else None,
                    "use_gpu": scaling.use_gpu,
                },
                backend_config=RanksConfig(),
                scaling_config=scaling,
                run_config=RunConfig(
                    name="polytower",
                    # for notes of the controller, which runs on this node; ranks report nothing
                    storage_path=scratch,
                    failure_config=FailureConfig(
                        max_failures=max_failures, controller_failure_limit=NUM_WAITS_FOR_ROOM
                    ),
                    callbacks=[FailureWatch(mailbox, max_failures=max_failures)],
                ),
            )
            failure = _fit(trainer, mailbox=mailbox, listener=listener)
        finally:
            ray.shutdown()
    if failure is not None:
        raise explained(failure, run_uri=recipe.run.uri, log_folder=log_folder) from None


def _connect(address: str | None, *, num_workers: int) -> str:
    """Starts a local cluster or joins one; returns the folder of its logs on this node."""
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
        context = ray.init(address=address, **quiet)
    except AuthenticationError as error:
        raise InputError(
            f"--address {address}: the cluster refused this machine's token; set "
            "RAY_AUTH_TOKEN_PATH (or RAY_AUTH_TOKEN) to the cluster's token"
        ) from error
    except (OSError, ValueError) as error:  # includes ConnectionError
        raise InputError(
            f"--address {address}: no Ray cluster there: {first_line(error)}; {remedy}"
        ) from error
    except RuntimeError as error:  # versions differ, or this machine is not a node
        text = " ".join(str(error).split())
        raise InputError(
            f"--address {address}: cannot join this Ray cluster: {text:.300}"
        ) from error
    return f"{context.address_info['session_dir']}/logs"


def _scaling(*, num_workers: int, use_gpu: bool | None, local: bool) -> ScalingConfig:
    """What each rank takes of the cluster.

    Raises:
        InputError: the cluster will never have that much.
    """
    capacity = _capacity()
    num_gpus, num_cpus = int(capacity.get("GPU", 0)), int(capacity.get("CPU", 0))
    if use_gpu is None:
        use_gpu = num_gpus > 0
    kind, found = ("GPU", num_gpus) if use_gpu else ("CPU", num_cpus)
    found = min(found, num_cpus)
    if num_workers > found:
        remedy = f"pass --workers {found} or fewer" if found else "run where there are some"
        raise InputError(
            f"--workers {num_workers}: expected {num_workers} {kind}s, one for each rank, found "
            f"{num_gpus} GPUs and {num_cpus} CPUs in the Ray cluster; {remedy}"
        )
    # Ray sets OMP_NUM_THREADS to a rank's CPUs; on nodes that others use too, a rank takes one
    cpus = num_cpus // num_workers if local else 1
    return ScalingConfig(
        num_workers=num_workers,
        use_gpu=use_gpu,
        resources_per_worker={"CPU": cpus} | ({"GPU": 1} if use_gpu else {}),
    )


def _capacity() -> Mapping[str, float]:
    """What the cluster has, or may grow to where it scales by itself."""
    from ray._private.state import state

    return state.get_max_resources_from_cluster_config() or ray.cluster_resources()


def _fit(
    trainer: DataParallelTrainer, *, mailbox: ray.actor.ActorHandle, listener: Listener | None
) -> Exception | None:
    """Runs to the end and passes on messages meanwhile; returns what made it fail.

    Ray Train runs in a thread: in the main thread it takes over Ctrl-C, and is deaf to it while
    ranks start. Here Ctrl-C raises KeyboardInterrupt, and the `ray.shutdown` behind it ends every
    process of the run.
    """
    failures: list[Exception] = []

    def fit() -> None:
        try:
            trainer.fit()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    while True:
        is_over = not thread.is_alive()
        for message in ray.get(mailbox.take.remote(0.0 if is_over else MAILBOX_WAIT_SECONDS)):
            if isinstance(message, Progress):
                assert listener is not None
                listener(message)
            else:
                print(message, file=sys.stderr, flush=True)
        if is_over:
            return failures[0] if failures else None


@contextlib.contextmanager
def _settings(*, local: bool) -> Iterator[None]:
    wanted = SETTINGS | (LOCAL_SETTINGS if local else {})
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
