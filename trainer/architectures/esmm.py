"""Tasks that follow one another, e.g. click and purchase, over all examples.

    P(purchase) = P(click) P(purchase | click), the second factor for examples without a click too

A task's labels are those of the entire space: 0 where the step before did not happen.

Shape legend: B examples on this rank, T tasks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.architectures.architecture import Architecture, Copy, Inputs, Sizes
from trainer.architectures.chains import chains, logit_of_product
from trainer.architectures.layers import last_width, tower
from trainer.architectures.shared_bottom import SharedBottom
from trainer.model_config import Escm2Config, EsmmConfig


class Esmm(Architecture):
    """Entire space multi-task model.

    Each tower gives the logit of its step alone; a task's output is the logit of the product of the
    probabilities along its chain, of any length. The paper's tasks share their embeddings alone,
    here a tower too, unless `shared_tower` is empty.

    Source: Ma et al., "Entire space multi-task model: an effective approach for estimating
        post-click conversion rate", SIGIR 2018, equations 1 and 3.
    """

    def __init__(self, config: EsmmConfig | Escm2Config, *, sizes: Sizes) -> None:
        super().__init__()
        self.body = SharedBottom(config, sizes=sizes)
        self.chains = chains(sizes.tasks, config.after)

    def shared(self, inputs: Inputs) -> Copy:
        return self.body.shared(inputs)

    def outputs(self, copies: Sequence[Copy], *, inputs: Inputs) -> list[Tensor]:
        return [
            self._output(chain, hidden_BH)
            for chain, (hidden_BH,) in zip(self.chains, copies, strict=True)
        ]

    def task_towers(self) -> list[nn.Module]:
        return self.body.task_towers()

    def _output(self, chain: tuple[int, ...], hidden_BH: Tensor) -> Tensor:
        steps = [self.body.towers[step](hidden_BH) for step in chain]
        return steps[0] if len(steps) == 1 else logit_of_product(torch.cat(steps, dim=1))


class Escm2(Architecture):
    """Entire space counterfactual multi-task model: `Esmm`, and a loss for each step of its own.

    A step's own loss, over the examples in which the step before happened, is weighed by the
    inverse of that step's propensity (IPS), or made doubly robust (DR) by a tower that imputes the
    loss. Own choices: no gradient goes through the propensity, which is not less than
    `min_propensity`; the imputed loss is positive (softplus). The weight of the paper's global risk
    is the task's own `weight`, which multiplies this loss as well. A step's tower is computed once
    more for it.

    Source: Wang et al., "ESCM2: entire space counterfactual multi-task model for post-click
        conversion rate estimation", SIGIR 2022: the IPS and DR counterfactual risks.
    """

    def __init__(self, config: Escm2Config, *, sizes: Sizes) -> None:
        super().__init__()
        self.esmm = Esmm(config, sizes=sizes)
        self._weight, self._min_propensity = config.counterfactual_weight, config.min_propensity
        self._before = {
            task: chain[-2] for task, chain in enumerate(self.esmm.chains) if len(chain) > 1
        }
        width = last_width(sizes.input_width, config.shared_tower)
        self.imputations = nn.ModuleDict()
        for task in self._before if config.estimator == "dr" else ():
            self.imputations[str(task)] = tower(
                width, config.task_tower, dropout=config.dropout, num_outputs=1
            )

    def shared(self, inputs: Inputs) -> Copy:
        return self.esmm.shared(inputs)

    def outputs(self, copies: Sequence[Copy], *, inputs: Inputs) -> list[Tensor]:
        return self.esmm.outputs(copies, inputs=inputs)

    def task_towers(self) -> list[nn.Module]:
        return self.esmm.task_towers()

    def extra_losses(
        self, outputs: Sequence[Tensor], *, copies: Sequence[Copy], labels_BT: Tensor
    ) -> Tensor:
        """The counterfactual risk of each task that follows another, 0 of the others."""
        extra_BT = [torch.zeros_like(labels_B) for labels_B in labels_BT.unbind(1)]
        targets_BT = torch.nan_to_num(labels_BT, nan=0.0)
        for task, before in self._before.items():
            happened_B = targets_BT[:, before]
            # what the tasks up to the one before say of it, over all examples
            propensity_B = outputs[before].detach().sigmoid().squeeze(1)
            weight_B = happened_B / propensity_B.clamp(min=self._min_propensity)
            (hidden_BH,) = copies[task]
            errors_B = functional.binary_cross_entropy_with_logits(
                self.esmm.body.towers[task](hidden_BH).squeeze(1),
                targets_BT[:, task],
                reduction="none",
            )
            risk_B = weight_B * errors_B
            if str(task) in self.imputations:
                imputed_B = functional.softplus(self.imputations[str(task)](hidden_BH)).squeeze(1)
                missed_B = errors_B - imputed_B
                risk_B = imputed_B + weight_B * (missed_B + missed_B.square())
            is_known_B = ~torch.isnan(labels_BT[:, before])
            extra_BT[task] = torch.where(is_known_B, self._weight * risk_B, 0.0)
        return torch.stack(extra_BT, dim=1)
