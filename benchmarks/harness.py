"""Fair timing: what is compared takes turns in one run, and the samples are kept."""

from __future__ import annotations

import dataclasses
import os
import platform
import random
import subprocess
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from data_loaders.errors import InputError
from trainer.runtime import Runtime

# Prepares one turn, untimed, and returns what is timed.
Action = Callable[[int], Callable[[], object]]
# Told a phase, the rounds done and the rounds in all.
ProgressCallback = Callable[[str, int, int], None]

WARM_UP_ROUNDS = 2

# Far beyond any last-level cache.
STREAM_BYTES = 256 * 2**20


def interleaved_samples(
    actions: Mapping[str, Action],
    *,
    num_rounds: int,
    num_warm_up_rounds: int = WARM_UP_ROUNDS,
    seed: int,
    device: torch.device,
    on_round: Callable[[int], None] = lambda done: None,
) -> dict[str, np.ndarray]:
    """Times every action once a round, so that a noisy machine disturbs them alike.

    The order is drawn anew in every round: what an action leaves in the caches then favours none.

    Args:
        actions: by name; each is called with the number of the round, then what it returns is
            timed.
        num_rounds: timed.
        num_warm_up_rounds: not timed, before the others.
        seed: of the orders.
        device: waited for before and after each turn.
        on_round: told the timed rounds that are done.

    Returns:
        seconds by name, float64 (num_rounds,); the same index is the same round.
    """
    order = random.Random(seed)
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(-num_warm_up_rounds, num_rounds):
        for name in order.sample(list(actions), len(actions)):
            timed = actions[name](turn)
            _wait_for(device)
            started = time.perf_counter()
            timed()
            _wait_for(device)
            elapsed = time.perf_counter() - started
            if turn >= 0:
                seconds[name].append(elapsed)
        on_round(max(0, turn + 1))
    return {name: np.array(values) for name, values in seconds.items()}


def chosen_runtime(
    joined: Runtime, *, device: Literal["cpu", "cuda"] | None, benchmark: str
) -> Runtime:
    """The rank, on the device that is asked for; the rank's own where none is.

    Raises:
        InputError: there are several ranks, or no such device.
    """
    if joined.world_size != 1:
        raise InputError(
            f"the {benchmark} benchmark measures one rank, but {joined.world_size} were launched; "
            "start it without torchrun or Ray"
        )
    if device == "cuda" and joined.device_type != "cuda":
        raise InputError("device: cuda asked for, but PyTorch sees no GPU; use --device cpu")
    if device == "cpu":
        return dataclasses.replace(joined, device_type="cpu", device_index=0)
    return joined


def stream_actions(device: torch.device) -> dict[str, Action]:
    """Reading and copying a tensor too large for any cache: what the memory can do at best."""
    source = torch.ones(STREAM_BYTES // 4, device=device)
    target = torch.empty_like(source)
    return {
        "stream_read": lambda turn: source.sum,
        "stream_copy": lambda turn: lambda: target.copy_(source),
    }


def peak_bandwidth_gb_per_second(samples: Mapping[str, np.ndarray]) -> float:
    """The fastest round of the stream actions; a copy moves every byte twice.

    A peak is what the memory can do: a median would fall with a busy machine, and flatter whoever
    is compared with it.
    """
    read, copy = samples["stream_read"].min(), samples["stream_copy"].min()
    return float(max(STREAM_BYTES / read, 2 * STREAM_BYTES / copy) / 1e9)


def in_milliseconds(seconds: np.ndarray) -> dict[str, Any]:
    """Median, p10, p90 and the samples themselves."""
    p10, median, p90 = (float(value) for value in np.percentile(seconds * 1e3, [10, 50, 90]))
    return {
        "median_ms": median,
        "p10_ms": p10,
        "p90_ms": p90,
        "samples_ms": [round(value * 1e3, 4) for value in seconds.tolist()],
    }


def environment(device: torch.device) -> dict[str, Any]:
    """What a result depends on and a reader needs; nothing that names the machine or its user."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu_model": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 1),
        "huge_page_fraction": _huge_page_fraction(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchrec": _version("torchrec"),
        "fbgemm": _version("fbgemm-gpu-cpu") or _version("fbgemm-gpu"),
        "pyarrow": _version("pyarrow"),
        "ray": _version("ray"),
        "git_commit": _git_commit(),
    }


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def _huge_page_fraction() -> float | None:
    """Of this process' memory: random rows are read a third faster with huge pages."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        return round(sizes["AnonHugePages"] / sizes["Rss"], 3)
    except (OSError, KeyError):
        return None


def _git_commit() -> str | None:
    """Of the checkout that this file lies in; `-dirty` where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
