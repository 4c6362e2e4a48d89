"""Tables of a page."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

NOTHING = "–"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str = "") -> str:
    """A table whose first column names the rows; numbers stand on the right.

    Args:
        columns: their names.
        rows: text as it is, numbers in a form that suits their size, None as a dash.
        caption: above it.
    """
    head = "".join(
        f'<th scope="col"{_style(row[index] for row in rows)}>{html.escape(name)}</th>'
        for index, name in enumerate(columns)
    )
    body = "".join(
        f'<tr><th scope="row">{html.escape(str(row[0]))}</th>'
        + "".join(_cell(value) for value in row[1:])
        + "</tr>"
        for row in rows
    )
    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="wide"><table>{title}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def number(value: float) -> str:
    """Whole numbers with separators, others with four digits behind the point, or four at all."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4f}" if abs(value) >= 0.001 else f"{value:.3g}"


def _style(column: Iterable[object]) -> str:
    return ' class="number"' if any(isinstance(value, int | float) for value in column) else ""


def _cell(value: object) -> str:
    if value is None:
        return f'<td class="number">{NOTHING}</td>'
    if isinstance(value, int | float):
        return f'<td class="number">{number(value)}</td>'
    return f"<td>{html.escape(str(value))}</td>"
