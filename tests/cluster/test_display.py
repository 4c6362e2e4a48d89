"""What a person sees in the terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from cluster import display
from cluster.display import (
    counting_progress,
    print_notes,
    print_summary,
    print_tasks,
    training_progress,
)
from trainer.progress import Progress, throttled


def test_a_note_is_never_throttled_and_stands_on_a_line_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whatever else is told at the same moment."""
    with training_progress() as show:
        tell = throttled(show)
        for step in range(5):
            note = "skipped 3 examples of [file]: why" if step == 3 else ""
            tell(Progress("train", step, 9, 1.0, {}, note))
        print_notes([])
    lines = capsys.readouterr().out.splitlines()
    assert lines.count("skipped 3 examples of [file]: why") == 1


def test_a_score_is_no_step(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing was read when it is told, at 0 examples/s; what stood there stays."""
    with training_progress() as show:
        show(Progress("evaluate", 9, 9, 0.0, {}, score=0.5))
        show(Progress("evaluate", 3, 9, 7.0, {}))
    assert capsys.readouterr().out.split() == ["evaluate", "3/9", "7", "examples/s"]


def test_a_terminal_shows_what_is_being_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """An evaluation with a note of its own; at a score or a note, which come without a rate, what
    training said last stands again.
    """
    written = io.StringIO()
    console = Console(
        file=written, width=100, force_terminal=True, force_interactive=True, color_system=None
    )
    monkeypatch.setattr(display, "console", console)
    training = Progress("train", 3, 9, 1250.0, {"click": 0.5, "watch": 1.25})
    trained = "1,250 examples/s; loss click 0.500, watch 1.250"
    evaluation = Progress("evaluate", 2, 4, 70.0, {})
    with training_progress() as show:
        for progress, shown, note in (
            (training, "training 3/9", trained),
            (evaluation, "evaluating 2/4", "70 examples/s"),
            (Progress("evaluate", 4, 9, 0.0, {}, score=0.5), "training 4/9", trained),
            (evaluation, "evaluating 2/4", "70 examples/s"),
            (Progress("train", 5, 9, 0.0, {}, note="stopped early"), "training 5/9", trained),
        ):
            show(progress)
            console.print("drawn again")
            frame = written.getvalue().rpartition("drawn again\n")[2]
            [phase, count] = shown.split()
            words = set(frame.split())
            assert words & {"training", "evaluating", "3/9", "2/4", "4/9", "5/9"} == {phase, count}
            assert frame.splitlines()[-1].strip() == note
    assert written.getvalue().count("stopped early\n") == 1


SUMMARY = {
    "tasks": {},
    "plan": [],
    "evaluated_on": "test",
    "examples": 10,
    "steps": 2,
    "world_size": 1,
    "examples_per_second": 5.0,
    "seconds": 2.0,
    "data_wait_fraction": 0.0,
    "checkpoint": "run/checkpoints/step-00000002",
}


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ((0, 0, 0, 0), ""),
        ((1234, 0, 0, 0), "skipped 1,234 examples in training: see"),
        ((1234, 1, 0, 0), "and 1 file of unknown length in training: see"),
        ((0, 0, 5, 2), "skipped 5 examples in evaluation and 2 files of unknown length in"),
    ],
)
def test_a_summary_says_how_much_was_left_out(
    capsys: pytest.CaptureFixture[str], counts: tuple[int, int, int, int], said: str
) -> None:
    """In one line, if anything was."""
    names = ["skipped", "skipped_uncounted_files"]
    keys = [*names, *(f"evaluation_{name}" for name in names)]
    print_summary(SUMMARY | dict(zip(keys, counts, strict=True)), run_uri="run")
    lines = [line for line in capsys.readouterr().out.splitlines() if "skipped" in line]
    assert len(lines) == bool(said)
    assert said in "".join(lines)


def test_numbers_are_whole_on_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long names of tasks go on in another line, in full."""
    written = io.StringIO()
    monkeypatch.setattr(display, "console", Console(file=written, width=80))
    name = "finished_reading_of_an_article_on_the_front_page"
    result = {
        "examples": 123_456_789.0,
        "auc": 0.57123,
        "best_auc": 0.61239,
        "normalized_entropy": 0.98765,
        "best_normalized_entropy": 0.92341,
        "calibration": 1.0024,
        "examples_article_id_warm": 11_222_333.0,
        "auc_article_id_warm": 0.58147,
        "examples_article_id_cold": 99_888_777.0,
        "auc_article_id_cold": 0.51369,
    }
    print_tasks({name: result}, title="evaluation on test")
    for table in written.getvalue().split("known ids"):
        words = [line.split() for line in table.splitlines()]
        assert "".join(line[0] for line in words if line and line[0] in name) == name
    text = written.getvalue()
    assert "…" not in text
    for number in ("123,456,789", "0.5712", "0.6124", "0.0412", "0.9877", "0.9234", "1.002"):
        assert number in text
    for number in ("11,222,333", "0.5815", "99,888,777", "0.5137"):
        assert number in text


def test_one_is_not_in_the_plural(capsys: pytest.CaptureFixture[str]) -> None:
    """Steps and ranks of the summary."""
    counts = dict.fromkeys(("skipped", "evaluation_skipped"), 0)
    counts |= dict.fromkeys(("skipped_uncounted_files", "evaluation_skipped_uncounted_files"), 0)
    print_summary(SUMMARY | counts | {"steps": 1, "world_size": 1}, run_uri="run")
    assert "in 1 step on 1 rank\n" in capsys.readouterr().out
    print_summary(SUMMARY | counts | {"steps": 1_200, "world_size": 2}, run_uri="run")
    assert "in 1,200 steps on 2 ranks\n" in capsys.readouterr().out


def test_what_is_refused_at_once_has_no_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is drawn before the first count is told."""
    with pytest.raises(ValueError, match="wrong"), counting_progress("counting", total=3):
        raise ValueError("wrong")
    assert capsys.readouterr().out == ""
    with counting_progress("counting", total=3) as show:
        show(3)
    assert "3/3" in capsys.readouterr().out
