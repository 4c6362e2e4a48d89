"""What ranks and the controller tell the driver while a run goes on.

Apart from the rest, so that the actor's process imports little.
"""

from __future__ import annotations

import asyncio
import contextlib

from trainer.progress import Progress


class Mailbox:
    """An actor that carries messages to the driver, in order; senders never wait."""

    def __init__(self) -> None:
        self._messages: list[Progress | str] = []
        self._arrived = asyncio.Event()

    async def put(self, message: Progress | str) -> None:
        self._messages.append(message)
        self._arrived.set()

    async def take(self, timeout_seconds: float) -> list[Progress | str]:
        """All messages since the last call, as soon as there is one; none after the timeout."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._arrived.wait(), timeout_seconds)
        messages, self._messages = self._messages, []
        self._arrived.clear()
        return messages
