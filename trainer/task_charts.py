"""Diagrams of what is found out about a task, for the report of a run and for TensorBoard."""

from __future__ import annotations

from typing import Any

from trainer.charts import Bars, Line, Panel
from trainer.metrics import Curve

# the most important features
_MOST_BARS = 15
_MOST_LETTERS = 30


def calibration_panel(task: str, curve: Curve) -> Panel:
    """Mean prediction against the observed rate."""
    end = max(*curve["prediction"], *curve["rate"])
    return Panel(
        task,
        [
            Line("observed", curve["prediction"], curve["rate"]),
            Line("perfect", [0, end], [0, end], is_dashed=True),
        ],
        x_label="mean prediction",
        y_label="observed rate",
    )


def _short(name: str) -> str:
    """Of a feature, as long as a picture's width bears; many differ at the end only."""
    half = _MOST_LETTERS // 2
    return name if len(name) <= _MOST_LETTERS else f"{name[: half - 1]}…{name[-half:]}"


def importance_bars(task: str, found: dict[str, Any]) -> Bars:
    """What a task loses without a feature, of `measure_importance`."""
    features = sorted(found["features"].items(), key=lambda item: -item[1])[:_MOST_BARS]
    label = "rise of the loss" if found["metric"] == "loss" else "drop of the AUC"
    names, values = [_short(name) for name, _ in features], [value for _, value in features]
    return Bars(task, names, values, x_label=label)
