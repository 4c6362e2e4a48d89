"""What is wrong with a recipe, in one line: pydantic's complaints in the words of a recipe."""

from __future__ import annotations

import re
from types import UnionType
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from data_loaders.config import (
    BinaryTask,
    DenseFeature,
    DenseVectorFeature,
    IdFeature,
    IdListFeature,
    MulticlassTask,
    RankingTask,
    RegressionTask,
)
from data_loaders.errors import did_you_mean
from embeddings.config import TableConfig
from trainer.balance_config import AnyBalance
from trainer.history_config import AnyHistory
from trainer.model_config import AnyModel

# in words, what pydantic's types of errors say
EXPECTED = {
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "expected an integer"),
    **dict.fromkeys(("float_parsing", "float_type"), "expected a number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "expected true or false"),
    "string_type": "expected a string",
    "list_type": "expected a list",
}

# sections that are of the class that a word in them names
CHOICES: dict[str, tuple[str, Any]] = {
    "model": ("architecture", AnyModel),
    "balance": ("method", AnyBalance),
}

# the classes behind the words of `kind`
KINDS: dict[str, type[BaseModel]] = {
    "id": IdFeature,
    "id_list": IdListFeature,
    "dense": DenseFeature,
    "dense_vector": DenseVectorFeature,
    "binary": BinaryTask,
    "multiclass": MulticlassTask,
    "regression": RegressionTask,
    "ranking": RankingTask,
}


def first_complaint(error: ValidationError, *, root: type[BaseModel]) -> str:
    """Pydantic's first complaint in one line, with the nearest key for an unknown one.

    Args:
        error: of a recipe.
        root: the class of a recipe.
    """
    first = error.errors()[0]
    # a discriminated union puts its kind into the path, data.features.x.dense.meen, and a choice of
    # types the type, data.features.x.dense.mean.float
    is_union = first["loc"][:2] in (("data", "features"), ("data", "tasks"))
    is_choice = first["loc"][:1] in (("model",), ("balance",))
    is_history = first["loc"][2:3] == ("histories",)
    types_at = (3, 5) if is_union else (1, 4) if is_history else (1,) if is_choice else ()
    path = [
        str(part)
        for index, part in enumerate(first["loc"])
        if index not in types_at or isinstance(part, int)
    ]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        known = _keys_beside(tuple(first["loc"]), root=root)
        return f"{key}: unknown key; {did_you_mean(path[-1], known)}"
    if first["type"] == "missing":
        return f"{key}: is missing"
    if first["type"] == "union_tag_invalid":
        nearest = _nearest(first["ctx"]["tag"], first["ctx"]["expected_tags"])
        word = "encoder" if is_history else CHOICES[key][0] if is_choice else "kind"
        return f"{key}.{word}: {nearest}"
    if first["type"] == "union_tag_not_found" and is_history:
        return f"{key}.encoder: is missing; expected {' or '.join(choices(AnyHistory))}"
    if first["type"].startswith("union_tag"):
        features = "id, id_list, dense or dense_vector"
        tasks = "binary, multiclass, regression or ranking"
        kinds = tasks if path[1] == "tasks" else features
        return f"{key}: expected kind: {kinds}, found {first['input']!r:.60}"
    if first["type"] == "literal_error" and isinstance(first["input"], str):
        return f"{key}: {_nearest(first['input'], first['ctx']['expected'])}"
    if first["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{key}: expected a section with keys, found {first['input']!r:.60}"
    if first["type"] == "too_short":
        return f"{key}: is empty; expected at least one"
    if first["type"] == "value_error":  # ours; that of the whole recipe says where
        return f"{key}.{first['ctx']['error']}" if key else str(first["ctx"]["error"])
    may_fit = any(item["loc"][-1:] == ("literal['fit']",) for item in error.errors()[1:2])
    choice = " (or the word fit)" if may_fit else ""
    expected = EXPECTED.get(first["type"]) or first["msg"].replace(
        "Input should be", "expected a value", 1
    )
    return f"{key}: {expected}{choice}, found {first['input']!r:.60}"


def choices(union: Any) -> dict[str, type[BaseModel]]:
    """The classes of a discriminated union, by their words."""
    classes, field = get_args(union)
    return {
        get_args(item.model_fields[field.discriminator].annotation)[0]: item
        for item in get_args(classes)
    }


def yaml_complaint(error: yaml.YAMLError) -> str:
    """What is wrong with a YAML file, in one line that begins with the place."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"  # type: ignore[attr-defined]


def _nearest(word: str, quoted: str) -> str:
    """What is expected instead of `word`; `quoted` has the choices as pydantic writes them."""
    choices = re.findall(r"'([^']*)'", quoted)
    *others, last = choices
    expected = f"{', '.join(others)} or {last}" if others else last
    hint = did_you_mean(word, choices)
    # without a near one it lists them all, and they are listed already
    end = f"; {hint}" if hint.endswith("?") else ""
    return f"expected {expected}, found {word!r:.60}{end}"


def _keys_beside(loc: tuple[str | int, ...], *, root: type[BaseModel]) -> list[str]:
    """The keys that a section knows, following the error's path through the config classes."""
    known: Any = root
    for index, part in enumerate(loc[:-1]):
        field = known.model_fields.get(str(part))
        annotation: Any = field.annotation if field else None
        if isinstance(annotation, UnionType):  # of an optional section and None
            annotation = get_args(annotation)[0]
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            known = annotation
        elif index == 1 and loc[0] in CHOICES:
            known = choices(CHOICES[str(loc[0])][1])[str(part)]
        elif loc[:2] == ("embeddings", "tables"):
            known = TableConfig
        elif index == 3 and loc[1] in ("features", "tasks"):
            known = KINDS[str(part)]
        elif index == 4 and loc[2] == "histories":
            known = choices(AnyHistory)[str(part)]
    return list(known.model_fields)
