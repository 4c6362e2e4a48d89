"""`polytower tune`: a search over the values of a recipe's keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.cli_options import EXIT_INTERRUPTED, Address, Overrides, RecipeName

if TYPE_CHECKING:
    from cluster.trials import SearchFolder, Trial
    from cluster.tune import Plan
    from trainer.config import Recipe

EXIT_TRIALS_FAILED = 3

EXAMPLE = (
    "Example: `polytower tune ecommerce data.root=log run.eval_interval_steps=50 "
    "--space space.yaml --out search --trials 30 --parallel 2`"
)


def tune(
    recipe: RecipeName,
    space: Annotated[str, typer.Option(help="YAML file: KEY: {loguniform: [low, high]} and so on")],
    out: Annotated[str, typer.Option(help="URI of the search's folder")],
    overrides: Overrides = None,
    trials: Annotated[int, typer.Option(min=1, help="trainings in all")] = 20,
    parallel: Annotated[int, typer.Option(min=1, help="of them at a time, one rank each")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="the same seed draws the same values")] = 0,
    address: Address = None,
) -> None:
    """Train a recipe many times with other values, and find those that do best on valid.

    What falls behind at 12 and at 36 percent of its steps is stopped (ASHA). Interrupted, the same
    command goes on; more --trials go on from there.
    """
    from cluster.display import console, phases_progress, print_error
    from cluster.failures import LaunchError
    from cluster.trials import SearchFolder
    from cluster.tune import tune as run_search
    from data_loaders.storage import locate

    folder = SearchFolder(locate(out))
    plans = _plans(
        recipe, overrides or [], space=space, folder=folder, num_trials=trials, seed=seed
    )
    ended: list[Trial] = []
    try:
        with phases_progress() as show:
            show("trials", 0, trials)

            def on_trial(trial: Trial) -> None:
                ended.append(trial)
                console.print(_line(trial), soft_wrap=True, markup=False)
                show("trials", len(ended), trials)

            found = run_search(
                plans, folder=folder, num_parallel=parallel, address=address, on_trial=on_trial
            )
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on", soft_wrap=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except LaunchError as error:
        print_error(str(error))
        raise typer.Exit(EXIT_TRIALS_FAILED) from error
    _print_best(found, plans=plans, folder=folder)


def _plans(
    recipe: str,
    overrides: list[str],
    *,
    space: str,
    folder: SearchFolder,
    num_trials: int,
    seed: int,
) -> list[Plan]:
    """Every trial's recipe, checked before the first one starts."""
    from cluster.preflight import check_log, resolve
    from cluster.search_space import overrides_of, read_space
    from cluster.tune import Plan
    from data_loaders.errors import InputError
    from data_loaders.row_groups import has_split
    from trainer.recipe_file import flat_keys

    searched = read_space(space)
    plans = []
    for index in range(num_trials):
        values = searched.draw(seed=seed, trial=index)
        run_uri = f"run.uri={folder.run_of(index).uri}"
        resolved = resolve(recipe, [*overrides, *overrides_of(values), run_uri])
        plans.append(Plan(values=values, recipe=resolved))
    check_log(plans[0].recipe)
    if not has_split(plans[0].recipe.data, split="valid"):
        raise InputError(
            f"{plans[0].recipe.data.root}: has no valid/, by which trials are compared; "
            "make one (polytower prepare does)"
        )
    # the same seed draws the same values, so that the first recipe stands for all
    first = _without_run(plans[0].recipe)
    searched_for = {"recipe": recipe, "overrides": overrides, "space": searched.keys, "seed": seed}
    folder.begin(searched_for | flat_keys(first.model_dump(mode="json")))
    return plans


def _without_run(recipe: Recipe) -> Recipe:
    """A trial's recipe for a run anywhere."""
    return recipe.model_copy(update={"run": recipe.run.model_copy(update={"uri": None})})


def _print_best(found: list[Trial], *, plans: list[Plan], folder: SearchFolder) -> None:
    """The best trials as a table, and the recipe of the best in a file.

    Raises:
        InputError: no trial has a score.
    """
    from rich import box
    from rich.table import Table

    from cluster.display import console
    from cluster.trials import ranked
    from data_loaders.errors import InputError
    from trainer.recipe_file import dump_recipe

    best = ranked(found)
    if best[0].score is None:
        why = f": {best[0].why}" if best[0].why else ""
        raise InputError(f"no trial has a score on valid{why}")
    columns = ["trial", "score on valid", "steps", "state", *_short_names(list(best[0].values))]
    table = Table(*columns, title="best trials", title_justify="left", box=box.SIMPLE_HEAD)
    for trial in best[:10]:
        values = [_shown(value) for value in trial.values.values()]
        score = "-" if trial.score is None else f"{trial.score:.4f}"
        table.add_row(str(trial.index), score, f"{trial.step:,}", trial.state, *values)
    console.print(table)
    chosen = _without_run(plans[best[0].index].recipe)
    file = folder.location.child("best.yaml")
    file.write_text(dump_recipe(chosen))
    console.print(
        f"best recipe: {file.uri}; its run, evaluated: {best[0].run_uri}"
        if best[0].state == "complete"
        else f"best recipe: {file.uri}; train it with: polytower train {file.uri}",
        soft_wrap=True,
        markup=False,
    )


def _line(trial: Trial) -> str:
    score = "no score" if trial.score is None else f"{trial.score:.4f}"
    values = ", ".join(f"{key}={_shown(value)}" for key, value in trial.values.items())
    why = f" ({trial.why})" if trial.why else ""
    return f"trial {trial.index}: {score} at step {trial.step:,}, {trial.state}{why}; {values}"


def _short_names(keys: list[str]) -> list[str]:
    """Each key's last parts, as many as tell it from the others."""
    found = []
    for key in keys:
        parts = key.split(".")
        for length in range(1, len(parts) + 1):
            name = ".".join(parts[-length:])
            if sum(other == name or other.endswith(f".{name}") for other in keys) == 1:
                break
        found.append(name)
    return found


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
