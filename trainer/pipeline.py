"""Steps one after another, the ids of the next batch on their way while one is computed."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist

from data_loaders.batch import InteractionBatch
from trainer.losses import NonFiniteLossError
from trainer.model import StepOutput


class StepPipeline(TrainPipelineSparseDist):
    """TorchRec's pipeline; it can be detached, and goes on with the batches that it holds.

    TorchRec's own `attach` sends the next batch's ids to the tables' ranks once more and does not
    wait for how many arrive, which an EmbeddingCollection must know to send its vectors back: the
    step behind each validation failed (docs/log.md). The ids that were sent before it was detached
    are still there, so none need be sent.
    """

    def attach(self, model: nn.Module | None = None, sparse_dist: bool = False) -> None:
        super().attach(model, sparse_dist=sparse_dist)

    def take_step(self, step: int, batches: Iterator[InteractionBatch]) -> StepOutput:
        """Trains on the next batch.

        Raises:
            NonFiniteLossError: naming the step.
        """
        try:
            output: StepOutput = self.progress(batches)
        except NonFiniteLossError as error:
            raise NonFiniteLossError(
                f"step {step}: {error}; nothing of this step was applied; "
                "lower optimizer.*.learning_rate, or look for extreme values in the log"
            ) from None
        return output
