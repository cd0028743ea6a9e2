"""A FinGPT small enough for tests, with weights that do something: a new one answers alike whatever it is told."""

from typing import Any

import torch
from torch import Tensor

from models.fingpt import FinGPT
from models.fingpt_config import FinGPTConfig


def tiny(seed: int = 0, **shape: Any) -> FinGPT:
    """Two layers, 32 wide, 4 heads over 2 key heads, 16 tokens, context 12, in evaluation mode."""
    defaults: dict[str, Any] = {
        "vocabulary": 16, "context": 12, "layers": 2, "width": 32, "heads": 4, "kv_heads": 2
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = FinGPT(FinGPTConfig(**{**defaults, **shape}))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    return model.eval()


def tokens_of(model: FinGPT, *shape: int, seed: int = 0) -> Tensor:
    """Random tokens of the model's vocabulary."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, model.config.vocabulary, shape, generator=generator)
