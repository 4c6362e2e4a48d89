"""`polytower report`: a run as one HTML file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from data_loaders.storage import Location

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
            help="measure first what each feature is worth to each task, on valid; of a finished "
            "run it also goes into RUN/metrics.jsonl and RUN/tensorboard",
        ),
    ] = False,
) -> None:
    """Write one HTML file that shows how a run went, and how well it does."""
    from cluster.display import console
    from data_loaders.storage import locate
    from trainer.report import read_run, report_page
    from trainer.run_folder import SUMMARY, add_importance
    from trainer.runtime import prepare_environment

    prepare_environment()
    location = locate(run)
    data = read_run(location)  # what is no run is refused before anything is measured
    if importance:
        found = _measured(location)
        data = replace(data, importance=found)
        # else its ranks may be writing there, or have chosen another checkpoint meanwhile
        if data.summary is not None and location.child(SUMMARY).exists():
            add_importance(location, found)
    target = location.child("report.html") if out is None else locate(out)
    target.write_text(report_page(data))
    console.print(f"wrote {target.uri}", soft_wrap=True, markup=False)


def _measured(run: Location) -> dict[str, Any]:
    from cluster.display import training_progress
    from trainer.evaluate import chosen_checkpoint
    from trainer.importance import measure_importance
    from trainer.runtime import quiet_libraries

    quiet_libraries()
    with training_progress() as listener:
        return measure_importance(chosen_checkpoint(run), listener=listener)
