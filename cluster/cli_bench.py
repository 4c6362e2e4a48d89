"""`polytower bench`: the one door from the command line to the benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cluster.cli_options import Overrides, RecipeName

bench = typer.Typer(no_args_is_help=True, help="Measure where the performance is decided.")


@bench.command(
    epilog="Example: `polytower bench lookup --rows 100000 --threads 1 --out lookup.json`"
)
def lookup(
    tables: Annotated[int, typer.Option(min=1, help="embedding tables")] = 8,
    rows: Annotated[int, typer.Option(min=2, help="of each table")] = 1_000_000,
    dim: Annotated[int, typer.Option(min=4, help="width of a row")] = 64,
    pooling_factor: Annotated[int, typer.Option(min=1, help="ids of each bag")] = 10,
    batch_size: Annotated[int, typer.Option(min=1, help="bags of each table")] = 4096,
    ids: Annotated[Literal["zipf", "uniform"], typer.Option(help="how ids are drawn")] = "zipf",
    repeats: Annotated[int, typer.Option(min=1, help="interleaved rounds")] = 40,
    seed: Annotated[int, typer.Option()] = 0,
    device: Annotated[
        Literal["cpu", "cuda"] | None, typer.Option(help="a GPU if there is one, by default")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="of PyTorch; all cores")] = None,
    out: Annotated[Path | None, typer.Option(help="write everything measured as JSON")] = None,
) -> None:
    """Embedding lookups: this project beside raw FBGEMM and torch.nn.EmbeddingBag, in one run."""
    from trainer.runtime import prepare_environment, quiet_libraries

    prepare_environment()
    quiet_libraries()
    from benchmarks.embedding_lookup import LookupSettings, run_lookup_benchmark
    from benchmarks.report import print_lookup_report, write_report
    from cluster.display import console, phases_progress
    from data_loaders.storage import locate

    if out is not None:
        locate(str(out)).parent_folder()  # before a minute is spent
    settings = LookupSettings(
        num_tables=tables,
        num_rows=rows,
        dim=dim,
        pooling_factor=pooling_factor,
        batch_size=batch_size,
        ids=ids,
        num_rounds=repeats,
        seed=seed,
        device=device,
        num_threads=threads,
    )
    with phases_progress() as on_progress:
        report = run_lookup_benchmark(settings, on_progress=on_progress)
    print_lookup_report(report, console)
    if out is not None:
        write_report(report, out)


@bench.command(
    "input", epilog="Example: `polytower bench input ecommerce data.root=log --out input.json`"
)
def input_pipeline(
    recipe: RecipeName = "ecommerce",
    overrides: Overrides = None,
    examples: Annotated[
        int | None,
        typer.Option(min=1, help="of the log made where data.root is not set; 1,000,000"),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="interleaved rounds")] = 5,
    out: Annotated[Path | None, typer.Option(help="write everything measured as JSON")] = None,
) -> None:
    """Reading a log: this project's loader beside a raw scan, torch's DataLoader and Ray Data."""
    from cluster.preflight import resolve
    from trainer.runtime import quiet_libraries

    if "=" in recipe:  # no recipe is named
        recipe, overrides = "ecommerce", [recipe, *(overrides or [])]
    resolved = resolve(recipe, overrides or [])
    quiet_libraries()
    from benchmarks.input_pipeline import InputSettings, run_input_benchmark
    from benchmarks.report import print_input_report, write_report
    from cluster.display import console, phases_progress
    from data_loaders.storage import locate

    if out is not None:
        locate(str(out)).parent_folder()  # before minutes are spent
    settings = InputSettings(num_examples=examples, num_rounds=repeats)
    with phases_progress() as on_progress:
        report = run_input_benchmark(
            resolved, scenario=recipe, settings=settings, on_progress=on_progress
        )
    print_input_report(report, console)
    if out is not None:
        write_report(report, out)


@bench.command(epilog="Example: `polytower bench step --model shared_bottom --out step.json`")
def step(
    model: Annotated[str, typer.Option(help="model.architecture")] = "mmoe",
    tasks: Annotated[int, typer.Option(min=1, help="binary ones")] = 4,
    rows: Annotated[int, typer.Option(min=1, help="of each of 8 tables")] = 50_000,
    batch_size: Annotated[int, typer.Option(min=1, help="examples of a step")] = 2048,
    repeats: Annotated[int, typer.Option(min=1, help="interleaved rounds")] = 30,
    seed: Annotated[int, typer.Option()] = 0,
    device: Annotated[
        Literal["cpu", "cuda"] | None, typer.Option(help="a GPU if there is one, by default")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="of PyTorch; all cores")] = None,
    out: Annotated[Path | None, typer.Option(help="write everything measured as JSON")] = None,
) -> None:
    """A training step with each way to balance tasks: beside static weights, and the textbook."""
    from trainer.runtime import prepare_environment, quiet_libraries

    prepare_environment()
    quiet_libraries()
    from benchmarks.report import print_step_report, write_report
    from benchmarks.train_step import StepSettings, run_step_benchmark
    from cluster.display import console, phases_progress
    from data_loaders.storage import locate

    if out is not None:
        locate(str(out)).parent_folder()  # before minutes are spent
    settings = StepSettings(
        architecture=model,
        num_tasks=tasks,
        num_rows=rows,
        batch_size=batch_size,
        num_rounds=repeats,
        seed=seed,
        device=device,
        num_threads=threads,
    )
    with phases_progress() as on_progress:
        report = run_step_benchmark(settings, on_progress=on_progress)
    print_step_report(report, console)
    if out is not None:
        write_report(report, out)


@bench.command(epilog="Example: `polytower bench accuracy census-income-1 --source raw`")
def accuracy(
    experiments: Annotated[
        list[str] | None, typer.Argument(help="of benchmarks/accuracy.yaml; all by default")
    ] = None,
    source: Annotated[Path, typer.Option(help="folder that holds the folders of raw files")] = Path(
        "raw"
    ),
    out: Annotated[Path, typer.Option(help="data sets and runs; what is complete there stays")] = (
        Path("runs/accuracy")
    ),
    variant: Annotated[
        list[str] | None, typer.Option(help="a row of the table, may be given again; else all rows")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="of each variant")] = 5,
    parallel: Annotated[
        int | None, typer.Option(min=1, help="runs at once; one per core by default")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Markdown file to write, with its plots beside it")
    ] = None,
) -> None:
    """The accuracy table: every variant, several seeds, chosen on valid and judged on test."""
    import json

    from benchmarks.accuracy import run_experiments
    from benchmarks.accuracy_experiments import read_experiments, with_variants
    from benchmarks.accuracy_report import write_accuracy_report
    from benchmarks.accuracy_results import write_results
    from cluster.display import phases_progress
    from trainer.runtime import prepare_environment

    prepare_environment()
    chosen = {
        name: with_variants(item, variant or [])
        for name, item in read_experiments(experiments or []).items()
    }
    with phases_progress() as on_progress:
        results = run_experiments(
            chosen,
            out=out,
            source=source,
            num_seeds=seeds,
            num_parallel=parallel,
            on_progress=on_progress,
        )
    write_results(results, out / "accuracy.json")
    known = json.loads((out / "accuracy.json").read_text())
    write_accuracy_report(known, experiments=read_experiments(), path=report or out / "accuracy.md")
