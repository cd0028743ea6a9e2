"""GPT-2, and nanoGPT's kin of it: layer norms, learned positions, GELU, the embedding as head.

Positions are learned, so a sequence ends where they do.

Source: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.
"""

import math
import pickle
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.checkpoint import MANIFEST, CheckpointError, Training, read_manifest, read_tensors, write
from models.decoder import CachedDecoder
from models.kv_cache import KVCache
from models.layers import Block, BlockKind, norm_of
from models.shape import build_config
from models.weights import fill, on_meta, read_folder, read_json, renamed

__all__ = ["GPT2", "GPT2Config", "convert_nanogpt"]

_MOST = {"vocabulary": 1_000_000, "context": 65_536, "layers": 256, "width": 16_384, "heads": 1_024}
_STD = 0.02  # of new weights

_BLOCK = {
    "ln_1": "attention_norm",
    "attn.c_attn": "attention.qkv",
    "attn.c_proj": "attention.out",
    "ln_2": "mlp_norm",
    "mlp.c_fc": "mlp.up",
    "mlp.c_proj": "mlp.down",
}
_NAMES = {
    "wte.weight": "embedding.weight",
    "wpe.weight": "positions.weight",
    "ln_f.weight": "norm.weight",
    "ln_f.bias": "norm.bias",
    "lm_head.weight": "head",
    **{
        f"h.{{}}.{theirs}.{end}": f"blocks.{{}}.{ours}.{end}"
        for theirs, ours in _BLOCK.items()
        for end in ("weight", "bias")
    },
}
_MASKS = r"h\.[0-9]+\.attn\.(bias|masked_bias)"  # which key may be seen: constants, though they are stored


@dataclass(frozen=True, slots=True, kw_only=True)
class GPT2Config:
    """The shape of a GPT-2. The defaults are the smallest that was published: 124,439,808 parameters."""

    vocabulary: int = 50_257
    context: int = 1_024  # positions that are learned
    layers: int = 12
    width: int = 768
    heads: int = 12
    bias: bool = True  # of matrices and norms
    exact_gelu: bool = False  # by the error function, as nanoGPT has it, instead of GPT-2's tanh
    eps: float = 1e-5  # of the norms
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must lie in [1, {most}], was {getattr(self, name)}")
        if self.width % self.heads:
            raise ValueError(f"heads must divide width, was {self.heads} of {self.width}")
        if not 0.0 < self.eps < 1.0:
            raise ValueError(f"eps must lie in (0, 1), was {self.eps}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must lie in [0, 1), was {self.dropout}")

    @property
    def kind(self) -> BlockKind:
        mlp = "gelu_exact" if self.exact_gelu else "gelu"
        return BlockKind(norm="layer", mlp=mlp, qk_norm=False, rotary=False, bias=self.bias, eps=self.eps)


class GPT2(CachedDecoder):
    """The model. `forward` is its definition and what is trained; `step` and `prefill` decode through a cache.

    Args:
        config: the shape.
    """

    config: GPT2Config

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.context, config.width)
        self.rotary = None
        c, kind = config, config.kind
        blocks = [Block(c.width, c.heads, c.heads, c.dropout, kind=kind) for _ in range(c.layers)]
        self._stack(blocks, norm_of(c.width, kind), dropout=c.dropout)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew; projections into the residual smaller, so that its size does not grow with depth.

        Source: Radford et al., 2019, section 2.3.
        """
        for module in self.modules():
            if isinstance(module, nn.Embedding | nn.Linear):
                nn.init.normal_(module.weight, std=_STD)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for block in self._blocks:
            for projection in (block.attention.out, block.mlp.down):
                nn.init.normal_(projection.weight, std=_STD / math.sqrt(2 * self.config.layers))

    def forward(self, tokens: Tensor, *, window: int | None = None) -> Tensor:
        """Logits of the token after each position.

        Shapes:   tokens (B, T) in [0, V), T up to the context -> (B, T, V).
        Args:     window: each position sees this many, itself included; None is all before it.
        Raises:   ValueError where the sequence is longer than the positions that were learned.
        """
        x = self.dropout(self._enter(tokens, None, None, range(tokens.shape[1])))
        return self._logits(self.norm(self._through(x, window, self._blocks)))

    def _embed(self, tokens: Tensor, hours: Tensor | None, symbols: Tensor | None, positions: Sequence[int]) -> Tensor:
        if max(positions) >= self.config.context:
            raise ValueError(f"want at most {self.config.context} tokens in a sequence, was {max(positions) + 1}")
        index = torch.tensor(positions, device=tokens.device)
        return torch.embedding(self.embedding.weight, tokens) + torch.embedding(self.positions.weight, index)

    def _cache(self, slots: int, context: int) -> KVCache:
        return self._new_cache(slots, context, base=None, ends=True)

    @classmethod
    def load(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> "GPT2":
        """The model of a checkpoint folder, or of a Hugging Face folder of safetensors, in evaluation mode.

        Raises: CheckpointError: the folder holds no sound GPT-2.
        """
        folder = Path(folder)
        try:
            if (folder / MANIFEST).is_file():
                config, tensors = _own(folder)
            else:
                config = _hugging_face_config(read_json(folder / "config.json"))
                named = ((n.removeprefix("transformer."), t) for n, t in read_folder(folder).items())
                tensors = renamed(named, _NAMES, _MASKS, folder)
                for name, tensor in tensors.items():
                    if name.endswith(("qkv.weight", "out.weight", "up.weight", "down.weight")):
                        tensors[name] = tensor.t().contiguous()  # theirs are stored as (in, out)
            return _made(config, tensors, folder, dtype)
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{folder} holds no usable model: {error}") from None

    @classmethod
    def from_nanogpt(cls, path: str | Path) -> "GPT2":
        """The model of a nanoGPT checkpoint (`ckpt.pt`), in evaluation mode. No code of the file is run.

        Raises: CheckpointError: the file holds no sound nanoGPT.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            shape, state = content["model_args"], content["model"]
            config = GPT2Config(
                vocabulary=shape["vocab_size"],
                context=shape["block_size"],
                layers=shape["n_layer"],
                width=shape["n_embd"],
                heads=shape["n_head"],
                bias=shape.get("bias", True),
                exact_gelu=True,
                dropout=float(shape.get("dropout", 0.0)),
            )
            # torch.compile puts a word of its own before every name.
            named = ((n.removeprefix("_orig_mod.").removeprefix("transformer."), t) for n, t in state.items())
            return _made(config, renamed(named, _NAMES, _MASKS, path), path, torch.float32)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
        except pickle.UnpicklingError:
            raise CheckpointError(f"{path} holds more than tensors and plain values: it is not loaded") from None
        except (ValueError, KeyError, TypeError, AttributeError, EOFError, RuntimeError) as error:
            raise CheckpointError(f"{path} is truncated or no checkpoint of nanoGPT: {error!r}") from None


def convert_nanogpt(path: str | Path, folder: str | Path) -> str:
    """Write a nanoGPT checkpoint as one of ours; returns its digest. What it has seen is not known.

    Raises: CheckpointError: the file holds no sound nanoGPT, or `folder` cannot be written.
    """
    model = GPT2.from_nanogpt(path)
    unknown = Training(start=None, end=None, symbols=(), bar_s=1.0, embargo_bars=0)
    config, tensors = asdict(model.config), model.to_tensors()
    return write(folder, kind="gpt2", config=config, codec=None, training=unknown, metrics={}, tensors=tensors)


def _made(config: GPT2Config, tensors: dict[str, Tensor], where: object, dtype: torch.dtype) -> GPT2:
    head = tensors.pop("head", None)
    tied = tensors.get("embedding.weight")
    if head is not None and tied is not None and not torch.equal(head, tied):
        raise CheckpointError(f"want the embedding of {where} as its head, was a head of its own")
    model = on_meta(lambda: GPT2(config))
    fill(model, tensors, where, dtype)
    return model.eval()


def _own(folder: Path) -> tuple[GPT2Config, dict[str, Tensor]]:
    manifest = read_manifest(folder)
    if manifest.kind != "gpt2":
        raise CheckpointError(f"want a checkpoint of kind gpt2, {folder} is of kind {manifest.kind}")
    config = build_config(GPT2Config, manifest.config)
    arrays = read_tensors(folder, manifest)
    return config, {name.removeprefix("model."): torch.from_numpy(array) for name, array in arrays.items()}


_ACTIVATIONS = {"gelu_new": False, "gelu_pytorch_tanh": False, "gelu": True}  # whether it is exact


def _hugging_face_config(values: dict[str, Any]) -> GPT2Config:
    if values.get("model_type") != "gpt2":
        raise ValueError(f"want a config of model_type gpt2, was {values.get('model_type')!r}")
    activation = values.get("activation_function", "gelu_new")
    if activation not in _ACTIVATIONS:
        raise ValueError(f"want an activation of {', '.join(_ACTIVATIONS)}, was {activation!r}")
    width = values.get("n_embd", 768)
    other_scale = values.get("scale_attn_by_inverse_layer_idx") or not values.get("scale_attn_weights", True)
    if values.get("n_inner") not in (None, 4 * width) or other_scale:
        raise ValueError("want an MLP of four times the width and attention of one scale, was another")
    shape = {
        "vocabulary": values.get("vocab_size", 50_257),
        "context": values.get("n_positions", 1_024),
        "layers": values.get("n_layer", 12),
        "width": width,
        "heads": values.get("n_head", 12),
        "exact_gelu": _ACTIVATIONS[activation],
        "eps": values.get("layer_norm_epsilon", 1e-5),
    }
    return build_config(GPT2Config, shape)
