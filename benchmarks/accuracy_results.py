"""What `accuracy.json` holds of an experiment, and the numbers that are made of it.

Shape legend: S seeds, T tasks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.accuracy_experiments import Experiment


def write_results(results: Mapping[str, Any], path: Path) -> None:
    """Writes them as JSON; results of experiments and variants that were not run stay."""
    known = json.loads(path.read_text()) if path.exists() else {}
    for name, result in results.items():
        before = known.get(name, {})
        known[name] = result | {
            key: before.get(key, {}) | result[key] for key in ("variants", "valid", "best")
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(known, indent=1) + "\n")


def known_variants(experiment: Experiment, result: Mapping[str, Any]) -> dict[str, Any]:
    """Those that have results, in the experiment's order."""
    return {
        name: result["variants"][name] for name in experiment.variants if name in result["variants"]
    }


@dataclass(frozen=True)
class MeasuredGap:
    """How far a variant is below the baseline."""

    mean: float
    standard_error: float
    num_stuck: int
    num_tasks: int

    def __str__(self) -> str:
        text = f"{self.mean:.4f} ± {self.standard_error:.4f}".replace(" ± nan", "")
        return f"{text} ({self.num_stuck} of {self.num_tasks})"


def gaps_of(
    experiment: Experiment, results: Mapping[float, Mapping[str, Any]]
) -> dict[str, list[MeasuredGap]]:
    """Of each variant but the baseline, by correlation; empty without the baseline's results."""
    variants = known_variants(experiment, next(iter(results.values())))
    if experiment.gap is None or experiment.gap.baseline not in variants:
        return {}
    baseline, limit = experiment.gap.baseline, experiment.gap.stuck_from
    gaps: dict[str, list[MeasuredGap]] = {name: [] for name in variants if name != baseline}
    for result in results.values():
        base = of_all_tasks(result, baseline).ravel()
        for name, found in gaps.items():
            values = of_all_tasks(result, name).ravel()
            learned = [item[item < limit] for item in (base, values)]
            if not all(item.size for item in learned):
                mean, error = float("nan"), float("nan")
            else:
                mean = learned[0].mean() - learned[1].mean()
                variances = [
                    item.var(ddof=1) / item.size if item.size > 1 else np.nan for item in learned
                ]
                error = float(np.sqrt(sum(variances)))
            found.append(MeasuredGap(mean, error, values.size - learned[1].size, values.size))
    return gaps


def of_all_tasks(result: Mapping[str, Any], variant: str) -> npt.NDArray[np.float64]:
    """The metric, (T, S)."""
    return np.array(list(result["variants"][variant].values()))
