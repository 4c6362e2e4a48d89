"""What is done and said before ranks start: recipe resolved, log checked, plan shown."""

from __future__ import annotations

import dataclasses
import os
import time

from cluster.display import console, print_plan
from data_loaders.catalogue import open_catalogue
from data_loaders.dataset import SPLITS, read_dataset_info
from data_loaders.errors import InputError, counted
from data_loaders.row_groups import has_split, list_row_groups, locate_root
from data_loaders.storage import Location, locate
from trainer.config import Recipe
from trainer.recipe_file import dump_recipe, load_recipe
from trainer.runtime import prepare_environment, quiet_libraries, rank_memory_bytes


def resolve(recipe: str, overrides: list[str]) -> Recipe:
    """The recipe with every URI set and absolute, because ranks have working directories of their
    own.
    """
    prepare_environment()
    resolved = load_recipe(recipe, overrides=overrides)
    run_uri = resolved.run.uri or f"runs/{resolved.run.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    run = resolved.run.model_copy(update={"uri": locate(run_uri).uri})
    data = resolved.data
    if data.root is not None:
        data = data.model_copy(update={"root": locate(data.root).uri})
    return resolved.model_copy(update={"run": run, "data": data})


def check_log(recipe: Recipe) -> None:
    """Every split's schema, and that of the catalogue, before anything is started.

    Raises:
        InputError: the log is incomplete or does not fit the recipe, or the run's folder lies in
            the data set, or around it.
    """
    root = locate_root(recipe.data)
    if recipe.run.uri is not None:
        _check_apart(locate(recipe.run.uri), root=root)
    read_dataset_info(root)  # an incomplete data set may lack any file: it says so first
    for split in SPLITS:
        if split == "train" or has_split(recipe.data, split=split):
            list_row_groups(recipe.data, split=split)
    if recipe.data.negatives is not None:
        open_catalogue(recipe.data, negatives=recipe.data.negatives)


def _check_apart(run_folder: Location, *, root: Location) -> None:
    run, data = (f"{_real(folder).rstrip('/')}/" for folder in (run_folder, root))
    if run.startswith(data) or data.startswith(run):
        where = "is" if run == data else "lies in" if run.startswith(data) else "contains"
        raise InputError(
            f"run.uri: {run_folder.uri} {where} the data set's folder (data.root: {root.uri}); "
            "give a folder of its own"
        )


def _real(folder: Location) -> str:
    """Where it lies, however many links or ways of writing lead there."""
    return os.path.realpath(folder.path) if folder.is_local else folder.uri


def say_where_it_goes_on(run: Location) -> None:
    """Names the checkpoint, if the run has been begun before. Whether the recipe and the log are
    still the same is checked later, by the ranks.
    """
    for checkpoint in reversed(run.child("checkpoints").children()):
        if checkpoint.child("manifest.json").exists():
            is_complete = run.child("summary.json").exists()
            console.print(
                f"this run was complete at {checkpoint.name}: it is evaluated again, "
                "and trained on first if it is longer now"
                if is_complete
                else f"this run was begun before: its newest checkpoint is {checkpoint.name}",
                soft_wrap=True,
            )
            return


def print_dry_run(recipe: Recipe, *, num_workers: int | None) -> None:
    """The resolved recipe, the sharding plan, and how long an epoch is."""
    import torch

    from embeddings.plan_report import placements
    from trainer.build import build_model, plan_model

    quiet_libraries()
    device_type = "cuda" if torch.cuda.is_available() else "cpu"
    num_workers = num_workers or max(1, torch.cuda.device_count())
    plan = plan_model(
        recipe,
        build_model(recipe),
        world_size=num_workers,
        local_world_size=num_workers,
        device_type=device_type,
        memory_bytes=rank_memory_bytes(device_type=device_type, local_world_size=num_workers),
    )
    console.print(dump_recipe(recipe), markup=False, soft_wrap=True)
    print_plan([dataclasses.asdict(item) for item in placements(plan, tables=recipe.tables())])
    if recipe.data.root is not None:
        num_examples = list_row_groups(recipe.data, split="train").num_examples
        steps = -(-num_examples // recipe.data.batch_size)
        console.print(
            f"train: {counted(num_examples, 'example')}, about {counted(steps, 'step')} an epoch"
        )
    else:
        console.print("data.root is not set: no log was looked at")
    console.print(
        f"{counted(num_workers, f'{device_type} rank')}, "
        "as if all were on this machine; nothing was trained"
    )
