"""The errors that a person can put right."""

import difflib
from collections.abc import Iterable


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


class StorageError(InputError):
    """A URI cannot be read or written."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message: the known word that is nearest, or all that are known."""
    words = list(known)
    nearest = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f"did you mean {nearest[0]}?" if nearest else f"there are: {', '.join(words)}"
