"""`polytower prepare` for one's own raw log: the job of `data_loaders.prepare` on a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence

from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError

from cluster.connection import connected
from cluster.failures import LaunchError
from data_loaders.dataset import DatasetInfo
from data_loaders.prepare import OnProgress, prepare_log
from data_loaders.storage import first_line
from trainer.config import Recipe
from trainer.runtime import ENVIRONMENT


def prepare(
    recipe: Recipe,
    *,
    sources: Sequence[str],
    out: str,
    address: str | None,
    on_progress: OnProgress,
) -> DatasetInfo:
    """Turns raw files into the data set that a recipe reads.

    Args:
        recipe: its sections `data` and `prepare` say how.
        sources: paths, URIs or globs.
        out: URI of the new data set.
        address: of a running cluster, `auto` or HOST:PORT; None starts one that ends with the job.
        on_progress: told how far it is, in this thread.

    Raises:
        InputError: the recipe or the log is at fault, or the cluster cannot be reached.
        LaunchError: the cluster failed more often than Ray puts up with.
    """
    try:
        return prepare_log(
            recipe.data,
            prepare=recipe.prepare,
            num_rows=recipe.num_rows_of_feature(),
            name=recipe.run.name,
            sources=sources,
            out=out,
            cluster=connected(address, environment=ENVIRONMENT),
            on_progress=on_progress,
        )
    except (NodeDiedError, OutOfMemoryError, WorkerCrashedError) as error:
        raise LaunchError(
            f"the Ray cluster failed: {first_line(error)}; run the same command again"
        ) from error
