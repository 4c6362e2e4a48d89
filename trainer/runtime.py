"""The process that a rank runs in: environment, process group, device, and the silence of
libraries."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# What is set here must be set before the libraries load. Tables in huge pages make the CPU lookup a
# third faster (docs/log.md); PyTorch asks for them only if told to.
# pyarrow 26 sends chunked trailing checksums, which many S3-compatible stores refuse, or store with
# the object.
# Arrow's memory pool gives freed memory back to the system after 10 ms, and takes it anew for the
# next row group.
ENVIRONMENT = {
    "THP_MEM_ALLOC_ENABLE": "1",
    "MIMALLOC_PURGE_DELAY": "1000",  # ms
    "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
}


@dataclass(frozen=True)
class Runtime:
    """This rank's place among the others.

    Attributes:
        rank: 0 to world_size - 1.
        world_size: number of ranks.
        local_world_size: ranks on this machine.
        device_type: cpu or cuda.
        device_index: of the GPU; 0 on CPU.
    """

    rank: int
    world_size: int
    local_world_size: int
    device_type: str
    device_index: int

    @property
    def device(self) -> torch.device:
        import torch

        if self.device_type == "cpu":
            # not cpu:0, which .to() takes for another device than cpu: it would copy, and cut
            # data-parallel tables off from the parameters that the optimizer steps
            return torch.device("cpu")
        return torch.device(self.device_type, self.device_index)


def prepare_environment() -> None:
    """Sets what libraries read from the environment; what the user has set stays."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def quiet_libraries() -> None:
    """Silences, by name, what libraries say that a user can do nothing about."""
    # torch.fx and TorchRec log at import and at every sharding; none of it is about the user's
    # model
    for name in ("torchrec", "torch.fx._symbolic_trace", "torch.distributed.distributed_c10d"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # TorchRec's planner misses a sharding spec of data-parallel tables, which need none
    logging.getLogger().addFilter(_is_about_more_than_a_spec)
    # TorchRec 1.8 builds ShardedTensor, which torch 2.13 deprecates in favour of DTensor
    warnings.filterwarnings("ignore", message=".*ShardedTensor.*", category=FutureWarning)
    # its data-parallel lookup on CPU has a gradient (tests/embeddings/test_lookup.py), which it
    # registers in a way that torch 2.13 warns about
    unregistered = "fbgemm::dense_embedding_codegen_lookup_function: an autograd kernel was not"
    warnings.filterwarnings("ignore", message=unregistered, category=UserWarning)
    # it calls these two collectives by their old names
    renamed = r"`torch\.distributed\.(reduce_scatter_tensor|all_gather_into_tensor)` is deprecated"
    warnings.filterwarnings("ignore", message=renamed, category=FutureWarning)
    # TorchRec 1.8 wraps the towers in DistributedDataParallel with the argument's old name
    warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
    # matplotlib tells of its caches, where there are none yet, or none that it may write
    logging.getLogger("matplotlib").setLevel(logging.ERROR)


def _is_about_more_than_a_spec(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("Sharding spec not found")


def seed_step(seed: int, *, step: int, rank: int) -> None:
    """What a step draws, like dropout, depends on these alone, so a resumed run draws the same."""
    import torch

    torch.manual_seed(((seed * 1_000_003 + step) * 1_000_003 + rank) % 2**63)


def rank_memory_bytes(*, device_type: str, local_world_size: int) -> int:
    """What one rank may use: a GPU's memory, or its share of this machine's."""
    if device_type == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return machine // local_world_size


@contextlib.contextmanager
def joined_ranks() -> Iterator[Runtime]:
    """Joins the process group that the launcher set up, or makes a group of one.

    Ray Train and torchrun set RANK, LOCAL_RANK and WORLD_SIZE; without them this process trains
    alone.
    """
    import torch
    import torch.distributed as dist

    prepare_environment()
    quiet_libraries()
    device_type = "cuda" if torch.cuda.is_available() else "cpu"
    device_index = int(os.environ.get("LOCAL_RANK", "0")) if device_type == "cuda" else 0
    if device_type == "cuda":
        torch.cuda.set_device(device_index % torch.cuda.device_count())
        device_index = torch.cuda.current_device()
    owned = not dist.is_initialized()
    if owned:
        backend = "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo"
        if "WORLD_SIZE" in os.environ:
            dist.init_process_group(backend)
        else:
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield Runtime(
            rank=dist.get_rank(),
            world_size=dist.get_world_size(),
            local_world_size=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
            device_type=device_type,
            device_index=device_index,
        )
    finally:
        if owned:
            dist.destroy_process_group()
