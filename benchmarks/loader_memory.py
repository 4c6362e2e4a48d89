"""Peak memory of this project's loader, over logs that hold the same files 1, 10 and 100 times.

Each log is read in a process of its own, which imports what a training process imports of the data
side, reads an epoch and reports its peak resident memory. Row groups and files are of the same size
in all logs, there are only more of them; a loader that streams needs no more memory for them. The
smallest log does not fill the windows that rows are shuffled in (`data.shuffle_rows`), so memory
grows to the second one. From there on it must not.

    python -m benchmarks.loader_memory < request.json > memory.json
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data_loaders.config import DataConfig
from data_loaders.errors import InputError
from data_loaders.storage import Location

GROWTH = (1, 10, 100)


def measure_growth(
    config: DataConfig,
    *,
    files: Sequence[Location],
    num_rows: Mapping[str, int],
    seed: int,
    max_examples: int,
    growth: Sequence[int] = GROWTH,
    on_done: Callable[[int], None] = lambda done: None,
) -> list[dict[str, Any]]:
    """The loader's peak memory as a log grows.

    Args:
        config: the recipe's section `data`.
        files: of the training split; the first of them make the smallest log.
        num_rows: rows of the embedding table of each id feature.
        seed: of the shuffle.
        max_examples: of the smallest log, where its first file alone does not hold more.
        growth: how often the logs hold the files.
        on_done: told how many logs are done.

    Returns:
        per log `times`, how often it holds the files; `examples`, `files`, `file_bytes`;
        `imported_bytes`, resident before the loader is made; `peak_bytes`, the most that was
        resident, all in all.
    """
    measured = []
    with tempfile.TemporaryDirectory(prefix="polytower-memory-") as folder:
        sources = _copied(files, Path(folder) / "once", max_examples=max_examples)
        examples = sum(pq.read_metadata(path).num_rows for path in sources)
        for index, times in enumerate(growth):
            root = Path(folder) / f"times-{times}"
            _link(sources, root / "train", times=times)
            request = {
                "data": config.model_copy(update={"root": str(root)}).model_dump(mode="json"),
                "num_rows": dict(num_rows),
                "seed": seed,
            }
            child = _in_a_fresh_process(request)
            assert child["examples"] == examples * times
            measured.append({"times": times, **_facts(sources, times=times), **child})
            on_done(index + 1)
    return measured


def _facts(sources: Sequence[Path], *, times: int) -> dict[str, int]:
    """Of a log that holds the files so often."""
    num_bytes = sum(path.stat().st_size for path in sources)
    return {"files": len(sources) * times, "file_bytes": num_bytes * times}


def read_once(request: Mapping[str, Any]) -> dict[str, int]:
    """Reads an epoch in this process.

    Returns:
        `examples`, `imported_bytes` and `peak_bytes`, as `measure_growth` says.
    """
    from trainer.runtime import prepare_environment, quiet_libraries

    prepare_environment()
    quiet_libraries()
    from data_loaders.loader import InteractionLoader
    from data_loaders.streams import Cursor

    imported = _memory_bytes("VmRSS")
    loader = InteractionLoader(
        DataConfig.model_validate(request["data"]),
        split="train",
        num_rows=request["num_rows"],
        seed=request["seed"],
        rank=0,
        world_size=1,
    )
    batches = loader.batches(start=Cursor(), num_steps=loader.steps_per_epoch)
    examples = sum(int(batch.weights_B.sum()) for batch in batches)
    return {
        "examples": examples,
        "imported_bytes": imported,
        "peak_bytes": _memory_bytes("VmHWM"),
    }


def _copied(files: Sequence[Location], folder: Path, *, max_examples: int) -> list[Path]:
    """Local copies of the first files, at least one."""
    folder.mkdir()
    copies: list[Path] = []
    examples = 0
    for index, file in enumerate(files):
        with file.reporting("read"):
            examples += pq.read_metadata(file.path, filesystem=file.filesystem).num_rows
            if copies and examples > max_examples:
                break
            copies.append(folder / f"{index:05d}.parquet")
            with (
                file.filesystem.open_input_stream(file.path) as source,
                copies[-1].open("wb") as target,
            ):
                shutil.copyfileobj(source, target)
    return copies


def _link(sources: Sequence[Path], folder: Path, *, times: int) -> None:
    folder.mkdir(parents=True)
    for repeat in range(times):
        for source in sources:
            os.link(source, folder / f"part-{repeat:05d}-{source.name}")


def _in_a_fresh_process(request: Mapping[str, Any]) -> dict[str, int]:
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.loader_memory"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"measuring the loader's memory failed:\n{done.stderr}")
    measured: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _memory_bytes(name: str) -> int:
    """Of this process. Not `ru_maxrss`, which begins with what the parent process had."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError as error:
        raise InputError("measuring memory needs Linux (/proc/self/status)") from error
    [line] = [line for line in lines if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    print(json.dumps(read_once(json.load(sys.stdin))))
