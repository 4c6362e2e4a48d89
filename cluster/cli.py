"""The command line; every import that takes time happens inside the command that needs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.cli_bench import bench
from cluster.cli_data import data
from cluster.cli_options import (
    EXIT_INTERRUPTED,
    EXIT_LEARNING_FAILED,
    EXIT_RANKS_FAILED,
    Address,
    Overrides,
    RecipeName,
    Workers,
)
from cluster.cli_report import EXAMPLE as REPORT_EXAMPLE
from cluster.cli_report import report
from cluster.cli_tune import EXAMPLE, tune

if TYPE_CHECKING:
    from trainer.config import Recipe

app = typer.Typer(
    name="polytower",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Train multi-task recommenders on sharded tables: Parquet logs in, checkpoints out.",
    epilog="Start here: `polytower generate ecommerce --out log --examples 100000`, "
    "then `polytower train ecommerce data.root=log --workers 2`",
)
app.add_typer(data)
app.add_typer(bench, name="bench")
app.command(epilog=REPORT_EXAMPLE)(report)
app.command(epilog=EXAMPLE)(tune)


def main() -> None:
    """Runs the command line; what a person can put right is one line and exit status 2."""
    from data_loaders.errors import InputError

    try:
        app()
    except InputError as error:
        from cluster.display import print_error

        print_error(str(error))
        sys.exit(2)


@app.command(
    epilog="Example: `polytower train ecommerce data.root=log run.uri=s3://bucket/run --workers 2`"
)
def train(
    recipe: RecipeName,
    overrides: Overrides = None,
    workers: Workers = None,
    address: Address = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="print the resolved recipe and the sharding plan, train nothing"
        ),
    ] = False,
) -> None:
    """Train a recipe, evaluate it, and write the run's folder; goes on where an interrupted run
    was.

    Exits with status 4 when a task learned less than `run.max_auc_gap` allows.
    """
    from cluster.display import print_summary
    from cluster.preflight import check_log, print_dry_run, resolve, say_where_it_goes_on
    from data_loaders.storage import locate
    from data_loaders.streams import check_world_size
    from trainer.fitting import fitted_recipe
    from trainer.run_folder import read_summary

    resolved = resolve(recipe, overrides or [])
    if resolved.data.root is not None or not dry_run:
        check_log(resolved)
        resolved = fitted_recipe(resolved)
    check_world_size(num_streams=resolved.data.num_streams, world_size=workers or 1)
    if dry_run:
        print_dry_run(resolved, num_workers=workers)
        return
    assert resolved.run.uri is not None
    say_where_it_goes_on(locate(resolved.run.uri))
    _launch(resolved, recipe=recipe, workers=workers, address=address)
    summary = read_summary(locate(resolved.run.uri))
    print_summary(summary, run_uri=resolved.run.uri)
    _judge(summary, max_auc_gap=resolved.run.max_auc_gap)


@app.command(epilog="Example: `polytower evaluate s3://bucket/run --data s3://bucket/other-log`")
def evaluate(
    uri: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_CHECKPOINT", help="URI of a run's folder or of one checkpoint"
        ),
    ],
    data: Annotated[
        str | None, typer.Option(help="URI of another data set; the run's own by default")
    ] = None,
) -> None:
    """Evaluate a run's chosen checkpoint, or any checkpoint, on the test split."""
    from cluster.display import console, print_notes, print_tasks, training_progress
    from data_loaders.storage import locate
    from trainer.evaluate import chosen_checkpoint, evaluate_checkpoint
    from trainer.runtime import prepare_environment, quiet_libraries

    prepare_environment()
    quiet_libraries()
    checkpoint = chosen_checkpoint(locate(uri))
    with training_progress() as listener:
        result = evaluate_checkpoint(checkpoint, data_root=data, listener=listener)
    print_tasks(result.tasks, title=f"evaluation on {result.split}")
    print_notes(result.skips.lines())
    console.print(f"checkpoint {checkpoint.uri}", soft_wrap=True, markup=False)


@app.command(
    epilog="Example: `polytower submit my.yaml data.root=s3://bucket/log run.uri=s3://bucket/run "
    "--address http://head:8265 --workers 8`"
)
def submit(
    recipe: RecipeName,
    address: Annotated[str, typer.Option(help="of the cluster's dashboard, e.g. http://head:8265")],
    overrides: Overrides = None,
    workers: Workers = None,
) -> None:
    """Train a recipe as a Ray job on a cluster, follow its log, and exit with its status."""
    from cluster.display import console
    from cluster.submit import submit as submit_job
    from trainer.recipe_file import RecipeError, load_recipe, shipped_recipes

    # what is wrong with the recipe is said here, not on the cluster
    resolved = load_recipe(recipe, overrides=overrides or [])
    for key, uri in (("data.root", resolved.data.root), ("run.uri", resolved.run.uri)):
        if uri is None or not ("://" in uri or uri.startswith("/")):
            raise RecipeError(
                f"{key}: expected a URI or an absolute path that every node reaches, "
                f"found {uri}; a job's working folder goes when it ends"
            )
    is_file = recipe not in shipped_recipes() and "://" not in recipe
    status = submit_job(
        [recipe, *(overrides or [])],
        address=address,
        recipe_file=Path(recipe) if is_file else None,
        workers=workers,
        follow=lambda line: console.print(line, markup=False, soft_wrap=True),
    )
    raise typer.Exit(status)


def _launch(resolved: Recipe, *, recipe: str, workers: int | None, address: str | None) -> None:
    """Trains with a progress bar; an end before the run's end is one line and an exit status."""
    from cluster.display import console, print_error, training_progress
    from cluster.launch import LaunchError, launch

    try:
        with training_progress() as listener:
            launch(resolved, num_workers=workers, address=address, listener=listener)
    except KeyboardInterrupt:
        again = f"polytower train {recipe} ... run.uri={resolved.run.uri}"
        line = f"interrupted; go on from the newest checkpoint, if there is one, with: {again}"
        console.print(line, markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except LaunchError as error:
        print_error(str(error))
        raise typer.Exit(EXIT_RANKS_FAILED) from error


def _judge(summary: dict[str, Any], *, max_auc_gap: float | None) -> None:
    """Fails when a task's AUC is well below what the log allows."""
    from cluster.display import print_error

    if max_auc_gap is None:
        return
    for name, result in summary["tasks"].items():
        auc, best = result.get("auc"), result.get("best_auc")
        if best is not None and (auc is None or best - auc > max_auc_gap):
            reached = "(not defined)" if auc is None else f"{auc:.4f}"
            print_error(
                f"task {name} did not learn: AUC {reached} is more than "
                f"run.max_auc_gap={max_auc_gap} below the best possible {best:.4f}; "
                "train longer or with other learning rates"
            )
            raise typer.Exit(EXIT_LEARNING_FAILED)


if __name__ == "__main__":
    main()
