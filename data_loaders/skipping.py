"""What a loader leaves out of training under `data.on_error: skip`, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Skipped:
    """Rows of the log that could not be used.

    Attributes:
        uri: their file.
        num_rows: how many.
        reason: what is wrong with them, in one line.
    """

    uri: str
    num_rows: int
    reason: str
