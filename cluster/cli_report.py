"""`polytower report`: a run as one HTML file."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLE = "Example: `polytower report s3://bucket/run --out run.html --importance`"


def report(
    run: Annotated[str, typer.Argument(help="URI of a run's folder, finished or not")],
    out: Annotated[
        str | None, typer.Option(help="path or URI of the file; RUN/report.html by default")
    ] = None,
    importance: Annotated[
        bool,
        typer.Option(
            "--importance",
            help="measure first what each feature is worth to each task, on valid; it stays in "
            "RUN/importance.json",
        ),
    ] = False,
) -> None:
    """Write one HTML file that shows how a run went, and how well it does."""
    from cluster.display import console
    from data_loaders.storage import locate
    from trainer.report import read_run, report_page
    from trainer.runtime import prepare_environment

    prepare_environment()
    location = locate(run)
    read_run(location)  # what is no run is refused before anything is measured
    if importance:
        _measure(run)
    target = location.child("report.html") if out is None else locate(out)
    target.write_text(report_page(read_run(location)))
    console.print(f"wrote {target.uri}", soft_wrap=True, markup=False)


def _measure(run: str) -> None:
    import json

    from cluster.display import training_progress
    from data_loaders.storage import locate
    from trainer.evaluate import chosen_checkpoint
    from trainer.importance import measure_importance
    from trainer.report.run_data import IMPORTANCE
    from trainer.runtime import quiet_libraries

    quiet_libraries()
    location = locate(run)
    with training_progress() as listener:
        found = measure_importance(chosen_checkpoint(location), listener=listener)
    location.child(IMPORTANCE).write_text(json.dumps(found, indent=2) + "\n")
