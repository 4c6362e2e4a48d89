"""`train()` on every rank under Ray Train, with the environment that `torch.distributed` needs."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
from ray.actor import ActorHandle
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.backend import Backend, BackendConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from cluster.failures import root_cause
from data_loaders.errors import InputError, StorageError
from trainer.config import Recipe

# A rank that only lost its peers waits, so that the controller sees first what the peer died of.
COLLATERAL_SECONDS = 1.0
# Waits of 60 s for room on the cluster, which others may use or a new node has to bring.
NUM_WAITS_FOR_ROOM = 10


def run_ranks(
    recipe: dict[str, Any],
    *,
    supervisor: ActorHandle,
    num_workers: int,
    use_gpu: bool,
    cpus_per_worker: int,
    max_failures: int,
    is_heard: bool,
    scratch: str,
) -> None:
    """Runs `train()` on all ranks to their end, and again after a failure.

    Args:
        recipe: as JSON.
        supervisor: told of progress and restarts.
        is_heard: whether anyone wants the progress.
        scratch: folder on this node for the controller's notes; ranks report nothing.

    Raises:
        TrainingFailedError: ranks failed too often, or with an `InputError`.
    """
    resources = {"CPU": cpus_per_worker} | ({"GPU": 1} if use_gpu else {})
    trainer = DataParallelTrainer(
        train_rank,
        train_loop_config={
            "recipe": recipe,
            "supervisor": supervisor if is_heard else None,
            "use_gpu": use_gpu,
        },
        backend_config=RanksConfig(),
        scaling_config=ScalingConfig(
            num_workers=num_workers, use_gpu=use_gpu, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name="polytower",
            storage_path=scratch,
            failure_config=FailureConfig(
                max_failures=max_failures, controller_failure_limit=NUM_WAITS_FOR_ROOM
            ),
            callbacks=[FailureWatch(supervisor, max_failures=max_failures)],
        ),
    )
    trainer.fit()


class FailureWatch(UserCallback):
    """In the controller: ends the run on an `InputError`, tells the driver of any other failure.

    A `StorageError` may have passed by the next attempt; the same one twice in a row has not.
    """

    def __init__(self, supervisor: ActorHandle, *, max_failures: int) -> None:
        self._supervisor = supervisor
        self._num_restarts_left = max_failures
        self._storage_errors: set[str] = set()

    def after_exception(self, run_context: object, worker_exceptions: dict[int, Exception]) -> None:
        errors = worker_exceptions.values()
        for error in errors:
            if isinstance(error, InputError) and (
                not isinstance(error, StorageError) or str(error) in self._storage_errors
            ):
                raise error  # the controller retries failures of ranks, but never of callbacks
        self._storage_errors = {str(error) for error in errors if isinstance(error, StorageError)}
        if self._num_restarts_left > 0:
            self._num_restarts_left -= 1
            rank, cause = root_cause(worker_exceptions)
            self._supervisor.tell.remote(
                f"rank {rank} failed ({cause}); restarting from the newest checkpoint"
            )


@dataclass
class RanksConfig(BackendConfig):
    """Ray Train's TorchConfig, less its import of torch in the driver and in the controller."""

    @property
    def backend_cls(self) -> type[Backend]:
        return RanksBackend


class RanksBackend(Backend):
    """Sets the environment that `torch.distributed` reads; `train()` makes the process group."""

    # NCCL's peer-to-peer wants every rank to see the GPUs of the others
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        address, port = worker_group.execute_single(0, _free_port)
        worker_group.execute(_set_rank_environment, address=address, port=port)


def _free_port() -> tuple[str, int]:
    with socket.create_server(("", 0)) as server:
        return ray.util.get_node_ip_address(), server.getsockname()[1]


def _set_rank_environment(*, address: str, port: int) -> None:
    context = ray.train.get_context()
    os.environ.update(
        MASTER_ADDR=address,
        MASTER_PORT=str(port),
        RANK=str(context.get_world_rank()),
        WORLD_SIZE=str(context.get_world_size()),
        LOCAL_RANK=str(context.get_local_rank()),
        LOCAL_WORLD_SIZE=str(context.get_local_world_size()),
        NODE_RANK=str(context.get_node_rank()),
    )


def train_rank(config: dict[str, Any]) -> None:
    """What Ray Train runs on every rank."""
    from trainer.runtime import prepare_environment, quiet_libraries

    prepare_environment()
    quiet_libraries()
    if not config["use_gpu"]:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch looks
    from trainer.loop import train

    supervisor = config["supervisor"]
    listener = None if supervisor is None else supervisor.tell.remote
    try:
        train(Recipe.model_validate(config["recipe"]), listener=listener)
    except RuntimeError:  # what torch.distributed raises when a peer is gone
        time.sleep(COLLATERAL_SECONDS)
        raise
