"""What runs on every rank: the environment that `torch.distributed` needs, then `train()`."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
from ray.train.backend import Backend, BackendConfig

from trainer.config import Recipe

# A rank that only lost its peers waits, so that the controller sees first what the peer died of.
COLLATERAL_SECONDS = 1.0


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

    mailbox = config["mailbox"]
    listener = None if mailbox is None else mailbox.put.remote
    try:
        train(Recipe.model_validate(config["recipe"]), listener=listener)
    except RuntimeError:  # what torch.distributed raises when a peer is gone
        time.sleep(COLLATERAL_SECONDS)
        raise
