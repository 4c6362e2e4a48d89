"""Which files a run reads: the same on every rank, and the same when the run is taken up.

RUN/log_files.json    name, size and digest of each training file, written when the run begins
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch.distributed as dist

from data_loaders.dataset import Split
from data_loaders.errors import StorageError, counted
from data_loaders.storage import Location

# size in bytes and digest of a file, by its name
LogFiles = Mapping[str, tuple[int, str]]


def _location(run: Location) -> Location:
    return run.child("log_files.json")


def write_log_files(run: Location, files: LogFiles) -> None:
    """Writes down what a run begins with."""
    lines = [
        f"  {json.dumps(name)}: {json.dumps({'bytes': num_bytes, 'digest': digest})}"
        for name, (num_bytes, digest) in files.items()
    ]
    _location(run).write_text("{\n" + ",\n".join(lines) + "\n}\n")


def read_log_files(run: Location) -> LogFiles | None:
    """What a run began with; None if nobody wrote it down.

    Raises:
        StorageError: it is damaged or out of reach.
    """
    location = _location(run)
    if not location.exists():
        return None
    try:
        return {
            name: (item["bytes"], item["digest"])
            for name, item in json.loads(location.read_text()).items()
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StorageError(
            f"{location.uri}: is damaged ({error}); delete it, or start another run.uri"
        ) from error


def changes_since_begun(run: Location, files: LogFiles) -> list[str]:
    """What differs between the training files now and those that a run began with, in words; none
    if nobody wrote those down.
    """
    begun_with = read_log_files(run)
    return [] if begun_with is None else differences(files, begun_with, split="train")


def differences(found: LogFiles, expected: LogFiles, *, split: Split) -> list[str]:
    """What has become of each file that is not as expected, in words, by name."""
    words = []
    for name in sorted({*found, *expected}):
        if name not in found:
            words.append(f"{split}/{name} has gone")
        elif name not in expected:
            words.append(f"{split}/{name} has come")
        elif found[name] != expected[name]:
            sizes = f"{expected[name][0]:,} bytes there, {found[name][0]:,} here"
            words.append(f"{split}/{name} has changed ({sizes})")
    return words


def check_ranks_agree(files: LogFiles, *, split: Split) -> None:
    """A file that comes or goes while ranks list the log would put them out of step; every rank
    must call.

    Raises:
        StorageError: another rank found other files.
    """
    digests = [""] * dist.get_world_size()
    mine = sorted(files.items())
    dist.all_gather_object(digests, hashlib.sha256(json.dumps(mine).encode()).hexdigest())
    if len(set(digests)) == 1:
        return
    by_rank: list[LogFiles] = [{} for _ in digests]
    dist.all_gather_object(by_rank, dict(files))
    for rank, theirs in enumerate(by_rank):
        if theirs != by_rank[0]:
            [word, *more] = differences(theirs, by_rank[0], split=split)
            others = f" and {counted(len(more), 'file')} more" if more else ""
            raise StorageError(
                f"{word}{others} between the moments when rank 0 and rank {rank} looked; "
                "a log must not change while a run begins: start it again"
            )
