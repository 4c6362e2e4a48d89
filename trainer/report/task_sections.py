"""What a report says of how the tasks live together, and where each is right or wrong."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trainer.charts import Bars, Line, Panel, bar_chart, heat_map, line_chart
from trainer.report.run_data import SLICED, RunData
from trainer.report.sections import figures, words
from trainer.report.tables import table
from trainer.task_charts import calibration_panel, importance_bars

# more lines than these cannot be told apart
_MOST_LINES = 10


def gradients_section(run: RunData) -> str | None:
    """Cosines of each pair of tasks and norms, over the steps; means of the cosines."""
    lines = [line for line in run.train if "gradients" in line]
    if not lines:
        return None
    pairs = {
        (one, two): _series(lines, "gradients", "cosines", one, two)
        for index, one in enumerate(run.tasks)
        for two in run.tasks[index + 1 :]
    }
    known = {pair: line for pair, line in pairs.items() if line.xs}
    charts = []
    if known:
        lowest = sorted(known, key=lambda pair: _mean(known[pair]))[:_MOST_LINES]
        named = [Line(", ".join(pair), known[pair].xs, known[pair].ys) for pair in lowest]
        which = f": {len(lowest)} lowest of {len(known)} pairs" if len(known) > len(lowest) else ""
        panel = Panel(f"cosine between the gradients of two tasks{which}", named)
        charts.append(line_chart([panel], alt="cosines of the tasks' gradients over the steps"))
        charts.append(_mean_cosines(run.tasks, known))
    norms = [_series(lines, "gradients", "norms", task) for task in run.tasks]
    panel = Panel("norm of each task's gradient", _named(run.tasks, norms))
    charts.append(line_chart([panel], alt="norms of the tasks' gradients over the steps"))
    return (
        "<p>Where the tasks meet: gradients of their weighted losses by what all share of a batch, "
        "in single steps. Below 0, two tasks pull against each other.</p>" + (figures(charts) or "")
    )


def _mean(line: Line) -> float:
    return sum(line.ys) / len(line.ys)


def _mean_cosines(tasks: list[str], known: dict[tuple[str, str], Line]) -> str:
    means = {pair: _mean(line) for pair, line in known.items()}
    values = [
        [1.0 if one == two else means.get((one, two), means.get((two, one))) for two in tasks]
        for one in tasks
    ]
    alt = "mean cosine of each pair of tasks: " + ", ".join(
        f"{one} and {two} {mean:.2f}" for (one, two), mean in means.items()
    )
    return heat_map(
        values,
        rows=tasks,
        columns=tasks,
        title="mean of the cosines over the steps",
        low=-1,
        high=1,
        alt=alt,
    )


def weights_section(run: RunData) -> str | None:
    """How much each task counts, over the steps."""
    lines = [line for line in run.train if "loss_weights" in line]
    if not lines:
        return None
    weights = [_series(lines, "loss_weights", task) for task in run.tasks]
    panels = [Panel("weight of each task", _named(run.tasks, weights))]
    text = (
        "<p>What a task's loss counts for in the parts that all share: the recipe's weight, times "
        "what the balancing method makes of it.</p>"
    )
    return text + (figures([line_chart(panels, alt="weights of the tasks over the steps")]) or "")


def gates_section(run: RunData) -> str | None:
    """What each task's gate gives the experts, and how undecided it is."""
    lines = [line for line in run.train if "gates" in line]
    if not lines:
        return None
    tasks = [task for task in run.tasks if task in lines[-1]["gates"]]
    last = {task: lines[-1]["gates"][task]["weights"] for task in tasks}
    num_experts = max(map(len, last.values()))
    rows = [[*last[task], *[None] * (num_experts - len(last[task]))] for task in tasks]
    experts = [f"expert {index}" for index in range(num_experts)]
    step = f"step {lines[-1]['step']:,}"
    charts = [
        heat_map(
            rows,
            rows=tasks,
            columns=experts,
            title=f"mean weight of each expert at {step}",
            low=0,
            high=max(value for weights in last.values() for value in weights),
            alt=f"mean weight of each expert in each task's gate at {step}",
        )
    ]
    entropies = _named(tasks, [_series(lines, "gates", task, "entropy") for task in tasks])
    panel = Panel("mean entropy of each task's gate, nats", entropies)
    charts.append(line_chart([panel], alt="entropies of the tasks' gates over the steps"))
    panels = [
        Panel(
            f"{task}: mean weight of each expert",
            [
                Line(name, [line["step"] for line in lines], values)
                for name, values in zip(
                    experts,
                    zip(*(line["gates"][task]["weights"] for line in lines), strict=True),
                    strict=False,
                )
            ],
        )
        for task in tasks
    ]
    charts.append(line_chart(panels, alt="mean weights of the experts over the steps, by task"))
    text = (
        "<p>What the gate before each task's tower gives the experts, means over the examples of "
        "single steps; a gate that gives all the same has the highest entropy. A task's own "
        "experts come first, then those that it shares.</p>"
    )
    return text + (figures(charts) or "")


def calibration_section(run: RunData) -> str | None:
    """Mean prediction against the observed rate, in parts of the examples."""
    judged = run.judged
    if judged is None or not judged[1].get("calibration_curves"):
        return None
    title, curves = judged[0], judged[1]["calibration_curves"]
    panels = [calibration_panel(task, curve) for task, curve in curves.items()]
    alt = f"calibration of {', '.join(curves)}"
    text = f"<p>Of {title}; each point stands for as many examples.</p>"
    return text + (figures([line_chart(panels, alt=alt)]) or "")


def slices_section(run: RunData) -> str | None:
    """Each task on examples whose id is known, and on those whose id is rare or new."""
    if run.judged is None:
        return None
    title, judged = run.judged
    rows, known_best = [], False
    for feature in run.recipe["data"]["features"]:
        for task, result in judged["tasks"].items():
            for metric in SLICED:
                if f"{metric}_{feature}_warm" not in result:
                    continue
                row: list[Any] = [feature, task, words(metric)]
                for part in ("warm", "cold"):
                    best = result.get(f"best_{metric}_{feature}_{part}")
                    known_best |= best is not None
                    row += [
                        result[f"examples_{feature}_{part}"],
                        result[f"{metric}_{feature}_{part}"],
                        best,
                    ]
                rows.append(row)
    if not rows:
        return None
    columns = ["id", "task", "metric"]
    for part in ("known ids", "rare or new ids"):
        columns += [f"labels of {part}", f"{part}", "best possible"]
    if not known_best:
        columns = [name for name in columns if name != "best possible"]
        rows = [[*row[:5], *row[6:8]] for row in rows]
    text = f"<p>Of {title}, by whether training knew the id.</p>"
    charts = _slice_charts(judged["tasks"], run.recipe["data"]["features"])
    return text + (figures(charts) or "") + table(columns, rows)


def _slice_charts(results: dict[str, dict[str, Any]], features: Iterable[str]) -> list[str]:
    """Bars for each task that has an AUC, beginning at what guessing reaches."""
    panels = []
    for task, result in results.items():
        found = {
            f"{feature}, {words_of_part}": result.get(f"auc_{feature}_{part}")
            for feature in features
            for part, words_of_part in (("warm", "known"), ("cold", "rare or new"))
        }
        above = {name: auc - 0.5 for name, auc in found.items() if auc is not None}
        if above:
            panels.append(Bars(task, list(above), list(above.values()), x_label="AUC above 0.5"))
    return [bar_chart(panels, alt="AUC of each task by whether ids are known")] if panels else []


def importance_section(run: RunData) -> str | None:
    """What each task loses without each feature."""
    if run.importance is None:
        return None
    tasks = run.importance["importance"]["tasks"]
    panels = [importance_bars(task, found) for task, found in tasks.items()]
    names = list(next(iter(tasks.values()))["features"])
    rows = [[name, *(found["features"][name] for found in tasks.values())] for name in names]
    text = (
        f"<p>How much worse a task gets on {run.importance['split']} when a feature's values are "
        "permuted among the examples of each batch. Features that say the same share what they "
        "are worth.</p>"
    )
    chart = bar_chart(panels, alt=f"importance of the features for {', '.join(tasks)}")
    return text + (figures([chart]) or "") + table(["feature", *tasks], rows)


def _series(lines: list[dict[str, Any]], *path: str) -> Line:
    """A number of each line, by the keys that lead to it; lines without it are left out."""
    xs, ys = [], []
    for line in lines:
        value: Any = line
        for key in path:
            value = value.get(key, {}) if isinstance(value, dict) else None
        if isinstance(value, int | float):
            xs.append(line["step"])
            ys.append(value)
    return Line(path[-1], xs, ys)


def _named(names: list[str], lines: list[Line]) -> list[Line]:
    return [
        Line(name, line.xs, line.ys) for name, line in zip(names, lines, strict=True) if line.xs
    ]
