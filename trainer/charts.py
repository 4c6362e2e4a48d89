"""Charts as SVG that stands inside a page, whose text takes the page's colour, and as PNG."""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# stands for the page's text colour until the SVG is written
_INK = "#010203"
# told apart by colour-blind eyes, on white and on black
COLOURS = (
    *("#2a86c9", "#ee7733", "#009988", "#cc3344", "#9966cc"),
    *("#d6569b", "#999933", "#33a7c9", "#888888", "#55aa55"),
)
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "text.color": _INK,
    "grid.color": _INK,
    "grid.alpha": 0.13,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
_WIDTH_INCHES, _PANEL_INCHES = 9.7, 2.5
_PICTURE_INCHES = (4.8, 3.6)
# lines of more points need no mark at each
_MOST_MARKS = 20
# a legend of more lines covers them
_MOST_IN_LEGEND = 4


@dataclass(frozen=True)
class Line:
    """A line of a panel; dashed for what is only there to compare with."""

    label: str
    xs: Sequence[float]
    ys: Sequence[float]
    is_dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """One diagram of a chart."""

    title: str
    lines: Sequence[Line] = field(default_factory=tuple)
    y_label: str = ""
    x_label: str = "step"


@dataclass(frozen=True)
class Bars:
    """One diagram of bars, the first on top."""

    title: str
    labels: Sequence[str]
    values: Sequence[float]
    x_label: str = ""


@dataclass(frozen=True)
class Picture:
    """A PNG; width and height in pixels."""

    png: bytes
    width: int
    height: int


def line_chart(panels: Sequence[Panel], *, alt: str) -> str:
    """Diagrams in two columns, or one over the whole width, as an SVG element.

    Args:
        panels: at least one.
        alt: what the chart shows, in words.
    """
    with matplotlib.rc_context(_STYLE):
        figure, grid = _grid([1.0] * len(panels))
        for panel, axes in zip(panels, grid, strict=True):
            _draw_lines(panel, axes)
            if 1 < len(panel.lines) <= _MOST_IN_LEGEND and len(panels) > 1:
                axes.legend(loc="best")
        longest = max(range(len(panels)), key=lambda index: len(panels[index].lines))
        if len(panels[longest].lines) > (1 if len(panels) == 1 else _MOST_IN_LEGEND):
            figure.legend(*grid[longest].get_legend_handles_labels(), loc="outside right center")
        return _svg(figure, alt=alt)


def bar_chart(panels: Sequence[Bars], *, alt: str) -> str:
    """As `line_chart`, of horizontal bars."""
    with matplotlib.rc_context(_STYLE):
        rows = [
            max(len(bars.labels) for bars in panels[i : i + 2]) for i in range(0, len(panels), 2)
        ]
        figure, grid = _grid([0.3 + 0.09 * rows[i // 2] for i in range(len(panels))])
        for bars, axes in zip(panels, grid, strict=True):
            _draw_bars(bars, axes)
        return _svg(figure, alt=alt)


def heat_map(
    values: Sequence[Sequence[float | None]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    low: float,
    high: float,
    alt: str,
) -> str:
    """A table in colours, with its numbers, as an SVG element.

    Args:
        values: of each row; None leaves a cell empty.
        rows: names.
        columns: names.
        title: above it.
        low: the value of one end of the colours, negative where both signs have a meaning.
        high: the value of the other end.
        alt: what the chart shows, in words.
    """
    colours = "RdBu" if low < 0 else "Blues"
    filled = [[math.nan if value is None else value for value in row] for row in values]
    with matplotlib.rc_context(_STYLE):
        width = min(_WIDTH_INCHES, 1.6 + 0.75 * len(columns))
        figure = Figure(figsize=(width, 1.1 + 0.32 * len(rows)), layout="constrained")
        axes = figure.subplots()
        edges = [[place - 0.5 for place in range(len(names) + 1)] for names in (columns, rows)]
        axes.pcolormesh(*edges, filled, cmap=colours, vmin=low, vmax=high)
        axes.invert_yaxis()
        axes.set_title(title, loc="left")
        turn = 30 if max(map(len, columns)) > 7 else 0
        axes.set_xticks(
            range(len(columns)),
            labels=list(columns),
            rotation=turn,
            ha="right" if turn else "center",
        )
        axes.set_yticks(range(len(rows)), labels=list(rows))
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        for y, row in enumerate(filled):
            for x, value in enumerate(row):
                is_dark = _darkness(value, low=low, high=high) > 0.6
                if not math.isnan(value) and len(columns) <= 16:
                    ink = "#ffffff" if is_dark else "#111111"
                    axes.text(x, y, f"{value:z.2f}", ha="center", va="center", color=ink)
        return _svg(figure, alt=alt)


def picture(diagram: Panel | Bars) -> Picture:
    """A single diagram as PNG, on white."""
    with matplotlib.rc_context(_STYLE | {"savefig.facecolor": "white"}):
        figure = Figure(figsize=_PICTURE_INCHES, layout="constrained")
        axes = figure.subplots()
        if isinstance(diagram, Panel):
            _draw_lines(diagram, axes)
        else:
            _draw_bars(diagram, axes)
        stream = io.BytesIO()
        canvas = FigureCanvasAgg(figure)
        canvas.print_png(stream)
        width, height = canvas.get_width_height()
        return Picture(png=stream.getvalue(), width=width, height=height)


def _darkness(value: float, *, low: float, high: float) -> float:
    return abs(value) / max(abs(low), abs(high)) if low < 0 else (value - low) / (high - low)


def _grid(heights: Sequence[float]) -> tuple[Figure, list[Axes]]:
    """Axes in two columns; a single one is as wide as both."""
    num_columns = min(2, len(heights))
    rows = [max(heights[i : i + num_columns]) for i in range(0, len(heights), num_columns)]
    figure = Figure(figsize=(_WIDTH_INCHES, _PANEL_INCHES * sum(rows)), layout="constrained")
    grid = figure.subplots(
        len(rows), num_columns, squeeze=False, gridspec_kw={"height_ratios": rows}
    )
    found = [axes for row in grid for axes in row]
    for spare in found[len(heights) :]:
        spare.set_visible(False)
    return figure, found[: len(heights)]


def _draw_lines(panel: Panel, axes: Axes) -> None:
    for index, line in enumerate(panel.lines):
        _draw_line(line, axes, colour=COLOURS[index % len(COLOURS)])
    axes.set_title(panel.title, loc="left")
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    axes.grid(True)
    if panel.x_label == "step":
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _draw_bars(bars: Bars, axes: Axes) -> None:
    places = range(len(bars.labels))
    axes.barh(places, bars.values, color=COLOURS[0], height=0.7)
    axes.set_yticks(list(places), labels=list(bars.labels))
    axes.set_ylim(max(len(bars.labels), 1) - 0.4, -0.6)
    axes.set_title(bars.title, loc="left")
    axes.set_xlabel(bars.x_label)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.axvline(0, color=_INK, linewidth=0.6)
    axes.grid(True, axis="x")


def _draw_line(line: Line, axes: Axes, *, colour: str) -> None:
    if line.is_dashed:
        axes.plot(
            line.xs, line.ys, label=line.label, color=_INK, linestyle="--", linewidth=1, alpha=0.6
        )
        return
    marker = "o" if len(line.xs) <= _MOST_MARKS else None
    axes.plot(
        line.xs, line.ys, label=line.label, color=colour, marker=marker, markersize=3, linewidth=1.5
    )


def _svg(figure: Figure, *, alt: str) -> str:
    stream = io.StringIO()
    # ids within the SVG are hashes of their content, with this
    with matplotlib.rc_context({"svg.hashsalt": alt}):
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)  # would be the page's
    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # no one refers to them, and charts repeat them
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", text)
    text = text.replace(_INK, "currentColor")
    words = html.escape(alt)
    return text.replace("<svg ", f'<svg role="img" aria-label="{words}" ', 1).strip()
