"""Text models small enough for tests, with weights that do something."""

import torch
from torch import Tensor

from models.decoder import CachedDecoder
from models.gpt2 import GPT2, GPT2Config
from models.llama import Llama, LlamaConfig

MODELS = ("gpt2", "gpt2-bare", "llama", "llama-untied", "llama-window")
EXACT = 2e-5  # fp32, logits of size 4


def text_model(name: str, seed: int = 0) -> CachedDecoder:
    """One of MODELS: three layers, 32 wide, 4 heads, 50 tokens, context 24, in evaluation mode."""
    shape = {"vocabulary": 50, "context": 24, "layers": 3, "width": 32, "heads": 4}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: CachedDecoder
        if name.startswith("gpt2"):
            bare = name == "gpt2-bare"
            model = GPT2(GPT2Config(**shape, bias=not bare, exact_gelu=bare))
        else:
            config = LlamaConfig(
                **shape,
                kv_heads=2,
                hidden=40,
                rotary_base=1_000.0,
                tied=name != "llama-untied",
                window=name == "llama-window",
            )
            model = Llama(config)
        for parameter in model.parameters():
            std = 0.3 if parameter.ndim == 1 else parameter.shape[1] ** -0.5
            torch.nn.init.normal_(parameter, std=std)
    return model.eval()


def tokens_of(model: CachedDecoder, *shape: int, seed: int = 0) -> Tensor:
    """Random tokens of the model's vocabulary."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, model.config.vocabulary, shape, generator=generator)


def far(found: Tensor, expected: Tensor) -> float:
    """Largest difference; NaN stays NaN, and fails every comparison."""
    return (found - expected).abs().max().item()
