"""Tables of metrics, one for each kind of tasks, with the best possible where it is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich import box
from rich.table import Table

# Columns of tables that hold words, not numbers.
WORDS = {"task", "id", "reason", "table", "ranks"}

Results = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Column:
    """Of a table of metrics.

    Attributes:
        title: above it.
        metric: that it shows.
        digits: behind the point.
        has_gap: whether the best possible has a column for how far it is away, beside its own.
    """

    title: str
    metric: str
    digits: int = 4
    has_gap: bool = False


# by a metric that tasks of the kind have, and no others before them do
KINDS: dict[str, Sequence[Column]] = {
    "normalized_entropy": (
        Column("AUC", "auc", has_gap=True),
        Column("NE", "normalized_entropy"),
        Column("calib-\nration", "calibration", digits=3),
    ),
    "group_auc": (Column("group AUC", "group_auc"), Column("AUC", "auc", has_gap=True)),
    "gini": (
        Column("MSE", "mse"),
        Column("MAE", "mae"),
        Column("Gini", "gini"),
        Column("AUC above 0", "nonzero_auc"),
    ),
    "mse": (Column("MSE", "mse"), Column("MAE", "mae"), Column("R²", "r2")),
    "accuracy": (
        Column("accuracy", "accuracy"),
        Column("macro AUC", "macro_auc"),
        Column("loss", "loss"),
    ),
}


def task_tables(tasks: Results, *, title: str) -> list[Table]:
    """Each task's metrics, a table for each kind; the title stands over the first."""
    by_kind: dict[str, Results] = {}
    for name, result in tasks.items():
        kind = next(metric for metric in KINDS if metric in result)
        by_kind.setdefault(kind, {})[name] = result
    return [
        _of_kind(by_kind[kind], KINDS[kind], title="" if index else title)
        for index, kind in enumerate(kind for kind in KINDS if kind in by_kind)
    ]


def cold_start_table(tasks: Results) -> Table:
    """Tasks with an AUC, by whether an id is known; empty where the recipe has no `run.slices`."""
    columns = ["task", "id", "labels of known", "AUC", "of rare or new", "AUC"]
    table = new_table("known ids, and ids that are rare in training or new", columns)
    for name, result in tasks.items():
        for key in result:
            feature = key.removeprefix("auc_").removesuffix("_cold")
            if key != f"auc_{feature}_cold":
                continue
            cells = []
            for part in ("warm", "cold"):
                cells.append(f"{result[f'examples_{feature}_{part}']:,.0f}")
                cells.append(_number(result[f"auc_{feature}_{part}"]))
            table.add_row(name, feature, *cells)
    return table


def new_table(title: str, columns: Sequence[str]) -> Table:
    """An empty table; words to the left, numbers to the right."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=box.SIMPLE_HEAD,
    )
    for index, column in enumerate(columns):
        # where it is narrow, words go on in another line; a number cut short would be another one
        justify: Literal["left", "right"] = "left" if index == 0 else "right"
        table.add_column(column, justify=justify, no_wrap=column not in WORDS, overflow="fold")
    return table


def _of_kind(tasks: Results, columns: Sequence[Column], *, title: str) -> Table:
    shown = [item for item in columns if any(item.metric in row for row in tasks.values())]
    best = {
        item.metric
        for item in shown
        if any(row.get(f"best_{item.metric}") is not None for row in tasks.values())
    }
    titles = ["task", "labels"]
    for item in shown:
        titles.append(item.title)
        if item.metric in best:
            titles += ["best\npossible", "gap"] if item.has_gap else ["best\npossible"]
    table = new_table(title, titles)
    table.padding = (0, 1, 0, 0)  # seven columns of numbers and a name in 80 characters
    for name, result in tasks.items():
        cells = [name, f"{result['examples']:,.0f}"]
        for item in shown:
            value, limit = result.get(item.metric), result.get(f"best_{item.metric}")
            cells.append(_number(value, digits=item.digits))
            if item.metric in best:
                cells.append(_number(limit))
            if item.metric in best and item.has_gap:
                gap = limit - value if value is not None and limit is not None else None
                cells.append(_number(gap))
        table.add_row(*cells)
    return table


def _number(value: float | None, *, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
