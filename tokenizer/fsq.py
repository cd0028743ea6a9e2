"""Finite scalar quantisation while it is being fitted: a fixed grid in place of a codebook, which cannot collapse."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tokenizer.quantise import grid
from tokenizer.vqvae import Quantised


class FiniteScalarQuantiser(nn.Module):
    """Each number squashed to a range and rounded to one of its steps; the gradient passes straight through.

    Args:
        steps: of each of the D numbers; their product is the number of codes.

    Source: Mentzer et al., arXiv:2309.15505, section 3.1 and appendix A.1.
    """

    width: Tensor
    offset: Tensor
    shift: Tensor
    zero: Tensor
    basis: Tensor

    def __init__(self, steps: Sequence[int]) -> None:
        super().__init__()
        for name, values in zip(("width", "offset", "shift"), grid(steps), strict=True):
            self.register_buffer(name, torch.from_numpy(values).float())  # (D,)
        self.register_buffer("zero", torch.tensor([step // 2 for step in steps]))  # (D,)
        self.register_buffer("basis", torch.tensor([math.prod(steps[:i]) for i in range(len(steps))]))  # (D,)

    def forward(self, z: Tensor, levels: int) -> Quantised:
        """(N, D) -> the grid's points, each number within [-1, 1]. There is one level."""
        bounded = torch.tanh(z + self.shift) * self.width - self.offset  # (N, D)
        rounded = bounded + (bounded.round() - bounded).detach()  # (N, D)
        codes = ((rounded.detach().round().long() + self.zero) * self.basis).sum(dim=1, keepdim=True)  # (N, 1)
        return Quantised(rounded / self.zero, codes, z.new_zeros(()))

    def prepare(self, z: Tensor, generator: torch.Generator) -> None:
        """The grid is fixed."""

    def follow(self, z: Tensor, codes: Tensor, generator: torch.Generator) -> int:
        """The grid is fixed."""
        return 0
