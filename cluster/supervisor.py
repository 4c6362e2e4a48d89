"""The process between the driver and the ranks."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import ray

from cluster.failures import explained
from trainer.progress import Progress


class Supervisor:
    """An actor that runs Ray Train, and carries messages to the driver in order.

    Ray Train blocks the process that calls it, and takes over its Ctrl-C. From an actor of its own
    it goes when the driver shuts Ray down, whatever it is doing.
    """

    def __init__(self) -> None:
        self._messages: list[Progress | str] = []
        self._arrived = asyncio.Event()

    async def tell(self, message: Progress | str) -> None:
        """Leaves a message for the driver; callers need not wait."""
        self._messages.append(message)
        self._arrived.set()

    async def take(self, timeout_seconds: float) -> list[Progress | str]:
        """All messages since the last call, as soon as there is one; none after the timeout."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._arrived.wait(), timeout_seconds)
        messages, self._messages = self._messages, []
        self._arrived.clear()
        return messages

    async def run(
        self, recipe: dict[str, Any], log_folder: str, **options: Any
    ) -> Exception | None:
        """Runs the ranks to their end; returns the exception for the caller of `launch`."""
        from cluster.ranks import run_ranks

        me = ray.get_runtime_context().current_actor
        try:
            await asyncio.to_thread(run_ranks, recipe, supervisor=me, **options)
        except Exception as error:
            return explained(error, run_uri=recipe["run"]["uri"], log_folder=log_folder)
        return None
