"""What commands share: their options and their exit statuses."""

from __future__ import annotations

from typing import Annotated

import typer

RecipeName = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help="a shipped recipe's name, or a YAML file (path or URI)"),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SECTION.KEY=VALUE", help="e.g. data.root=s3://bucket/log run.num_epochs=3"
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="ranks; one per GPU by default, or one where there is none"),
]
Address = Annotated[
    str | None,
    typer.Option(help="of a running Ray cluster, e.g. auto; a local one is started by default"),
]

EXIT_RANKS_FAILED = 3
EXIT_LEARNING_FAILED = 4
EXIT_INTERRUPTED = 130
