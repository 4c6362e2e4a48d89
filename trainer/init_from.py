"""Beginning with another run's values: its tables, its towers, or parts of them.

A recipe names what it takes by patterns over `tables.NAME` and the towers' own names, e.g.
`towers.architecture.*`. Optimizer states begin anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.distributed as dist
from torchrec.distributed.model_parallel import DistributedModelParallel

from data_loaders.errors import InputError, did_you_mean
from data_loaders.storage import Location, locate
from embeddings.planner import readable_name
from trainer.checkpoint import read_into, read_sizes
from trainer.config import InitFromConfig, Recipe
from trainer.evaluate import chosen_checkpoint
from trainer.manifest import read_manifest


def start_from(
    config: InitFromConfig,
    *,
    model: DistributedModelParallel,
    recipe: Recipe,
    group: dist.ProcessGroup | None,
) -> None:
    """Reads values of another run into a model, however its tables are cut; every rank must call.

    Of a run with a moving average, the average is taken, as it is what was evaluated.

    Args:
        config: of the recipe.
        model: to change.
        recipe: of this run.
        group: ranks, able to move CPU tensors.

    Raises:
        InputError: the other run has no checkpoint, or not what the patterns name, or its ids mean
            other rows.
    """
    location = chosen_checkpoint(locate(config.run))
    ours = {readable_name(key): item for key, item in sorted(model.state_dict().items())}
    chosen = _chosen(list(ours), config)
    sizes = read_sizes(location)
    # a table may be pooled there and looked up id by id here, and has another key then
    keys = [key.removeprefix("model.") for key in sizes if key.startswith("model.")]
    theirs = {readable_name(key): key for key in keys}
    found = {name: sizes[f"model.{key}"] for name, key in theirs.items()}
    _check_sizes({name: ours[name] for name in chosen}, sizes=found, location=location)
    _check_meanings(location, recipe, chosen)
    values = {theirs[name]: ours[name] for name in chosen}
    averaged = {key for key in values if f"average.values.{key}" in sizes}
    weight = torch.zeros((), dtype=torch.float64)
    state: dict[str, Any] = {
        "model": {key: item for key, item in values.items() if key not in averaged}
    }
    if averaged:
        state["average"] = {"values": {key: values[key] for key in averaged}, "weight": weight}
    with torch.no_grad():
        read_into(state, location=location, group=group)
        for key in averaged:
            values[key].div_(float(weight))


def _chosen(names: Sequence[str], config: InitFromConfig) -> list[str]:
    for pattern in config.parameters:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(
                f"init_from.parameters: {pattern} names nothing in this model; "
                f"{did_you_mean(pattern, names)}"
            )
    return [name for name in names if config.takes(name)]


def _check_sizes(
    chosen: Mapping[str, Any], *, sizes: Mapping[str, tuple[int, ...]], location: Location
) -> None:
    """What is taken must have the same shape there, of the same name."""
    wrong = []
    for name, item in chosen.items():
        size, found = tuple(item.size()), sizes.get(name)
        if size != found:
            wrong.append(f"{name} is {list(found) if found else 'not'} there, {list(size)} here")
    if wrong:
        more = f" and {len(wrong) - 1} more do not fit" if wrong[1:] else ""
        raise InputError(
            f"init_from: {location.uri}: {wrong[0]}{more}; "
            "leave them out of init_from.parameters, or use the model of that run"
        )


def _check_meanings(location: Location, recipe: Recipe, chosen: Sequence[str]) -> None:
    """The rows of a table that is taken must stand for the ids that they stand for here."""
    theirs = _meanings(read_manifest(location).recipe["data"]["features"])
    ours = _meanings(recipe.data.model_dump(mode="json")["features"])
    for name in chosen:
        table = name.removeprefix("tables.")
        if name.startswith("tables.") and theirs.get(table) != ours[table]:
            raise InputError(
                f"init_from: {location.uri}: the rows of table {table} are other ids there: its "
                "features' encoding, vocabulary or boundaries are not those here; give "
                "data.features.NAME.vocabulary of that run, or leave the table out"
            )


def _meanings(features: Mapping[str, Mapping[str, Any]]) -> dict[str, set[str]]:
    """By table, what brings ids into its rows."""
    found: dict[str, set[str]] = {}
    for name, feature in features.items():
        if "encoding" in feature:
            keys = ("encoding", "vocabulary_digest", "boundaries")
            meaning = json.dumps([feature.get(key) for key in keys])
            found.setdefault(feature.get("table") or name, set()).add(meaning)
    return found
