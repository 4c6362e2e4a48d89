"""The errors that a person can put right."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator

import numpy as np


class InputError(ValueError):
    """Something given to Polytower is wrong: a recipe, a log, a URI, a checkpoint.

    The message is one line that says what, where, expected, found and the remedy. The command line
    prints it as it is and exits with status 2; every other exception is a fault of Polytower and
    keeps its traceback.
    """


class SchemaError(InputError):
    """A log does not fit the recipe: a column is missing, of another type, or holds an impossible
    value.
    """


class WrongRowsError(SchemaError):
    """Some rows of a log hold an impossible value; the message tells of the first.

    Attributes:
        is_wrong_R: bool, all rows that do.
    """

    def __init__(self, message: str, *, is_wrong_R: np.ndarray) -> None:
        super().__init__(message)
        self.is_wrong_R = is_wrong_R


@contextlib.contextmanager
def wrong_rows_of(lengths_R: np.ndarray) -> Iterator[None]:
    """Makes an error about values one about the rows that they lie in.

    Args:
        lengths_R: int or bool, how many values each row has.

    Raises:
        WrongRowsError: a value is wrong.
    """
    try:
        yield
    except WrongRowsError as error:
        row_N = np.repeat(np.arange(len(lengths_R)), lengths_R)
        is_wrong_R = np.zeros(len(lengths_R), bool)
        is_wrong_R[row_N[error.is_wrong_R]] = True
        raise WrongRowsError(str(error), is_wrong_R=is_wrong_R) from None


class StorageError(InputError):
    """A URI cannot be read or written."""


class UnreachableError(StorageError):
    """An object store is at fault, and not what lies there: nothing is wrong with the log."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message: the known word that is nearest, or all that are known."""
    words = list(known)
    nearest = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f"did you mean {nearest[0]}?" if nearest else f"there are: {', '.join(words)}"


def counted(count: int, noun: str) -> str:
    """The count with its noun, in the plural if it is not 1."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
