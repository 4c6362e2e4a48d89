"""What a loader leaves out of training under `data.on_error: skip`, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass

from data_loaders.errors import InputError


@dataclass(frozen=True)
class Skipped:
    """Rows of the log that could not be used.

    Attributes:
        uri: their file.
        num_rows: how many; None where that is not known.
        reason: what is wrong with them, in one line.
    """

    uri: str
    num_rows: int | None
    reason: str

    @classmethod
    def because(cls, error: InputError, *, uri: str, num_rows: int | None) -> Skipped:
        """Rows of a file that raised an error."""
        reason = str(error).removeprefix(f"{uri}: ")
        return cls(uri=uri, num_rows=num_rows, reason=reason)
