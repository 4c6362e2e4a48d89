"""Whether a recipe's section `model` fits its features, tables and tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from data_loaders.config import DataConfig
from data_loaders.errors import did_you_mean
from trainer.model_config import ChainConfig, DbmtlConfig, GatedConfig, HomeConfig, ModelConfig

# interactions that multiply the vectors of features with one another
MULTIPLIES_VECTORS = ("dot", "fm")


def check_model(model: ModelConfig, *, data: DataConfig, id_widths: Mapping[str, int]) -> None:
    """Refuses names that the recipe has not, and what cannot be computed.

    Args:
        model: the section.
        data: features and tasks.
        id_widths: of each id feature's vector.

    Raises:
        ValueError: beginning with the key.
    """
    _check_interaction(model, id_widths=id_widths)
    if isinstance(model, GatedConfig):
        _check_gate_features(model.gate_features, features=data.features)
    if isinstance(model, ChainConfig):
        _check_chain(model, data=data)
    if isinstance(model, DbmtlConfig):
        _check_network("model.depends_on", model.depends_on, tasks=data.tasks)
    if isinstance(model, HomeConfig) and model.groups:
        _check_groups(model.groups, tasks=data.tasks)


def _check_interaction(model: ModelConfig, *, id_widths: Mapping[str, int]) -> None:
    if model.interaction not in MULTIPLIES_VECTORS:
        return
    first, *others = id_widths
    for name in others:
        if id_widths[name] != id_widths[first]:
            raise ValueError(
                f"model.interaction: {model.interaction} needs tables of one dim, found "
                f"{id_widths[first]} for {first} and {id_widths[name]} for {name}; "
                "give them one, or use concat or dcn"
            )


def _check_gate_features(names: Sequence[str], *, features: Mapping[str, object]) -> None:
    for index, name in enumerate(names):
        if name not in features:
            raise ValueError(
                f"model.gate_features: no feature {name}; {did_you_mean(name, features)}"
            )
        if name in names[:index]:
            raise ValueError(f"model.gate_features: {name} stands twice")


def _check_chain(model: ChainConfig, *, data: DataConfig) -> None:
    after = model.after
    _check_network("model.after", {name: [after[name]] for name in after}, tasks=data.tasks)
    for name in dict.fromkeys([*after, *after.values()]):
        if data.tasks[name].kind != "binary":
            raise ValueError(
                f"model.after: expected tasks of kind binary, found {name}: {data.tasks[name].kind}"
            )
    for name in after:
        where, before = data.tasks[name].where, after.get(name)
        while where is not None and before is not None:
            if where == (data.tasks[before].column or before):
                raise ValueError(
                    f"data.tasks.{name}.where: expected none, because model.after says that {name} "
                    f"follows {before} (architecture: {model.architecture}), found {where}; remove "
                    f"it: labels are those of all examples, 0 where there was no {before}"
                )
            before = after.get(before)


def _check_groups(groups: Mapping[str, Sequence[str]], *, tasks: Mapping[str, object]) -> None:
    """Each task in one group, and none empty."""
    found = [task for group in groups.values() for task in group]
    for task in found:
        if task not in tasks:
            raise ValueError(f"model.groups: no task {task}; {did_you_mean(task, tasks)}")
        if found.count(task) > 1:
            raise ValueError(f"model.groups: {task} stands twice; expected it in one group")
    for task in tasks:
        if task not in found:
            raise ValueError(f"model.groups: {task} is in no group; add it to one")
    for name, group in groups.items():
        if not group:
            raise ValueError(f"model.groups.{name}: is empty; expected at least one task")


def _check_network(
    key: str, parents: Mapping[str, Sequence[str]], *, tasks: Mapping[str, object]
) -> None:
    """Known tasks, each named once, none that waits for itself."""
    for name, others in parents.items():
        for known in (name, *others):
            if known not in tasks:
                raise ValueError(f"{key}: no task {known}; {did_you_mean(known, tasks)}")
        if len(set(others)) < len(others):
            raise ValueError(f"{key}.{name}: a task stands twice")
    for name in parents:
        _check_no_cycle(key, name, parents=parents, path=())


def _check_no_cycle(
    key: str, name: str, *, parents: Mapping[str, Sequence[str]], path: tuple[str, ...]
) -> None:
    if name in path:
        circle = " -> ".join((*path[path.index(name) :], name))
        raise ValueError(f"{key}: a task cannot depend on itself: {circle}")
    for parent in parents.get(name, ()):
        _check_no_cycle(key, parent, parents=parents, path=(*path, name))
