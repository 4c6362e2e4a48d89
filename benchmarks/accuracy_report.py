"""The accuracy table for people: Markdown with a plot for each experiment.

Shape legend: S seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy import Experiment

HEAD = """# Accuracy

Every figure is on test, of a checkpoint chosen on valid. `make accuracy` writes them all; the
command beside a table writes that table. Mean over {num_seeds} seeds, and their standard deviation.
Bold is the best of ours; a figure in brackets is what somebody else published or reached.
"""


def write_accuracy_report(
    results: Mapping[str, Any],
    *,
    experiments: Mapping[str, Experiment],
    path: Path,
) -> None:
    """Writes the Markdown file, and beside it `accuracy/EXPERIMENT.svg` for each experiment.

    Args:
        results: as `run_experiments` returns them; experiments without results are left out.
        experiments: all that are known, in the order of the report.
    """
    shown = {name: item for name, item in experiments.items() if name in results}
    plots = path.parent / "accuracy"
    plots.mkdir(parents=True, exist_ok=True)
    num_seeds = max(_num_seeds(results[name]) for name in shown)
    parts = [HEAD.format(num_seeds=num_seeds)]
    for name, experiment in shown.items():
        _plot(results[name], experiment=experiment, path=plots / f"{name}.svg")
        parts.append("\n".join(_section(name, experiment, results[name])))
    path.write_text("\n".join(parts))


def _num_seeds(result: Mapping[str, Any]) -> int:
    return max(len(values) for tasks in result["variants"].values() for values in tasks.values())


def _section(name: str, experiment: Experiment, result: Mapping[str, Any]) -> Iterator[str]:
    variants, metric = result["variants"], result["metric"]
    tasks = list(next(iter(variants.values())))
    yield f"\n## {experiment.title}\n"
    if experiment.text:
        yield f"{experiment.text.strip()}\n"
    yield f"`polytower bench accuracy {name}`\n"
    yield f"| {metric} | {' | '.join(tasks)} | what differs |"
    yield f"|---|{'---|' * len(tasks)}---|"
    best = {task: _best(variants, task, metric=metric) for task in tasks}
    for variant, values in variants.items():
        cells = []
        for task in tasks:
            text = _mean_and_spread(values[task])
            cells.append(f"**{text}**" if variant == best[task] else text)
        item = experiment.variants[variant]
        what = item.note or ", ".join(f"`{text}`" for text in item.overrides)
        yield f"| {variant} | {' | '.join(cells)} | {what} |"
    for author, figures in experiment.published.items():
        cells = [f"({figures[task]:.4f})" if task in figures else "" for task in tasks]
        yield f"| {author} | {' | '.join(cells)} | |"
    if result["best"]:
        cells = [f"{result['best'][task]:.4f}" if task in result["best"] else "" for task in tasks]
        yield f"| best possible | {' | '.join(cells)} | the truth that drew the labels |"
    if experiment.goals:
        cells = [
            f"{experiment.goals[task]:.4f}" if task in experiment.goals else "" for task in tasks
        ]
        yield f"| goal | {' | '.join(cells)} | |"
    yield f"\n![{experiment.title}](accuracy/{name}.svg)\n"


def _mean_and_spread(values_S: Sequence[float]) -> str:
    spread = f" ± {np.std(values_S, ddof=1):.4f}" if len(values_S) > 1 else ""
    return f"{np.mean(values_S):.4f}{spread}"


def _best(variants: Mapping[str, Any], task: str, *, metric: str) -> str:
    sign = 1 if metric == "auc" else -1
    return max(variants, key=lambda name: sign * float(np.mean(variants[name][task])))


def _plot(result: Mapping[str, Any], *, experiment: Experiment, path: Path) -> None:
    """A panel per task: a dot for each seed, a line at each mean; what others reached dashed."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    mpl.rcParams["svg.hashsalt"] = "polytower"  # the same results give the same file
    variants = result["variants"]
    tasks = list(next(iter(variants.values())))
    figure, axes = pyplot.subplots(
        1,
        len(tasks),
        figsize=(1 + 3.4 * len(tasks), 1.2 + 0.28 * len(variants)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, task in zip(axes[0], tasks, strict=True):
        for row, values in enumerate(variants.values()):
            axis.scatter(values[task], [row] * len(values[task]), s=12, alpha=0.5, color="C0")
            axis.scatter([np.mean(values[task])], [row], marker="|", s=120, color="C0")
        for index, (author, figures) in enumerate(experiment.published.items()):
            if task in figures:
                axis.axvline(figures[task], linestyle=":", color=f"C{index + 1}", label=author)
        if task in result["best"]:
            axis.axvline(result["best"][task], linestyle="--", color="black", label="best possible")
        axis.set_title(task, fontsize=10)
        axis.set_xlabel(result["metric"])
        axis.grid(axis="x", alpha=0.3)
    axes[0][0].set_yticks(range(len(variants)), list(variants))
    axes[0][0].invert_yaxis()
    handles, labels = axes[0][-1].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
