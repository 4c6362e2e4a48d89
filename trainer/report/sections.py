"""What a report says of the run as a whole: facts, results, learning, the recipe.

A section is HTML, or None where the run has nothing to fill it with.
"""

from __future__ import annotations

import html
from typing import Any

from trainer.charts import Line, Panel, line_chart
from trainer.report.run_data import QUALITIES, SLICED, RunData
from trainer.report.tables import number, table

# of a task's results; what is known of slices and of the best possible stands elsewhere
_NOT_METRICS = ("examples",)


def summary_section(run: RunData) -> str | None:
    """Facts of the run, and where its tables lie."""
    facts = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(str(value))}</dd>"
        for name, value in _facts(run).items()
        if value is not None
    )
    plan = _plan(run.summary["plan"]) if run.summary is not None else ""
    return f"<dl>{facts}</dl>{plan}"


def _facts(run: RunData) -> dict[str, Any]:
    recipe, summary = run.recipe, run.summary
    last = summary or (run.train[-1] if run.train else {})
    steps = last.get("steps", last.get("step"))
    rate, wait = last.get("examples_per_second"), last.get("data_wait_fraction")
    stopped = " (stopped early)" if last.get("stopped_early") else ""
    return {
        "recipe": recipe["run"].get("name"),
        "run": run.uri,
        "state": "finished" + stopped if summary is not None else "not finished",
        "architecture": recipe.get("model", {}).get("architecture"),
        "balance": recipe.get("balance", {}).get("method"),
        "steps": None if steps is None else f"{steps:,}",
        "examples": None if "examples" not in last else f"{last['examples']:,}",
        "seconds": None if "seconds" not in last else f"{last['seconds']:,.1f}",
        "ranks": last.get("world_size"),
        "speed": None if rate is None else f"{rate:,.0f} examples per second",
        "waiting for data": None if wait is None else f"{wait:.1%} of the time",
        "skipped examples": f"{last['skipped']:,}" if last.get("skipped") else None,
        "checkpoint": last.get("checkpoint"),
    }


def _plan(placements: list[dict[str, Any]]) -> str:
    rows = [
        [
            item["table"],
            item["num_rows"],
            item["dim"],
            item["sharding"],
            ", ".join(map(str, item["ranks"])),
            round(item["rank_bytes"] / 2**20, 2),
        ]
        for item in placements
    ]
    columns = ["table", "rows", "dim", "sharding", "ranks", "MiB a rank"]
    return table(columns, rows, caption="Sharding plan")


def results_section(run: RunData) -> str | None:
    """Each task's metrics beside the best possible; tasks of one kind share a table."""
    if run.judged is None:
        return None
    title, judged = run.judged
    groups: dict[tuple[str, ...], list[str]] = {}
    for task, result in judged["tasks"].items():
        groups.setdefault(tuple(_metrics(result, run=run)), []).append(task)
    found = [f"<p>Of {html.escape(title)}.</p>"]
    for metrics, tasks in groups.items():
        results = {task: judged["tasks"][task] for task in tasks}
        known = [
            metric
            for metric in metrics
            if any(result.get(f"best_{metric}") is not None for result in results.values())
        ]
        columns = ["task", "labels"]
        for metric in metrics:
            columns += [words(metric), *(["best possible"] if metric in known else [])]
        rows = []
        for task, result in results.items():
            row = [task, result["examples"]]
            for metric in metrics:
                row += [
                    result[metric],
                    *([result.get(f"best_{metric}")] if metric in known else []),
                ]
            rows.append(row)
        found.append(table(columns, rows))
    return "".join(found)


def _metrics(result: dict[str, Any], *, run: RunData) -> list[str]:
    sliced = {
        f"{metric}_{feature}_{part}"
        for metric in (*SLICED, "examples")
        for feature in run.recipe["data"]["features"]
        for part in ("warm", "cold")
    }
    return [
        name
        for name in result
        if name not in sliced and name not in _NOT_METRICS and not name.startswith("best_")
    ]


def learning_section(run: RunData) -> str | None:
    """A chart for each task: its loss, and what says best how well it does."""
    charts = []
    for task in run.tasks:
        panels = []
        results = [line["tasks"][task] for line in run.train + run.valid if task in line["tasks"]]
        quality = next((name for name in QUALITIES if any(name in item for item in results)), None)
        for metric in dict.fromkeys(["loss", quality] if quality else ["loss"]):
            lines = [*_curves(run, task=task, metric=metric)]
            if lines:
                panels.append(Panel(f"{task}: {words(metric)}", lines))
        if panels:
            metrics = " and ".join(panel.title.partition(": ")[2] for panel in panels)
            charts.append(line_chart(panels, alt=f"{task}: {metrics} over the steps"))
    return figures(charts)


def _curves(run: RunData, *, task: str, metric: str) -> list[Line]:
    lines = []
    for split, reports in (("train", run.train), ("valid", run.valid)):
        points = [
            (line["step"], line["tasks"][task][metric])
            for line in reports
            if line["tasks"].get(task, {}).get(metric) is not None
        ]
        if points:
            lines.append(Line(split, [x for x, _ in points], [y for _, y in points]))
    best = run.valid[-1]["tasks"].get(task, {}).get(f"best_{metric}") if run.valid else None
    if lines and best is not None:
        steps = [x for line in lines for x in line.xs]
        # of a single point, a line as wide as its axes
        ends = [min(steps), max(steps)] if min(steps) < max(steps) else [steps[0], steps[0] + 1]
        lines.append(Line("best possible on valid", ends, [best, best], is_dashed=True))
    return lines


def speed_section(run: RunData) -> str | None:
    """Examples per second between reports."""
    if len(run.train) < 2:
        return None
    steps = [line["step"] for line in run.train]
    rates = [line["examples_per_second"] for line in run.train]
    panel = Panel("examples per second", [Line("train", steps, rates)])
    text = f"<p>Median {number(round(sorted(rates)[len(rates) // 2]))} examples per second.</p>"
    return text + (figures([line_chart([panel], alt="examples per second over the steps")]) or "")


def recipe_section(run: RunData) -> str | None:
    return f"<pre><code>{html.escape(run.recipe_text)}</code></pre>"


def words(metric: str) -> str:
    """A metric's name as people write it."""
    short = {"auc": "AUC", "mse": "MSE", "mae": "MAE", "r2": "R²"}
    return " ".join(short.get(part, part) for part in metric.split("_"))


def figures(charts: list[str]) -> str | None:
    """Charts below one another; None for none."""
    return "".join(f"<figure>{chart}</figure>" for chart in charts) if charts else None
