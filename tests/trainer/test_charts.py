"""Charts draw the numbers that they are given."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.figure import Figure

from trainer import charts
from trainer.charts import Bars, Line, Panel, bar_chart, heat_map, line_chart
from trainer.task_charts import importance_bars


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is about to be written as SVG."""
    found: list[Any] = []

    def svg(figure: Figure, *, alt: str) -> str:
        found.append(figure)
        return alt

    monkeypatch.setattr(charts, "_svg", svg)
    return found


def test_lines_run_through_their_points(figures: list[Any]) -> None:
    """Under their names, each diagram below its title."""
    lines = {"one": [[1, 5], [2, 4], [3, 8]], "two": [[1, 0], [3, 7]]}
    drawn = [
        Line(name, [x for x, _ in points], [y for _, y in points]) for name, points in lines.items()
    ]
    line_chart([Panel("left", drawn), Panel("right", drawn[1:])], alt="")
    [figure] = figures
    assert {
        axes.get_title(loc="left"): {
            line.get_label(): line.get_xydata().tolist() for line in axes.lines
        }
        for axes in figure.axes
    } == {"left": lines, "right": {"two": lines["two"]}}


def test_bars_are_as_long_as_their_values(figures: list[Any]) -> None:
    """The first on top, to the left of 0 where negative."""
    bar_chart([Bars("title", ["one", "two"], [0.5, -0.25])], alt="")
    [axes] = figures[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "two"]
    assert axes.get_yticks().tolist() == [0, 1]
    assert [(bar.get_y() + bar.get_height() / 2, bar.get_width()) for bar in axes.patches] == [
        (0, 0.5),
        (1, -0.25),
    ]
    assert axes.yaxis_inverted()


def test_a_heat_map_has_each_value_in_its_row_and_column(figures: list[Any]) -> None:
    """As colour and as text; None as neither."""
    names = {"rows": ["one", "two"], "columns": ["a", "b", "c"]}
    heat_map([[1.0, None, 0.5], [0.0, 0.25, -0.75]], **names, title="", low=-1, high=1, alt="")
    [axes] = figures[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == names["rows"]
    assert [label.get_text() for label in axes.get_xticklabels()] == names["columns"]
    assert axes.yaxis_inverted()
    [cells] = axes.collections
    assert cells.get_array().filled(9).tolist() == [[1.0, 9, 0.5], [0.0, 0.25, -0.75]]
    assert {text.get_position(): text.get_text() for text in axes.texts} == {
        (0, 0): "1.00",
        (2, 0): "0.50",
        (0, 1): "0.00",
        (1, 1): "0.25",
        (2, 1): "-0.75",
    }


def test_long_names_of_features_are_cut_in_the_middle() -> None:
    """They often differ at the end alone."""
    names = [f"clicks_of_the_visitor_within_the_last_{days}_days" for days in (1, 7)]
    found = {"metric": "auc", "features": {"age": 0.3, names[0]: 0.2, names[1]: 0.1}}
    age, *others = importance_bars("click", found).labels
    assert age == "age"
    assert len(set(others)) == 2
    assert {len(label) for label in others} == {30}
