"""What went wrong on the ranks, in one line."""

from __future__ import annotations

from collections.abc import Mapping

from ray.exceptions import RayActorError

from data_loaders.errors import InputError
from data_loaders.storage import first_line, locate


class LaunchError(RuntimeError):
    """Ranks failed more often than is allowed, or the cluster did; the message is one line."""


def explained(failure: Exception, *, run_uri: str, log_folder: str) -> Exception:
    """The exception for the caller: a rank's `InputError` itself, or a `LaunchError`."""
    cause = getattr(failure, "controller_failure", failure)
    worker_failures = getattr(failure, "worker_failures", {})
    for error in (cause, *worker_failures.values()):
        if isinstance(error, InputError):
            return error
    if worker_failures:
        rank, text = root_cause(worker_failures)
        what = f"rank {rank} failed: {text}"
    else:
        what = f"Ray Train failed: {_in_words(cause)}"
    trace = locate(run_uri).child("failure.txt")
    try:
        trace.write_text(f"{failure}\n")
        where = f"{trace.uri}, logs: {log_folder}"
    except InputError:  # the storage may be what failed
        where = log_folder
    return LaunchError(f"{what}; full trace: {where}")


def root_cause(failures: Mapping[int, Exception]) -> tuple[int, str]:
    """The rank that failed first, as far as can be told, and why.

    A process that ended comes before an error that was raised, and that before the RuntimeError
    that torch.distributed raises when a peer is gone.
    """
    errors = {
        # set on Ray Train's error for a rank that does not answer
        rank: getattr(error, "health_check_failure", error)
        for rank, error in failures.items()
    }
    order = {
        rank: (not isinstance(error, RayActorError), isinstance(error, RuntimeError), rank)
        for rank, error in errors.items()
    }
    rank = min(errors, key=order.__getitem__)
    return rank, _in_words(errors[rank])


def _in_words(error: Exception) -> str:
    if isinstance(error, RayActorError):
        if "low on memory" in str(error):
            return "its node ran out of memory"
        return "its process was killed or its node was lost"
    return f"{type(error).__name__}: {first_line(error)}"
