"""Experts that all tasks share, of which each task's gate learns to select a few.

    codes      K of M bits, each bit brought between 0 and 1 by a smooth step
    selectors  products over the bits: once these are 0 or 1, 1 for the expert with this number
    gate       the K selectors, weighed by a softmax

Shape legend: B examples on this rank, N experts, K selectors, M bits of a code, C codes of M bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.architectures.architecture import Architecture, Copy, Inputs, Sizes
from trainer.architectures.layers import experts, mixed, task_towers
from trainer.model_config import DselectKConfig

# the logarithm of the entropy ends here; its slope at 0 has no bound
_LEAST = 1e-6


class DselectK(Architecture):
    """Mixture of experts behind gates that are sparse and differentiable.

    The entropy is averaged over the examples whose label the task observes, by their weights, and
    weighed as the task's loss is. Where the number of experts is no power of 2, the paper keeps the
    selectors from codes without an expert by a penalty; here these codes stand for the first
    experts once more, so that a gate's weights always sum to 1.

    Source: Hazimeh et al., "DSelect-k: differentiable selection in the mixture of experts with
        applications to multi-task learning", NeurIPS 2021, sections 3.1 to 3.3.
    """

    def __init__(self, config: DselectKConfig, *, sizes: Sizes) -> None:
        super().__init__()
        self._entropy_weight = config.entropy_weight
        self._is_static = config.gate == "static"
        self.experts = experts(config.num_experts, width=sizes.input_width, config=config)
        self.gates = nn.ModuleList(
            _Gate(config, width=0 if self._is_static else sizes.input_width) for _ in sizes.tasks
        )
        self.towers = task_towers(config.expert_tower[-1], config=config, sizes=sizes)

    def shared(self, inputs: Inputs) -> Copy:
        return self.experts(inputs.shared_BI), inputs.shared_BI

    def outputs(self, copies: Sequence[Copy], *, inputs: Inputs) -> list[Tensor]:
        gates = [gate(input_BI)[0] for gate, (_, input_BI) in zip(self.gates, copies, strict=True)]
        self.observe_gates(gates)
        return [
            tower(mixed(experts_NBH, gate_BN))
            for tower, gate_BN, (experts_NBH, _) in zip(self.towers, gates, copies, strict=True)
        ]

    def extra_losses(
        self, outputs: Sequence[Tensor], *, copies: Sequence[Copy], labels_BT: Tensor
    ) -> Tensor | None:
        """The entropy of what the selectors select."""
        if not self._entropy_weight:
            return None
        entropies = [
            entropy(gate(input_BI)[1])
            for gate, (_, input_BI) in zip(self.gates, copies, strict=True)
        ]
        return self._entropy_weight * torch.stack(entropies, dim=1)


class _Gate(nn.Module):
    """The gate of one task.

    Args:
        width: of the input; 0 for a gate that does not look at it.
    """

    codes_CM: Tensor

    def __init__(self, config: DselectKConfig, *, width: int) -> None:
        super().__init__()
        self._num_experts, self._step_width = config.num_experts, config.step_width
        num_bits = math.ceil(math.log2(config.num_experts))
        self._shape = (config.num_selected, 1 + num_bits)
        # in the middle of the smooth step, which is flat at its ends; as the authors' code has it
        bound = config.step_width / 100
        num_outputs = config.num_selected * (1 + num_bits)
        self.bias = nn.Parameter(torch.empty(num_outputs).uniform_(-bound, bound))
        self.weight: nn.Parameter | None = None
        if width:
            self.weight = nn.Parameter(torch.empty(width, num_outputs).uniform_(-bound, bound))
        codes_CM = torch.arange(2**num_bits).unsqueeze(1) >> torch.arange(num_bits)
        self.register_buffer("codes_CM", (codes_CM & 1).bool(), persistent=False)

    def forward(self, input_BI: Tensor) -> tuple[Tensor, Tensor]:
        """The experts' weights, float32 (B, N), and what each selector gives each expert, float32
        (B, K, N); both sum to 1 over the experts.
        """
        outputs = self.bias.expand(len(input_BI), -1)
        if self.weight is not None:
            outputs = outputs + input_BI @ self.weight
        outputs = outputs.unflatten(1, self._shape)
        weights_BK, codes_BKM = outputs[..., 0].softmax(dim=1), outputs[..., 1:]
        bits_BK1M = smooth_step(codes_BKM, width=self._step_width).unsqueeze(2)
        of_codes_BKC = torch.where(self.codes_CM, bits_BK1M, 1 - bits_BK1M).prod(dim=3)
        selected_BKN, rest = of_codes_BKC.tensor_split([self._num_experts], dim=2)
        selected_BKN = selected_BKN + functional.pad(
            rest, (0, selected_BKN.shape[2] - rest.shape[2])
        )
        return torch.einsum("bk,bkn->bn", weights_BK, selected_BKN), selected_BKN


def entropy(selected_BKN: Tensor) -> Tensor:
    """Of the selectors, summed: nats, float32 (B,)."""
    return -(selected_BKN * selected_BKN.clamp(min=_LEAST).log()).sum(dim=(1, 2))


def smooth_step(values: Tensor, *, width: float) -> Tensor:
    """0 below -width / 2, 1 above width / 2, between them the cubic that meets both smoothly.

    Source: Hazimeh et al. 2021, the smooth-step function.
    """
    inside = (values / width).clamp(-0.5, 0.5)
    return 0.5 + inside * (1.5 - 2 * inside.square())
