"""Puts `train()` on the ranks of a Ray cluster, and back on them after a failure.

    launch() --> Supervisor --> Ray Train's controller --starts, polls, restarts--> train(recipe)
       ^             ^                    |                                           |
       +-- messages -+-- "a rank failed" -+------------- progress of rank 0 ----------+

A rank that fails (killed, out of memory, its node lost) makes Ray Train start all ranks anew, and
`train()` resumes itself from the newest complete checkpoint. An `InputError` would fail again, so
it ends the run at once and is raised here as it was raised there.

Ranks take credentials (AWS_ACCESS_KEY_ID and their like) from the environment of the node that they
run on: a local cluster inherits this process's, a remote one has its own. Nothing is sent, because
Ray shows and stores what is.

Source: https://docs.ray.io/en/latest/train/user-guides/fault-tolerance.html
"""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
from collections.abc import Mapping

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.connection import INIT_SETTINGS, connect, settings
from cluster.failures import LaunchError
from cluster.supervisor import Supervisor
from data_loaders.errors import InputError
from data_loaders.storage import first_line
from trainer.config import Recipe
from trainer.progress import Listener

# What Ray reads from the environment; what the user has set stays.
TRAIN_SETTINGS = {
    # how soon an end or a failure is seen; 2 s by default
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_METRICS_ENABLED": "0",  # of ray.train.report, which nothing here calls
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # ranks stay in the working directory of their node
}
# For a cluster that lives as long as one run, on one machine.
LOCAL_SETTINGS = {
    # a process that waits for the cloud to take the node away
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
MESSAGE_WAIT_SECONDS = 0.2

__all__ = ["LaunchError", "launch"]


def launch(
    recipe: Recipe,
    *,
    num_workers: int | None,
    address: str | None,
    use_gpu: bool | None = None,
    max_failures: int = 3,
    listener: Listener | None,
) -> None:
    """Trains a recipe on a Ray cluster; returns when the run's folder is complete.

    Args:
        recipe: with `run.uri` and `data.root` set to what every node can reach.
        num_workers: ranks; each takes a GPU, or a CPU where the cluster has no GPU. None means
            "all GPUs", or one rank without any.
        address: of a running cluster, `auto` or HOST:PORT; None starts one that ends with the run.
        use_gpu: None means "if the cluster has any".
        max_failures: how often failed ranks are started again.
        listener: told the progress of rank 0, in this thread.

    Raises:
        InputError: the cluster cannot be reached or is too small, or a rank raised it.
        LaunchError: failures that starting again did not cure.
    """
    assert recipe.run.uri is not None, "the command line chooses run.uri"
    is_local = address is None
    with settings(INIT_SETTINGS if is_local else {}), tempfile.TemporaryDirectory() as scratch:
        try:
            log_folder = connect(address)
            share = _share(num_workers=num_workers, use_gpu=use_gpu, is_local=is_local)
            supervisor = _start_supervisor(TRAIN_SETTINGS | (LOCAL_SETTINGS if is_local else {}))
            run = supervisor.run.remote(
                recipe.model_dump(mode="json"),
                log_folder=log_folder,
                **dataclasses.asdict(share),
                max_failures=max_failures,
                is_heard=listener is not None,
                scratch=scratch,
            )
            failure = _wait_for(run, supervisor=supervisor, listener=listener)
        except RayActorError as error:
            raise LaunchError(
                f"the process that supervises the ranks ended: {first_line(error)}"
            ) from error
        finally:
            ray.shutdown()  # ends every process of the run
    if failure is not None:
        raise failure


@dataclasses.dataclass(frozen=True)
class _Share:
    """How many ranks, and what each takes of the cluster."""

    num_workers: int
    use_gpu: bool
    cpus_per_worker: int


def _share(*, num_workers: int | None, use_gpu: bool | None, is_local: bool) -> _Share:
    """Of the cluster that this process is connected to.

    Raises:
        InputError: the cluster will never have that much.
    """
    capacity = _capacity()
    num_gpus, num_cpus = int(capacity.get("GPU", 0)), int(capacity.get("CPU", 0))
    if use_gpu is None:
        use_gpu = num_gpus > 0
    kind, found = ("GPU", min(num_gpus, num_cpus)) if use_gpu else ("CPU", num_cpus)
    num_workers = num_workers or (max(1, found) if use_gpu else 1)
    if num_workers > found:
        remedy = f"pass --workers {found} or fewer" if found else "run where there are some"
        raise InputError(
            f"--workers {num_workers}: expected {num_workers} {kind}s, one for each rank, found "
            f"{num_gpus} GPUs and {num_cpus} CPUs in the Ray cluster; {remedy}"
        )
    # Ray sets OMP_NUM_THREADS to a rank's CPUs; on nodes that others use too, a rank takes one
    return _Share(num_workers, use_gpu, num_cpus // num_workers if is_local else 1)


def _capacity() -> Mapping[str, float]:
    """What the cluster has, or may grow to where it scales by itself."""
    from ray._private.state import state

    limits: Mapping[str, float] | None = state.get_max_resources_from_cluster_config()
    return limits or ray.cluster_resources()


def _start_supervisor(settings: Mapping[str, str]) -> ActorHandle:
    """On this node; its environment is passed on to the controller and the ranks."""
    node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    environment = {name: os.environ.get(name, value) for name, value in settings.items()}
    options = {"num_cpus": 0, "scheduling_strategy": node, "runtime_env": {"env_vars": environment}}
    return ray.remote(Supervisor).options(**options).remote()


def _wait_for(
    run: ray.ObjectRef, *, supervisor: ActorHandle, listener: Listener | None
) -> Exception | None:
    """Passes on messages until the run has ended; returns its failure."""
    while True:
        is_over = bool(ray.wait([run], timeout=0)[0])
        for message in ray.get(supervisor.take.remote(0.0 if is_over else MESSAGE_WAIT_SECONDS)):
            if isinstance(message, str):
                print(message, file=sys.stderr, flush=True)
            elif listener is not None:
                listener(message)
        if is_over:
            failure: Exception | None = ray.get(run)
            return failure
