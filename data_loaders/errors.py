"""The errors that a person can put right."""


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
