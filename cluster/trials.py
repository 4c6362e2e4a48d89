"""What a search leaves in its folder, and what goes on from there after an interruption.

OUT/search.json                recipe and its keys, overrides, space, seed: none may change
OUT/trials/0007/               an ordinary run
OUT/trials/0007-scores.json    of its validations so far
OUT/trials/0007.json           how it ended
OUT/best.yaml                  the recipe of the best trial
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from data_loaders.errors import InputError
from data_loaders.storage import Location

State = Literal["complete", "stopped", "diverged", "failed"]


@dataclass(frozen=True)
class Trial:
    """One training of a search.

    Attributes:
        index: from 0.
        values: that were drawn, by key.
        run_uri: of its run's folder.
        state: complete; stopped, because others were better at that point; diverged; failed.
        score: the best on valid; None if there was no validation.
        step: of the last validation.
        why: of one that diverged or failed.
    """

    index: int
    values: dict[str, Any]
    run_uri: str
    state: State
    score: float | None
    step: int
    why: str = ""


@dataclass(frozen=True)
class Score:
    """What a validation of a trial found.

    Attributes:
        step: of the trial's run.
        percent: of all its steps.
        score: the higher the better.
    """

    step: int
    percent: float
    score: float


class SearchFolder:
    """The folder of a search.

    Args:
        location: OUT.
    """

    def __init__(self, location: Location) -> None:
        self.location = location
        self._trials = location.child("trials")

    def begin(self, search: dict[str, Any]) -> None:
        """Writes what is searched.

        Raises:
            InputError: another search lies there.
        """
        notes = self.location.child("search.json")
        if notes.exists():
            before = json.loads(notes.read_text())
            for key, value in search.items():
                if before.get(key) != value:
                    raise InputError(
                        f"--out {self.location.uri}: another search lies there: its {key} is "
                        f"{before.get(key)!r:.80}, not {value!r:.80}; give another folder"
                    )
        else:
            notes.write_text(json.dumps(search, indent=2) + "\n")

    def run_of(self, index: int) -> Location:
        """The run's folder of a trial."""
        return self._trials.child(f"{index:04d}")

    def scores(self, index: int) -> list[Score]:
        """Of a trial's validations so far; behind each there is a checkpoint."""
        file = self._trials.child(f"{index:04d}-scores.json")
        return [Score(**item) for item in json.loads(file.read_text())] if file.exists() else []

    def write_scores(self, index: int, scores: list[Score]) -> None:
        """Keeps them."""
        file = self._trials.child(f"{index:04d}-scores.json")
        file.write_text(json.dumps([asdict(score) for score in scores]) + "\n")

    def ended(self, index: int) -> Trial | None:
        """How a trial ended; None if it has not."""
        record = self._trials.child(f"{index:04d}.json")
        return Trial(**json.loads(record.read_text())) if record.exists() else None

    def end(self, index: int, *, values: dict[str, Any], state: State, why: str = "") -> Trial:
        """Keeps how a trial ended."""
        scores = self.scores(index)
        trial = Trial(
            index=index,
            values=values,
            run_uri=self.run_of(index).uri,
            state=state,
            score=max((item.score for item in scores), default=None),
            step=scores[-1].step if scores else 0,
            why=why,
        )
        record = self._trials.child(f"{index:04d}.json")
        record.write_text(json.dumps(asdict(trial), indent=2) + "\n")
        return trial


def ranked(trials: list[Trial]) -> list[Trial]:
    """The best first; those without a score last."""
    return sorted(trials, key=lambda item: (item.score is None, -(item.score or 0.0), item.index))
