"""The accuracy table for people: Markdown with a plot for each experiment.

Shape legend: S seeds, T tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy_experiments import Experiment
from benchmarks.accuracy_results import gaps_of, known_variants, of_all_tasks

HEAD = """# Accuracy

Every figure is on test, of a checkpoint chosen on valid; where there is no valid, of the last one.
`make accuracy` writes them all; the command above a table writes that table, and with
`--variant ROW` a row of it; raw files lie in `raw`, or where `--source` says. Mean over the seeds,
and their standard deviation; the column `on valid` has the mean of the scores that chose the
checkpoints ([what a score is](recipe.md#what-may-change-when-a-run-goes-on)). Bold is the best of
ours; a figure in brackets is what somebody else published or reached.
"""
USUAL_SEEDS = 5  # of `polytower bench accuracy`


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
    plots = path.parent / "accuracy"
    plots.mkdir(parents=True, exist_ok=True)
    parts = [HEAD]
    for name, experiment in experiments.items():
        members = {
            member: item
            for member, item in experiment.members(name).items()
            if member in results and known_variants(experiment, results[member])
        }
        if not members:
            continue
        plot = plots / f"{name}.svg"
        if experiment.correlations:
            found = {item.correlation or 0.0: results[member] for member, item in members.items()}
            _plot_curves(found, experiment=experiment, path=plot)
            table = _curves_table(experiment, found)
            num_seeds = min(_num_seeds(result) for result in found.values())
        else:
            _plot(results[name], experiment=experiment, path=plot)
            table = _task_table(experiment, results[name])
            num_seeds = _num_seeds(results[name])
        parts.append("\n".join(_section(name, experiment, table=table, num_seeds=num_seeds)))
    path.write_text("\n".join(parts))


def _num_seeds(result: Mapping[str, Any]) -> int:
    return max(len(values) for tasks in result["variants"].values() for values in tasks.values())


def _section(
    name: str, experiment: Experiment, *, table: Iterable[str], num_seeds: int
) -> Iterator[str]:
    yield f"\n## {experiment.title}\n"
    if experiment.text:
        yield f"{experiment.text.strip()}\n"
    seeds = "" if num_seeds == USUAL_SEEDS else f" --seeds {num_seeds}"
    yield f"`polytower bench accuracy {name}{seeds}`, {num_seeds} seed{'s' * (num_seeds > 1)}\n"
    yield f"{_recipe(experiment)}\n"
    yield from table
    yield f"\n![{experiment.title}](accuracy/{name}.svg)\n"


def _recipe(experiment: Experiment) -> str:
    """What all rows have in common."""
    overrides = [f"`{text}`" for text in experiment.overrides]
    if experiment.table_dim is not None:
        overrides.append(f"`dim: {experiment.table_dim}` of all tables")
    with_them = f" with {', '.join(overrides)}" if overrides else ""
    return f"Recipe `{experiment.recipe}`{with_them}; in each row also what differs."


def _task_table(experiment: Experiment, result: Mapping[str, Any]) -> Iterator[str]:
    """A row for each variant, a column for each task."""
    variants = known_variants(experiment, result)
    tasks = list(next(iter(variants.values())))
    titles = [
        f"{task} ({metric})" if (metric := experiment.metric_of(task)) != result["metric"] else task
        for task in tasks
    ]
    num_seeds = _num_seeds(result)
    yield f"| {result['metric']} | {' | '.join(titles)} | on valid | what differs |"
    yield f"|---|{'---|' * (len(tasks) + 2)}"
    best = {task: _best(variants, task, metric=experiment.metric_of(task)) for task in tasks}
    for variant, values in variants.items():
        cells = []
        for task in tasks:
            text = _mean_and_spread(values[task])
            cells.append(f"**{text}**" if variant == best[task] else text)
        cells.append(_mean_on_valid(result["valid"].get(variant, ())))
        own_seeds = max(len(item) for item in values.values())
        fewer = "" if own_seeds == num_seeds else f"; {own_seeds} of the seeds"
        yield f"| {variant} | {' | '.join(cells)} | {_what_differs(experiment, variant)}{fewer} |"
    for author, figures in experiment.published.items():
        cells = [f"({figures[task]:.4f})" if task in figures else "" for task in tasks]
        yield f"| {author} | {' | '.join(cells)} | | |"
    if result["best"]:
        cells = [f"{result['best'][task]:.4f}" if task in result["best"] else "" for task in tasks]
        yield f"| best possible | {' | '.join(cells)} | | the truth that drew the labels |"
        cells = [
            f"{abs(result['best'][task] - np.mean(variants[best[task]][task])):.4f}"
            if task in result["best"]
            else ""
            for task in tasks
        ]
        yield f"| distance | {' | '.join(cells)} | | of the best of ours |"
    if experiment.goals:
        cells = [
            f"{experiment.goals[task]:.4f}" if task in experiment.goals else "" for task in tasks
        ]
        yield f"| goal | {' | '.join(cells)} | | |"


def _mean_on_valid(scores_S: Sequence[float | None]) -> str:
    found = [score for score in scores_S if score is not None]
    return f"{np.mean(found):.4f}" if found else ""


def _what_differs(experiment: Experiment, variant: str) -> str:
    item = experiment.variants[variant]
    overrides = ", ".join(f"`{text}`" for text in item.overrides)
    return "; ".join(text for text in (overrides, item.note) if text)


def _curves_table(
    experiment: Experiment, results: Mapping[float, Mapping[str, Any]]
) -> Iterator[str]:
    """A row for each correlation, a column for each variant; both tasks count alike."""
    variants = list(known_variants(experiment, next(iter(results.values()))))
    yield f"| {experiment.metric} | {' | '.join(variants)} | best possible |"
    yield f"|---|{'---|' * len(variants)}---|"
    for correlation, result in results.items():
        values_TS = {variant: of_all_tasks(result, variant) for variant in variants}
        means = {
            variant: {"mean": values.mean(0).tolist()} for variant, values in values_TS.items()
        }
        best = _best(means, "mean", metric=experiment.metric)
        cells = []
        for variant in variants:
            text = _mean_and_spread(means[variant]["mean"])
            text = f"**{text}**" if variant == best else text
            cells.append(f"{text}, median {np.median(values_TS[variant]):.4f}")
        possible = f"{np.mean(list(result['best'].values())):.4f}" if result["best"] else ""
        yield f"| correlation {correlation:g} | {' | '.join(cells)} | {possible} |"
    cells = [_what_differs(experiment, variant) for variant in variants]
    yield f"| what differs | {' | '.join(cells)} | the truth that drew the labels |"
    if gaps := gaps_of(experiment, results):
        assert experiment.gap is not None
        yield (
            f"\nHow far below `{experiment.gap.baseline}`, in the mean of the tasks below "
            f"{experiment.gap.stuck_from}, with its standard error; in brackets how many are not.\n"
        )
        yield f"| gap | {' | '.join(gaps)} |"
        yield f"|---|{'---|' * len(gaps)}"
        for index, correlation in enumerate(results):
            cells = [str(by_correlation[index]) for by_correlation in gaps.values()]
            yield f"| correlation {correlation:g} | {' | '.join(cells)} |"


def _mean_and_spread(values_S: Sequence[float]) -> str:
    spread = f" ± {np.std(values_S, ddof=1):.4f}" if len(values_S) > 1 else ""
    return f"{np.mean(values_S):.4f}{spread}"


def _best(variants: Mapping[str, Any], task: str, *, metric: str) -> str:
    sign = 1 if metric == "auc" else -1
    return max(variants, key=lambda name: sign * float(np.mean(variants[name][task])))


def _plot(result: Mapping[str, Any], *, experiment: Experiment, path: Path) -> None:
    """A panel per task: a dot for each seed, a line at each mean; what others reached dashed."""
    pyplot = _pyplot()
    variants = known_variants(experiment, result)
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
        axis.set_xlabel(experiment.metric_of(task))
        axis.locator_params(axis="x", nbins=5)
        axis.grid(axis="x", alpha=0.3)
    axes[0][0].set_yticks(range(len(variants)), list(variants))
    axes[0][0].invert_yaxis()
    handles, labels = axes[0][-1].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _plot_curves(
    results: Mapping[float, Mapping[str, Any]], *, experiment: Experiment, path: Path
) -> None:
    """A dot for each task of each run, a line through each variant's medians; beside it the gaps
    from the baseline.
    """
    pyplot = _pyplot()
    variants = list(known_variants(experiment, next(iter(results.values()))))
    gaps = gaps_of(experiment, results)
    width = 11 if gaps else 7
    figure, axes = pyplot.subplots(
        1, 1 + bool(gaps), figsize=(width, 4), squeeze=False, layout="constrained"
    )
    axis = axes[0][0]
    step = 0.08 * float(np.diff(sorted(results)).min(initial=1.0))  # between variants' dots
    for index, variant in enumerate(variants):
        shift, color = (index - (len(variants) - 1) / 2) * step, f"C{index}"
        values = [of_all_tasks(result, variant).ravel() for result in results.values()]
        for place, dots in zip(results, values, strict=True):
            axis.scatter([place + shift] * len(dots), dots, s=9, alpha=0.4, color=color)
        medians = [np.median(dots) for dots in values]
        axis.plot(list(results), medians, marker="_", color=color, label=f"{variant}, median")
        if variant in gaps:
            heights = [gap.mean for gap in gaps[variant]]
            errors = [gap.standard_error for gap in gaps[variant]]
            places = [place + shift for place in results]
            axes[0][1].errorbar(places, heights, errors, marker="o", capsize=3, color=color)
    possible = {value: result["best"] for value, result in results.items() if result["best"]}
    if possible:
        heights = [np.mean(list(best.values())) for best in possible.values()]
        axis.plot(list(possible), heights, "--", color="black", label="best possible")
    axis.set_xlabel("correlation of the tasks' weights")
    axis.set_xticks(list(results))
    axis.set_yscale("log")
    axis.set_ylabel(f"{experiment.metric} of a task")
    if experiment.gap is not None and gaps:
        beside = axes[0][1]
        beside.axhline(0, color="black", linewidth=0.6)
        beside.set_xlabel(axis.get_xlabel())
        beside.set_xticks(list(results))
        beside.set_ylabel(f"below {experiment.gap.baseline}, tasks < {experiment.gap.stuck_from}")
        beside.grid(alpha=0.3)
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _pyplot() -> Any:
    """Of matplotlib, whose SVGs are the same bytes for the same results."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    mpl.rcParams["svg.hashsalt"] = "polytower"
    return pyplot
