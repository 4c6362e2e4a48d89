"""What `generate` asks of a scenario."""

from __future__ import annotations

from typing import ClassVar, Protocol

import pyarrow as pa
from numpy.random import Generator

from data_loaders.oracle import TaskKind


class Scenario(Protocol):
    """A world: users, items, their hidden effects, and a log of what happens between them.

    The constructor makes the world, once, a function of its arguments: what stays the same for the
    whole log (effects of ids, a graph, prices, the scale of each task) is drawn there and nowhere
    else. It is told the number of examples of the whole log, by its density, with which users and
    items may grow, up to a cap: what a scenario says of their numbers holds at density 1.
    `draw` makes examples.
    """

    tasks: ClassVar[dict[str, TaskKind]]
    description: str  # what the world holds, for dataset.json: "an online shop with 5 users, ..."

    def __init__(self, *, examples: int, rng: Generator) -> None: ...

    def draw(self, rng: Generator, *, num_examples: int, start: float, stop: float) -> pa.Table:
        """The next examples of the log, the same columns each time.

        Args:
            start, stop: the part of the log's time that these examples fill, evenly, in order, as
                fractions of its whole span. Train is 0 to 0.8, valid 0.8 to 0.9, test 0.9 to 1, to
                within an example; each is drawn in chunks with generators of its own. A scenario
                where time means nothing ignores both.

        Returns:
            Features; a column TASK for each task, null where it is not observed (int8 for a binary
            label); and a column truth_TASK for each, float64 and never null, in the order of
            `tasks`.
        """
        ...
