"""What an interrupted `polytower prepare` or `generate` left behind: told from data, and deleted
before another begins.
"""

from __future__ import annotations

from pydantic import ValidationError

from data_loaders.dataset import SPLITS, DatasetInfo, begin_dataset, refuse_existing
from data_loaders.errors import StorageError
from data_loaders.storage import Location

PREPARE = "polytower prepare"
OWN_NAMES = (*SPLITS, "rejected", "vocabularies", "_staging", "dataset.json")


def refuse_all_but_unfinished(root: Location, *, command: str = PREPARE) -> None:
    """Accepts an empty folder, and one that holds what an interrupted call of `command` left and
    nothing else.

    Raises:
        StorageError: it holds something else.
    """
    if not _is_unfinished(root, command=command):
        refuse_existing(root)
    for child in root.children():
        is_torn = child.name.startswith("dataset.json.")  # while it was being written
        if child.name not in OWN_NAMES and not is_torn:
            raise StorageError(
                f"{child.uri}: lies in a data set that is incomplete, and is no part of it; "
                "give another --out, or delete it first"
            )


def begin_anew(root: Location, *, name: str, command: str = PREPARE) -> None:
    """Marks the data set as one that is being written, after deleting what is left of another."""
    for child in root.children():
        if child.name != "dataset.json":
            child.delete()
    root.child("dataset.json").delete()  # last: without it the rest could not be told from data
    begin_dataset(root, name=name, description=_begun_by(command))


def _begun_by(command: str) -> str:
    return f"being written by {command}"


def _is_unfinished(root: Location, *, command: str) -> bool:
    location = root.child("dataset.json")
    if not location.exists():
        return False
    try:
        info = DatasetInfo.model_validate_json(location.read_text())
    except ValidationError:
        return False
    return not info.splits and info.description == _begun_by(command)
