"""Runs a function on several ranks: real processes, joined by gloo, on this machine."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

# A server process imports this once; every rank is a fork of it and pays no import.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.helpers.rank_imports"])

TIMEOUT_SECONDS = 120.0


def run_ranks(
    function: Callable[..., Any],
    *,
    world_size: int,
    arguments: Mapping[str, Any] | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> list[Any]:
    """Calls `function(**arguments)` on every rank of a process group.

    Args:
        function: at the top level of its module; finds its rank by `torch.distributed`.
        world_size: number of ranks.
        arguments: picklable.
        timeout_seconds: until all ranks are killed.

    Returns:
        Each rank's result, by rank.

    Raises:
        Exception: of the first rank to fail, its traceback as a note; the others are killed.
        TimeoutError: some rank did not end in time.
    """
    with tempfile.TemporaryDirectory() as folder:
        pipes = [_CONTEXT.Pipe(duplex=False) for _ in range(world_size)]
        ranks = [
            _CONTEXT.Process(
                target=_rank_main,
                args=(send, function, dict(arguments or {}), rank, world_size, f"{folder}/store"),
                daemon=True,
            )
            for rank, (_, send) in enumerate(pipes)
        ]
        try:
            for process, (_, send) in zip(ranks, pipes, strict=True):
                process.start()
                send.close()
            return _results(ranks, [receive for receive, _ in pipes], seconds=timeout_seconds)
        finally:
            for process in ranks:
                process.kill()
                process.join()
                process.close()
            for receive, _ in pipes:
                receive.close()


def _results(ranks: list[BaseProcess], pipes: list[Connection], *, seconds: float) -> list[Any]:
    deadline = time.monotonic() + seconds
    results: dict[int, Any] = {}
    while len(results) < len(pipes):
        waiting = [pipe for rank, pipe in enumerate(pipes) if rank not in results]
        ready = multiprocessing.connection.wait(waiting, deadline - time.monotonic())
        if not ready:
            missing = [rank for rank in range(len(pipes)) if rank not in results]
            raise TimeoutError(f"ranks {missing} did not end within {seconds:g} s")
        for pipe in ready:
            rank = pipes.index(pipe)  # type: ignore[arg-type]
            try:
                results[rank], error = pickle.loads(pipes[rank].recv_bytes())
            except EOFError:
                ranks[rank].join()
                code = ranks[rank].exitcode
                raise RuntimeError(f"rank {rank} of {len(pipes)} died: exit code {code}") from None
            if error is not None:
                raise error
    return [results[rank] for rank in range(len(pipes))]


def _rank_main(
    pipe: Connection,
    function: Callable[..., Any],
    arguments: dict[str, Any],
    rank: int,
    world_size: int,
    store: str,
) -> None:
    import torch
    import torch.distributed as dist

    from tests.helpers import rank_imports  # noqa: F401  # where preloading it failed, says why
    from trainer.runtime import quiet_libraries

    quiet_libraries()
    torch.set_num_threads(1)
    for name in ("", "LOCAL_"):
        os.environ |= {f"{name}RANK": str(rank), f"{name}WORLD_SIZE": str(world_size)}
    try:
        dist.init_process_group(
            "gloo", store=dist.FileStore(store, world_size), rank=rank, world_size=world_size
        )
        dist.barrier()  # a rank that ended at once would fail those that still connect to it
        outcome = (function(**arguments), None)
        content = pickle.dumps(outcome)  # by value: a rank's shared memory would end with it
        dist.destroy_process_group()
    except BaseException as error:  # raised again by the caller of run_ranks
        content = _packed(error, rank=rank)
    pipe.send_bytes(content)
    pipe.close()
    os._exit(0)  # threads of gloo that wait for a failed rank would hold up an ordinary exit


def _packed(error: BaseException, *, rank: int) -> bytes:
    text = traceback.format_exc()
    error.__cause__ = error.__context__ = None
    error.add_note(f"on rank {rank}:\n{text}")
    try:
        content = pickle.dumps((None, error))
        pickle.loads(content)
    except Exception:  # whatever the exception holds, its text arrives
        return pickle.dumps((None, RuntimeError(f"on rank {rank}:\n{text}")))
    return content
