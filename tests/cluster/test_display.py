"""What a person sees in the terminal."""

from __future__ import annotations

import pytest

from cluster.display import print_skipped, print_summary, training_progress
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
        print_skipped([])
    lines = capsys.readouterr().out.splitlines()
    assert lines.count("skipped 3 examples of [file]: why") == 1


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
