"""`polytower prepare` and `polytower generate`: the commands that write data sets."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cluster.cli_options import EXIT_INTERRUPTED, EXIT_RANKS_FAILED, Address, Overrides

data = typer.Typer()


@data.command(
    epilog="Examples: `polytower prepare my.yaml --source 'raw/*.csv' --out log`, "
    "`polytower prepare census-income --source raw/census_income --out census`"
)
def prepare(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="of one's own log; or census-income, kuairand: their raw files"
        ),
    ],
    source: Annotated[
        list[str],
        typer.Option(help="file, folder, or quoted glob (path or URI); may be given repeatedly"),
    ],
    out: Annotated[str, typer.Option(help="URI of the new data set")],
    overrides: Overrides = None,
    address: Address = None,
    seed: Annotated[
        int, typer.Option(help="of the public data sets' split into valid and test")
    ] = 0,
) -> None:
    """Turn raw logs (CSV, JSON lines, Parquet) into the data set that a recipe reads.

    Rows that do not fit go to rejected/, with the reason. Interrupted, the same command starts
    over.
    """
    from cluster.display import console
    from data_loaders.public.datasets import DATASETS
    from data_loaders.public.datasets import prepare as prepare_dataset
    from trainer.runtime import prepare_environment

    prepare_environment()
    if recipe not in DATASETS:
        _prepare_log(recipe, overrides=overrides or [], sources=source, out=out, address=address)
        return
    if len(source) > 1 or overrides or address is not None:
        raise typer.BadParameter(f"{recipe} takes one --source, no overrides and no --address")
    with console.status(f"preparing {recipe}"):
        info = prepare_dataset(recipe, source=source[0], out=out, seed=seed)
    _print_dataset(info, out=out, recipe=recipe)


@data.command(
    epilog="Example: `polytower generate ecommerce --out s3://bucket/log --examples 1000000`"
)
def generate(
    scenario: Annotated[str, typer.Argument(help="ecommerce, social, news, music, or correlated")],
    out: Annotated[str, typer.Option(help="URI of the new data set")],
    examples: Annotated[
        int, typer.Option(min=1_000, help="in train, valid and test together")
    ] = 100_000,
    seed: Annotated[int, typer.Option(help="the same seed writes the same bytes")] = 0,
    density: Annotated[
        int,
        typer.Option(
            min=1,
            help="examples of each user, item and ad, in multiples of the usual: as many examples "
            "of fewer ids; needs 150,000 examples times this number",
        ),
    ] = 1,
    correlation: Annotated[
        float | None,
        typer.Option(help="of the two tasks of correlated, from -1 to 1; 0.5 by default"),
    ] = None,
) -> None:
    """Write a log whose ground truth, and so the best possible AUC or MSE, is known.

    Interrupted, the same command starts over.
    """
    from cluster.display import console, counting_progress
    from data_loaders.synthetic import generate as generate_log
    from trainer.runtime import prepare_environment

    prepare_environment()
    try:
        with counting_progress(f"generating {scenario}", total=examples) as on_progress:
            info = generate_log(
                scenario,
                out=out,
                examples=examples,
                seed=seed,
                density=density,
                correlation=correlation,
                on_progress=on_progress,
            )
    except KeyboardInterrupt:
        console.print("interrupted; the same command starts over", soft_wrap=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    _print_dataset(info, out=out, recipe=scenario)


def _prepare_log(
    recipe: str, *, overrides: list[str], sources: list[str], out: str, address: str | None
) -> None:
    """Prepares one's own log with a progress bar, and says what was left out and why."""
    from cluster.display import console, phases_progress, print_error, print_rejected
    from cluster.failures import LaunchError
    from trainer.recipe_file import load_recipe

    resolved = load_recipe(recipe, overrides=overrides)
    from cluster.prepare import prepare as prepare_log

    try:
        with phases_progress() as on_progress:
            info = prepare_log(
                resolved, sources=sources, out=out, address=address, on_progress=on_progress
            )
    except KeyboardInterrupt:
        console.print("interrupted; the same command starts over", soft_wrap=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except LaunchError as error:
        print_error(str(error))
        raise typer.Exit(EXIT_RANKS_FAILED) from error
    num_kept = sum(split.examples for split in info.splits.values())
    print_rejected(info.rejected, num_kept=num_kept, folder=f"{out.rstrip('/')}/rejected")
    _print_dataset(info, out=out, recipe=recipe)


def _print_dataset(info: Any, *, out: str, recipe: str) -> None:
    from cluster.display import console

    for split, part in info.splits.items():
        console.print(f"[bold]{split:<6}[/] {part.examples:>12,} examples")
    console.print(
        f"wrote {out}; train on it with: polytower train {recipe} data.root={out}", soft_wrap=True
    )
