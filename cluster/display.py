"""What a person sees in the terminal: progress bars while it works, tables when it is done."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as ProgressBar,
)
from rich.text import Text

from cluster.task_tables import cold_start_table, new_table, task_tables
from data_loaders.errors import counted

if TYPE_CHECKING:
    from trainer.progress import Progress

# Without a terminal (a job's log) a bar is noise: a line now and then.
LINE_INTERVAL_SECONDS = 10.0

console = Console(highlight=False)


def print_error(message: str) -> None:
    """One line on standard error, never wrapped or interpreted."""
    Console(stderr=True, highlight=False).print(
        f"[bold red]error:[/] {_plain(message)}", soft_wrap=True
    )


@contextlib.contextmanager
def training_progress() -> Iterator[Callable[[Progress], None]]:
    """Shows a run's progress; yields the listener to tell it to."""
    if console.is_terminal:
        bar, note = _bar(), Text(style="dim")
        with Live(Group(bar, note), console=console):
            task = bar.add_task("starting ranks", total=None)
            trained = ""

            def show(progress: Progress) -> None:
                nonlocal trained
                print_notes([progress.note] if progress.note else [])
                if progress.losses:
                    trained = _note(progress)
                # a score, or a note, stands where training does, and comes without a rate
                is_training = progress.phase == "train" or not progress.examples_per_second
                bar.update(
                    task,
                    description="training" if is_training else "evaluating",
                    completed=progress.step,
                    total=progress.num_steps,
                )
                note.plain = f"  {trained if is_training else _note(progress)}"

            yield show
    else:
        last_line = 0.0

        def log(progress: Progress) -> None:
            nonlocal last_line
            print_notes([progress.note] if progress.note else [])
            if not progress.examples_per_second:
                return
            if time.monotonic() - last_line >= LINE_INTERVAL_SECONDS:
                last_line = time.monotonic()
                console.print(
                    f"{progress.phase} {progress.step}/{progress.num_steps} {_note(progress)}",
                    soft_wrap=True,
                )

        yield log


@contextlib.contextmanager
def counting_progress(description: str, *, total: int | None) -> Iterator[Callable[[int], None]]:
    """Shows how many of `total` are done; yields the function to tell it the count.

    Nothing is shown before the first call: what is refused at once has no bar.
    """
    with contextlib.ExitStack() as stack:
        bar = _bar()
        task = bar.add_task(description, total=total)

        def show(done: int) -> None:
            if not bar.live.is_started:
                stack.enter_context(bar)
            bar.update(task, completed=done)

        yield show


@contextlib.contextmanager
def phases_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Shows phases one after another; yields the function to tell it (phase, done, total)."""
    with _bar() as bar:
        task = bar.add_task("starting", total=None)
        shown = ""

        def show(phase: str, done: int, total: int) -> None:
            nonlocal shown
            if phase != shown:  # the time that remains is not told from the speed of another phase
                bar.reset(task)
                shown = phase
            bar.update(task, description=phase, completed=done, total=total)

        yield show


def print_tasks(tasks: dict[str, dict[str, Any]], *, title: str) -> None:
    """Each task's metrics, beside the best that is possible where that is known."""
    for table in task_tables(tasks, title=title):
        console.print(table)
    cold_start = cold_start_table(tasks)
    if cold_start.row_count:
        console.print(cold_start)


def print_rejected(reasons: Mapping[str, int], *, num_kept: int, folder: str) -> None:
    """Why rows of a raw log were left out, the most frequent reason first; more than half is no
    accident of the log, but of the recipe, which is said.
    """
    if not reasons:
        return
    table = new_table("rejected rows", ["reason", "rows"])
    for reason, count in reasons.items():
        table.add_row(_plain(reason), f"{count:,}")
    console.print(table)
    console.print(f"they are in {folder}", soft_wrap=True, markup=False)
    if (num_rejected := sum(reasons.values())) > num_kept:
        share = f"{num_rejected:,} of {num_rejected + num_kept:,} rows"
        console.print(f"[yellow]{share} were rejected: is it the recipe?", soft_wrap=True)


def print_notes(lines: Sequence[str]) -> None:
    """What a person should know of a run, a line each."""
    for line in lines:
        console.print(f"[yellow]{_plain(line)}", soft_wrap=True)


def print_plan(placements: Sequence[dict[str, Any]], *, most: int = 20) -> None:
    """The sharding plan, the largest tables first."""
    table = new_table(
        "\nsharding plan", ["table", "rows", "dim", "sharding", "ranks", "MiB a rank"]
    )
    for item in placements[:most]:
        ranks = (
            ", ".join(map(str, item["ranks"]))
            if len(item["ranks"]) <= 8
            else f"{len(item['ranks'])} ranks"
        )
        size = f"{item['rank_bytes'] / 2**20:,.2f}"
        table.add_row(
            item["table"], f"{item['num_rows']:,}", str(item["dim"]), item["sharding"], ranks, size
        )
    console.print(table)
    if len(placements) > most:
        console.print(f"and {counted(len(placements) - most, 'smaller table')}", style="dim")


def print_summary(summary: dict[str, Any], *, run_uri: str) -> None:
    """A finished run."""
    print_tasks(summary["tasks"], title=f"evaluation on {summary['evaluated_on']}")
    for name, result in summary["tasks"].items():
        if not result["examples"]:
            console.print(f"[yellow]task {name} has no observed label there: look at its column")
    if summary["evaluated_on"] == "train":
        console.print(
            "[yellow]the data set has no test/ and no valid/: this is what was trained on"
        )
    skipped = _skipped_in_words(summary)
    if skipped:
        print_notes([f"skipped {skipped}: see metrics.jsonl and summary.json of the run"])
    print_plan(summary["plan"])
    facts = {
        "examples": f"{summary['examples']:,} in {counted(summary['steps'], 'step')} "
        f"on {counted(summary['world_size'], 'rank')}",
        "speed": f"{summary['examples_per_second']:,.0f} examples/s "
        f"over {summary['seconds']:,.1f} s, "
        f"{summary['data_wait_fraction']:.1%} of it waiting for data",
        "checkpoint": summary["checkpoint"] + _why_chosen(summary),
        "run": run_uri,
    }
    for name, value in facts.items():
        console.print(f"[bold]{name:<11}[/]{_plain(str(value))}", soft_wrap=True)


def _skipped_in_words(summary: dict[str, Any]) -> str:
    """Empty if nothing was left out."""
    parts = []
    for prefix, where in (("", "training"), ("evaluation_", "evaluation")):
        num_examples = summary[f"{prefix}skipped"]
        num_files = summary[f"{prefix}skipped_uncounted_files"]
        if num_examples:
            parts.append(f"{counted(num_examples, 'example')} in {where}")
        if num_files:
            parts.append(f"{counted(num_files, 'file')} of unknown length in {where}")
    return " and ".join(parts)


def _why_chosen(summary: dict[str, Any]) -> str:
    is_last = summary["checkpoint"].endswith(f"-{summary['steps']:08d}")
    return "" if is_last else ", the best on valid"


def _bar() -> ProgressBar:
    return ProgressBar(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        console=console,
    )


def _note(progress: Progress) -> str:
    losses = ", ".join(f"{name} {loss:.3f}" for name, loss in progress.losses.items())
    return f"{progress.examples_per_second:,.0f} examples/s" + (
        f"; loss {losses}" if losses else ""
    )


def _plain(text: str) -> str:
    return text.replace("[", "\\[")
