"""Llama, and the many models of its architecture: RMS norms, rotary positions, SwiGLU, grouped-query attention.

A sequence ends at the context that the model was made for, unless the config asks for a window that slides.

Source: Touvron et al., arXiv:2302.13971, section 2.2.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.checkpoint import CheckpointError
from models.decoder import CachedDecoder
from models.kv_cache import KVCache
from models.layers import Block, BlockKind, Rotary, norm_of
from models.shape import build_config
from models.weights import fill, on_meta, read_folder, read_json, renamed

__all__ = ["Llama", "LlamaConfig"]

_MOST = {
    "vocabulary": 1_000_000,
    "context": 1_048_576,
    "layers": 256,
    "width": 16_384,
    "heads": 1_024,
    "kv_heads": 1_024,
    "hidden": 131_072,
}
_TABLE = 2_048  # positions whose angles are kept for `forward`
_STD = 0.02  # of new weights

_NAMES = {
    "model.embed_tokens.weight": "embedding.weight",
    "model.norm.weight": "norm.weight",
    "lm_head.weight": "head.weight",
    "model.layers.{}.input_layernorm.weight": "blocks.{}.attention_norm.weight",
    "model.layers.{}.post_attention_layernorm.weight": "blocks.{}.mlp_norm.weight",
    "model.layers.{}.self_attn.q_proj.weight": "blocks.{}.q",
    "model.layers.{}.self_attn.k_proj.weight": "blocks.{}.k",
    "model.layers.{}.self_attn.v_proj.weight": "blocks.{}.v",
    "model.layers.{}.self_attn.o_proj.weight": "blocks.{}.attention.out.weight",
    "model.layers.{}.mlp.gate_proj.weight": "blocks.{}.gate",
    "model.layers.{}.mlp.up_proj.weight": "blocks.{}.up",
    "model.layers.{}.mlp.down_proj.weight": "blocks.{}.mlp.down.weight",
}
_TABLES = r"model\.(layers\.[0-9]+\.self_attn\.)?rotary_emb\.inv_freq"  # constants, though some files store them


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaConfig:
    """The shape of a Llama. The defaults are SmolLM2's of 135M: 134,515,008 parameters."""

    vocabulary: int = 49_152
    context: int = 8_192  # positions it was trained on
    layers: int = 30
    width: int = 576
    heads: int = 9
    kv_heads: int = 3
    hidden: int = 1_536  # within the MLP
    rotary_base: float = 100_000.0
    eps: float = 1e-5  # of the norms
    tied: bool = True  # the embedding is the head
    window: bool = False  # beyond the context a sequence goes on with the last of it; else it ends there

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must lie in [1, {most}], was {getattr(self, name)}")
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"width / heads must be a whole even number, was {self.width} / {self.heads}")
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads must divide heads, was {self.kv_heads} of {self.heads}")
        if not 1.0 < self.rotary_base <= 1e12:
            raise ValueError(f"rotary_base must lie in (1, 1e12], was {self.rotary_base}")
        if not 0.0 < self.eps < 1.0:
            raise ValueError(f"eps must lie in (0, 1), was {self.eps}")

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def kind(self) -> BlockKind:
        return BlockKind(norm="rms", mlp="swiglu", qk_norm=False, rotary=True, bias=False, eps=self.eps)


class Llama(CachedDecoder):
    """The model. `forward` is its definition and what is trained; `step` and `prefill` decode through a cache.

    Args:
        config: the shape.
    """

    config: LlamaConfig

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        c, kind = config, config.kind
        blocks = [Block(c.width, c.heads, c.kv_heads, 0.0, hidden=c.hidden, kind=kind) for _ in range(c.layers)]
        self._stack(blocks, norm_of(c.width, kind))
        self.head = None if c.tied else nn.Linear(c.width, c.vocabulary, bias=False)
        self.rotary = self.new_rotary()
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        for module in self.modules():
            if isinstance(module, nn.Embedding | nn.Linear):
                nn.init.normal_(module.weight, std=_STD)

    def forward(self, tokens: Tensor, *, window: int | None = None) -> Tensor:
        """Logits of the token after each position.

        Shapes:   tokens (B, T) in [0, V) -> (B, T, V).
        Args:     window: each position sees this many, itself included; None is all before it.
        """
        x = self.dropout(self._enter(tokens, None, None, ()))
        return self._logits(self.norm(self._through(x, window, self._blocks)))

    def _logits(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.embedding.weight if self.head is None else self.head.weight)

    def _cache(self, slots: int, context: int) -> KVCache:
        c = self.config
        # Laps are there to turn keys rarely; a ring this long turns rarely by itself, and tables cost memory.
        laps = max(1, 4_096 // context)
        return self._new_cache(slots, context, base=c.rotary_base, ends=not c.window, laps=laps)

    def new_rotary(self) -> Rotary:
        """Its tables, which are no weights: one that was made of shapes alone has none."""
        return Rotary(self.config.head_dim, min(self.config.context, _TABLE), self.config.rotary_base)

    @classmethod
    def of(cls, config: LlamaConfig, tensors: dict[str, Tensor], where: object, dtype: torch.dtype) -> "Llama":
        """The model of these weights, in evaluation mode.

        Args:
            tensors: under our names; instead of an MLP's `up` its gate and up as "blocks.0.gate" and "blocks.0.up",
                instead of `qkv` "blocks.0.q", "blocks.0.k" and "blocks.0.v".
            where: what the weights are from, for what is said of them.

        Raises: CheckpointError: one is missing, too many, or of another shape.
        """
        for layer in range(config.layers):
            for whole, parts in (("attention.qkv.weight", ("q", "k", "v")), ("mlp.up.weight", ("gate", "up"))):
                names = [f"blocks.{layer}.{part}" for part in parts]
                if all(name in tensors for name in names):
                    pieces = [tensors.pop(name) for name in names]
                    _check_pieces(config, parts, pieces, where, layer)
                    tensors[f"blocks.{layer}.{whole}"] = torch.cat(pieces)
        head = tensors.get("head.weight")
        tied = tensors.get("embedding.weight")
        if config.tied and head is not None and tied is not None and torch.equal(head, tied):
            del tensors["head.weight"]
        model = on_meta(lambda: cls(config))
        fill(model, tensors, where, dtype)
        model.rotary = model.new_rotary()
        return model.eval()

    @classmethod
    def load(cls, path: str | Path, dtype: torch.dtype = torch.float32) -> "Llama":
        """The model of a GGUF file, or of a Hugging Face folder of safetensors, in evaluation mode.

        Raises: CheckpointError: there is no sound Llama.
        """
        path = Path(path)
        if not path.is_dir():
            from models.gguf import read_gguf

            return read_gguf(path).llama(dtype)
        try:
            config = _hugging_face_config(read_json(path / "config.json"))
            tensors = renamed(read_folder(path).items(), _NAMES, _TABLES, path)
            return cls.of(config, tensors, path, dtype)
        except (ValueError, TypeError, ZeroDivisionError) as error:
            raise CheckpointError(f"{path} holds no usable model: {error}") from None


def _check_pieces(config: LlamaConfig, names: tuple[str, ...], pieces: list[Tensor], where: object, layer: int) -> None:
    """Together pieces may have a shape that fits, though none of them has its own."""
    kv = config.kv_heads * config.head_dim
    rows = {"q": config.width, "k": kv, "v": kv, "gate": config.hidden, "up": config.hidden}
    for name, piece in zip(names, pieces, strict=True):
        if tuple(piece.shape) != (rows[name], config.width):
            raise CheckpointError(
                f"the weights of {where} do not fit its config: want {name} of block {layer} of shape"
                f" {(rows[name], config.width)}, was {tuple(piece.shape)}"
            )


def _hugging_face_config(values: dict[str, Any]) -> LlamaConfig:
    if values.get("model_type") != "llama":
        raise ValueError(f"want a config of model_type llama, was {values.get('model_type')!r}")
    if values.get("hidden_act", "silu") != "silu":
        raise ValueError(f"want the activation silu, was {values['hidden_act']!r}")
    if values.get("attention_bias") or values.get("mlp_bias"):
        raise ValueError("want matrices without biases, was some with")
    # Newer files have the base within rope_parameters, older ones beside rope_scaling.
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise ValueError(f"want rope_parameters as an object, was {rope!r:.80}")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise ValueError(f"want plain rotary positions, was {kind!r}")
    heads, width = values.get("num_attention_heads", 32), values.get("hidden_size", 4_096)
    if values.get("head_dim") not in (None, width // heads):
        raise ValueError(f"want heads of width / heads = {width // heads}, was {values['head_dim']}")
    shape = {
        "vocabulary": values.get("vocab_size", 32_000),
        "context": values.get("max_position_embeddings", 2_048),
        "layers": values.get("num_hidden_layers", 32),
        "width": width,
        "heads": heads,
        "kv_heads": values.get("num_key_value_heads") or heads,
        "hidden": values.get("intermediate_size", 11_008),
        "rotary_base": float(rope.get("rope_theta") or values.get("rope_theta") or 10_000.0),
        "eps": values.get("rms_norm_eps", 1e-6),
        "tied": values.get("tie_word_embeddings", False),
    }
    return build_config(LlamaConfig, shape)
