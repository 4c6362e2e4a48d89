"""Recipes as files: YAML read, overridden, checked, and written again.

A key is overridden by `section.key=value`, the value being YAML.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import yaml
from pydantic import ValidationError

from data_loaders.errors import InputError, did_you_mean
from data_loaders.storage import locate
from trainer.config import Recipe
from trainer.recipe_errors import CHOICES, choices, first_complaint, yaml_complaint


class RecipeError(InputError):
    """A recipe, or an override of it, is wrong; the message names the key."""


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with Polytower."""
    folder = resources.files("trainer.recipes")
    return sorted(
        item.name[: -len(".yaml")] for item in folder.iterdir() if item.name.endswith(".yaml")
    )


def load_recipe(source: str, *, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe, applies overrides, and checks the result.

    Args:
        source: a shipped recipe's name, or the path or URI of a YAML file.
        overrides: `section.key=value`, the later ones winning.

    Raises:
        RecipeError: no such recipe, not YAML, an unknown key (with the nearest one), or a wrong
            value.
    """
    return build_recipe(_read(source), overrides=overrides, source=source)


def build_recipe(tree: Mapping[str, Any], *, overrides: Sequence[str], source: str) -> Recipe:
    """The checked recipe of a YAML tree.

    Raises:
        RecipeError: as `load_recipe`.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(tree))
    keys = [_override(changed, text) for text in overrides]
    length = {"run.num_steps", "run.num_epochs"}
    if len(length.intersection(keys)) == 1:  # the length that is asked for replaces the recipe's
        (other,) = length.difference(keys)
        changed["run"].pop(other.partition(".")[2], None)
    _drop_keys_of_other_choices(changed, keys=keys)
    try:
        return Recipe.model_validate(changed)
    except ValidationError as error:
        explained = first_complaint(error, root=Recipe)
        is_override = any(explained.startswith(key) for key in keys)
        raise RecipeError(f"{'command line' if is_override else source}: {explained}") from error


def _drop_keys_of_other_choices(tree: dict[str, Any], *, keys: Sequence[str]) -> None:
    """Another architecture, or method, on the command line leaves behind what it does not know."""
    for section, (word, union) in CHOICES.items():
        if f"{section}.{word}" in keys and (chosen := choices(union).get(tree[section][word])):
            tree[section] = {
                key: value
                for key, value in tree[section].items()
                if key in chosen.model_fields or f"{section}.{key}" in keys
            }


def flat_keys(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The values of a recipe's tree by their keys, e.g. `run.seed`."""
    if not isinstance(tree, dict):
        return {prefix.rstrip("."): tree}
    return {
        key: value
        for name, node in tree.items()
        for key, value in flat_keys(node, f"{prefix}{name}.").items()
    }


def differing_keys(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Of two recipes by `flat_keys`, in their order."""
    return [key for key in dict.fromkeys([*one, *other]) if one.get(key) != other.get(key)]


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, width=120)


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader, which lets the later of two equal keys win, in silence; this one not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.YAMLError(f"{key.value} stands twice: line {key.start_mark.line + 1}")
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _read(source: str) -> dict[str, Any]:
    if source in shipped_recipes():
        text = resources.files("trainer.recipes").joinpath(f"{source}.yaml").read_text()
    else:
        location = locate(source)
        if not location.exists():
            raise RecipeError(
                f"{source}: no such file, and no recipe that ships with Polytower; "
                f"{did_you_mean(source, shipped_recipes())}"
            )
        text = location.read_text()
    try:
        tree = yaml.load(text, _UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise RecipeError(f"{source}: not YAML: {yaml_complaint(error)}") from error
    if not isinstance(tree, dict):
        raise RecipeError(
            f"{source}: expected sections (data, embeddings, ...), found {tree!r:.60}"
        )
    run = tree.setdefault("run", {})
    if isinstance(run, dict):
        run.setdefault("name", source.rpartition("/")[2].removesuffix(".yaml"))
    return tree


def _override(tree: dict[str, Any], text: str) -> str:
    """Applies `section.key=value`; returns the key."""
    key, mark, value = text.partition("=")
    if not mark or "." not in key:
        raise RecipeError(f"{text}: expected section.key=value, e.g. run.num_steps=100")
    *sections, last = key.split(".")
    node = tree
    for section in sections:
        child = node.setdefault(section, {})
        if not isinstance(child, dict):
            raise RecipeError(f"{text}: {section} is a value, not a section")
        node = child
    try:
        node[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"{text}: the value is not YAML; quote it") from error
    return key
