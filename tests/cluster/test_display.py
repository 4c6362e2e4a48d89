"""What a person sees in the terminal."""

from __future__ import annotations

import pytest

from cluster.display import print_skipped, training_progress
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
