"""Metrics of each task, accumulated in bounded memory and summed over ranks."""

from __future__ import annotations

from trainer.metrics.calibration import Curve
from trainer.metrics.kind_metrics import Result
from trainer.metrics.task_metrics import METRICS, TaskMetrics

__all__ = ["METRICS", "Curve", "Result", "TaskMetrics"]
