"""What `polytower tune` draws from: a YAML file of recipe keys.

optimizer.dense.learning_rate: {loguniform: [1.0e-4, 1.0e-2]}
model.dropout:                 {uniform: [0, 0.5]}
model.num_experts:             {int: [2, 16]}
model.task_tower:              {choice: [[16], [32, 16]]}
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import yaml

from data_loaders.errors import InputError
from data_loaders.storage import locate

KINDS = ("choice", "loguniform", "uniform", "int")


class SearchSpace:
    """Values of some keys of a recipe.

    Args:
        keys: from a key to `{KIND: VALUES}`.
        source: for messages.

    Raises:
        InputError: naming the key.
    """

    def __init__(self, keys: Mapping[str, Any], *, source: str) -> None:
        if not isinstance(keys, Mapping) or not keys:
            raise InputError(f"{source}: expected keys of a recipe, found {keys!r:.60}")
        for key, domain in keys.items():
            if (
                not isinstance(domain, Mapping)
                or len(domain) != 1
                or next(iter(domain)) not in KINDS
            ):
                raise InputError(
                    f"{source}: {key}: expected one of {', '.join(KINDS)}, "
                    f"e.g. {{uniform: [0, 0.5]}}, found {domain!r:.60}"
                )
            [(kind, values)] = domain.items()
            _check_values(kind, values, where=f"{source}: {key}.{kind}")
        self.keys: dict[str, dict[str, Any]] = {key: dict(item) for key, item in keys.items()}

    def draw(self, *, seed: int, trial: int) -> dict[str, Any]:
        """A value for each key; a pure function of seed, trial and key, so that a key that is added
        leaves the others' values alone.
        """
        drawn = {}
        for key, domain in self.keys.items():
            random = np.random.default_rng((seed, trial, zlib.crc32(key.encode())))
            [(kind, values)] = domain.items()
            drawn[key] = _drawn(kind, values, random)
        return drawn


def read_space(uri: str) -> SearchSpace:
    """The search space in a YAML file.

    Raises:
        InputError: there is no such file, or it is not a search space.
    """
    location = locate(uri)
    if not location.exists():
        raise InputError(f"--space {uri}: no such file")
    try:
        return SearchSpace(yaml.safe_load(location.read_text()), source=uri)
    except yaml.YAMLError as error:
        raise InputError(f"{uri}: not YAML: {' '.join(str(error).split())}") from error


def overrides_of(values: Mapping[str, Any]) -> list[str]:
    """As on the command line of `polytower train`."""
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def _check_values(kind: str, values: Any, *, where: str) -> None:
    if kind == "choice":
        if not isinstance(values, list) or not values:
            raise InputError(f"{where}: expected a list of values, found {values!r:.60}")
        return
    wanted = (int,) if kind == "int" else (int, float)
    is_range = isinstance(values, list) and len(values) == 2
    if not is_range or any(isinstance(v, bool) or not isinstance(v, wanted) for v in values):
        what = "integers" if kind == "int" else "numbers (YAML reads 1e-4 as text: write 1.0e-4)"
        raise InputError(f"{where}: expected [low, high], two {what}, found {values!r:.60}")
    low, high = values
    if not low <= high or (kind == "loguniform" and low <= 0):
        above = " above 0" if kind == "loguniform" else ""
        raise InputError(f"{where}: expected low <= high{above}, found {values!r:.60}")


def _drawn(kind: str, values: Any, random: np.random.Generator) -> Any:
    if kind == "choice":
        return values[random.integers(len(values))]
    low, high = values
    if kind == "int":
        return int(random.integers(low, high, endpoint=True))
    if kind == "uniform":
        return float(random.uniform(low, high))
    return math.exp(random.uniform(math.log(low), math.log(high)))
