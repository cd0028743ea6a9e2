"""Language models from files: GGUF, or a Hugging Face folder of safetensors.

A GGUF file is read by the library `gguf`, checked, and converted once: weights in the dtype that was asked for, and the
tokenizers, go into a file of a cache folder that is named by the digest of what it was made from. Reading that one
takes a second, where GGUF takes ten.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.checkpoint import CheckpointError
from models.decoder import CachedDecoder
from models.gpt2 import GPT2
from models.llama import Llama, LlamaConfig
from models.shape import build_config
from models.text import TextModel, TextTokenizer, byte_pairs, package, without_added
from models.weights import fill, on_meta, read_json, renamed

__all__ = ["GGUFFile", "cache_folder", "load_text_model", "read_gguf"]

_FORMAT = "ticktorch-text-1"  # of converted files; one of another is made again
_DRAFT = ".safetensors.part"
_DRAFT_AGE_S = 3_600.0  # since it was last written to
_KEPT = 4  # converted files that stay in the cache folder
_DTYPES = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
_ADDED = (2, 3, 4)  # types of tokens that are found before pairs are merged: unknown, control, user-defined

_NAMES = {
    "token_embd.weight": "embedding.weight",
    "output_norm.weight": "norm.weight",
    "output.weight": "head.weight",
    "blk.{}.attn_norm.weight": "blocks.{}.attention_norm.weight",
    "blk.{}.ffn_norm.weight": "blocks.{}.mlp_norm.weight",
    "blk.{}.attn_q.weight": "blocks.{}.q",
    "blk.{}.attn_k.weight": "blocks.{}.k",
    "blk.{}.attn_v.weight": "blocks.{}.v",
    "blk.{}.attn_output.weight": "blocks.{}.attention.out.weight",
    "blk.{}.ffn_gate.weight": "blocks.{}.gate",
    "blk.{}.ffn_up.weight": "blocks.{}.up",
    "blk.{}.ffn_down.weight": "blocks.{}.mlp.down.weight",
}


def cache_folder() -> Path:
    """Where converted files are kept: the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "ticktorch"


def load_text_model(
    path: str | Path, dtype: torch.dtype = torch.bfloat16, *, cache: str | Path | None = None
) -> TextModel:
    """A language model of a GGUF file, or of a Hugging Face folder (config.json, safetensors, tokenizer.json).

    Args:
        dtype: of the weights and of all that is computed. bf16 is fast where the processor has instructions for it
            (AMX, AVX-512 BF16), and 5 to 10 times slower than fp32 where it has not.
        cache: folder of converted files; None: `cache_folder()`. One that cannot be written is done without.

    Raises:
        CheckpointError: there is no sound model of a known architecture.
        PackageError: a package that reads it is not installed.
    """
    path = Path(path)
    if dtype not in _DTYPES:
        raise ValueError(f"want a dtype of {', '.join(map(str, _DTYPES))}, was {dtype}")
    if path.is_dir():
        return _from_folder(path, dtype)
    digest = _digest([path])
    converted = Path(cache or cache_folder()) / f"{digest}.{_DTYPES[dtype]}.safetensors"
    found = _from_cache(converted, digest, dtype)
    if found is None:
        found = read_gguf(path).text_model(digest, dtype)
        _keep(found, converted)
    return found


class GGUFFile:
    """What a GGUF file holds, checked as it is asked for.

    Args:
        path: of the file.
        reader: `gguf.GGUFReader` on it.
    """

    def __init__(self, path: Path, reader: Any) -> None:
        self.path = path
        self._reader = reader
        architecture = self._text("general.architecture")
        if architecture != "llama":
            raise CheckpointError(f"want a model of the architecture llama in {path}, was {architecture!r}")

    @property
    def name(self) -> str:
        return self._text("general.name", self.path.stem)

    def config(self) -> LlamaConfig:
        """The model's shape.

        Raises: CheckpointError: a number is missing or impossible, or the model is of a kind that is not known here.
        """
        heads = self._number("llama.attention.head_count")
        width = self._number("llama.embedding_length")
        if self._number("llama.expert_count", 0):
            raise CheckpointError(
                f"want a model without experts in {self.path}, was {self._number('llama.expert_count')}"
            )
        if self._text("llama.rope.scaling.type", "none") != "none":
            raise CheckpointError(
                f"want plain rotary positions in {self.path}, was {self._text('llama.rope.scaling.type')!r}"
            )
        if self._number("llama.rope.scale_linear", 1.0) != 1.0:  # how older files said it
            raise CheckpointError(f"want plain rotary positions in {self.path}, was a linear scale")
        for key in ("llama.rope.dimension_count", "llama.attention.key_length", "llama.attention.value_length"):
            if heads and self._number(key, width // heads) != width // heads:
                raise CheckpointError(
                    f"want {key} of width / heads = {width // heads} in {self.path}, was {self._number(key)}"
                )
        names = {tensor.name for tensor in self._reader.tensors}
        shape = {
            "vocabulary": self._number("llama.vocab_size", len(self._values("tokenizer.ggml.tokens"))),
            "context": self._number("llama.context_length"),
            "layers": self._number("llama.block_count"),
            "width": width,
            "heads": heads,
            "kv_heads": self._number("llama.attention.head_count_kv", heads),
            "hidden": self._number("llama.feed_forward_length"),
            "rotary_base": float(self._number("llama.rope.freq_base", 10_000.0)),
            "eps": float(self._number("llama.attention.layer_norm_rms_epsilon")),
            "tied": "output.weight" not in names,
        }
        try:
            return build_config(LlamaConfig, shape)
        except ValueError as error:
            raise CheckpointError(f"{self.path} holds no usable model: {error}") from None

    def llama(self, dtype: torch.dtype) -> Llama:
        """The model, in evaluation mode.

        Raises: CheckpointError: a tensor is missing, unknown, of another shape, or of a type that is not known.
        """
        config = self.config()
        tensors = renamed(self._tensors(dtype), _NAMES, "$^", self.path)
        heads = {"q": config.heads, "k": config.kv_heads}
        for name, tensor in tensors.items():
            if count := heads.get(name.rpartition(".")[2]):
                tensors[name] = _half_split(tensor, count, name, self.path)
        return Llama.of(config, tensors, self.path, dtype)

    def tokenizers(self) -> tuple[TextTokenizer, TextTokenizer]:
        """With special tokens, and without.

        Raises: CheckpointError: the file has none, or one of a kind that is not known here.
        """
        kind = self._text("tokenizer.ggml.model")
        if kind != "gpt2":
            raise CheckpointError(f"want a tokenizer of byte pairs (gpt2) in {self.path}, was {kind!r}")
        tokens, types = self._values("tokenizer.ggml.tokens"), self._values("tokenizer.ggml.token_type")
        if not tokens or len(types) != len(tokens) or len(set(tokens)) != len(tokens):
            raise CheckpointError(f"want a type for each of different tokens in {self.path}, was {len(types)}")
        vocabulary = {text: number for number, text in enumerate(tokens)}
        added = [text for text, type_ in zip(tokens, types, strict=True) if type_ in _ADDED]
        split = self._text("tokenizer.ggml.pre", "default")
        content = byte_pairs(vocabulary, self._values("tokenizer.ggml.merges"), added, split)
        return TextTokenizer(content), TextTokenizer(without_added(content))

    def text_model(self, digest: str, dtype: torch.dtype) -> TextModel:
        """All of it.

        Raises: CheckpointError: a part is missing or unsound.
        """
        tokenizer, plain = self.tokenizers()
        end = self._number("tokenizer.ggml.eos_token_id", -1)
        return TextModel(
            model=self.llama(dtype),
            tokenizer=tokenizer,
            plain=plain,
            name=self.name,
            digest=digest,
            template=self._text("tokenizer.chat_template", ""),
            stop=() if end < 0 else (int(end),),
        )

    def _tensors(self, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        """Dequantized one by one: all of them in fp32 at once would take twice the memory."""
        dequantize = package("gguf.quants").dequantize
        for tensor in self._reader.tensors:
            try:
                numbers = dequantize(tensor.data, tensor.tensor_type)
            except (NotImplementedError, ValueError, KeyError) as error:
                raise CheckpointError(f"tensor {tensor.name} of {self.path} cannot be dequantized: {error}") from None
            shape = tuple(int(size) for size in reversed(tensor.shape))
            if not np.isfinite(numbers).all():
                raise CheckpointError(f"tensor {tensor.name} of {self.path} must be finite")
            yield tensor.name, torch.from_numpy(np.array(numbers, np.float32)).view(shape).to(dtype)

    def _value(self, key: str, default: Any) -> Any:
        field = self._reader.get_field(key)
        if field is None:
            if default is None:
                raise CheckpointError(f"want {key} in {self.path}, was nothing")
            return default
        return field.contents()

    def _text(self, key: str, default: str | None = None) -> str:
        value = self._value(key, default)
        if not isinstance(value, str):
            raise CheckpointError(f"want {key} of {self.path} as text, was {value!r:.80}")
        return value

    def _number(self, key: str, default: float | None = None) -> Any:
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise CheckpointError(f"want {key} of {self.path} as a number, was {value!r:.80}")
        return value

    def _values(self, key: str) -> list[Any]:
        values = self._value(key, None)
        if not isinstance(values, list):
            raise CheckpointError(f"want {key} of {self.path} as a list, was {values!r:.80}")
        return values


def read_gguf(path: str | Path) -> GGUFFile:
    """Open a GGUF file.

    Raises:
        CheckpointError: there is none, it is truncated, or of an architecture that is not known here.
        PackageError: the package gguf is not installed.
    """
    path = Path(path)
    library = package("gguf")
    if not path.is_file():
        raise CheckpointError(f"want a GGUF file at {path}, was {'something else' if path.exists() else 'nothing'}")
    try:
        return GGUFFile(path, library.GGUFReader(path))
    except CheckpointError:
        raise
    except Exception as error:  # the library reads a damaged file until something does not fit
        raise CheckpointError(f"{path} is truncated or no GGUF file: {error}") from None


def _half_split(tensor: Tensor, heads: int, name: str, where: Path) -> Tensor:
    """Rows of each head from llama.cpp's order (pairs are neighbours) to ours (a pair is half a head apart)."""
    rows = tensor.shape[0]
    if tensor.ndim != 2 or rows % (2 * heads):
        raise CheckpointError(f"the weights of {where} do not fit its config: {name} was of shape {(*tensor.shape,)}")
    pairs = tensor.view(heads, rows // heads // 2, 2, -1)  # (H, D/2, 2, W)
    return pairs.transpose(1, 2).reshape(rows, -1)  # (H * D, W)


# --- converted files --------------------------------------------------------------------------------------------------


def _digest(paths: Sequence[Path]) -> str:
    """sha256 of a file, or of several by their names and digests."""
    found = {}
    for path in paths:
        try:
            with path.open("rb") as file:
                found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    if len(found) == 1:
        return next(iter(found.values()))
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def _from_cache(path: Path, digest: str, dtype: torch.dtype) -> TextModel | None:
    """The converted model; None where there is none that can be used, whatever the reason: it is made again."""
    try:
        with safe_open(path, framework="pt") as file:
            words: dict[str, str] = file.metadata() or {}
            if words.get("format") != _FORMAT or words.get("digest") != digest:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        config = build_config(LlamaConfig, json.loads(words["config"]))
        model = on_meta(lambda: Llama(config))
        if any(tensor.dtype != dtype for tensor in tensors.values()):
            return None
        fill(model, tensors, path, dtype)
        model.rotary = model.new_rotary()
        with contextlib.suppress(OSError):
            os.utime(path)  # the files that are used are those that stay
        return TextModel(
            model=model.eval(),
            tokenizer=TextTokenizer(words["tokenizer"]),
            plain=TextTokenizer(words["plain"]),
            name=words["name"],
            digest=digest,
            template=words["template"],
            stop=tuple(json.loads(words["stop"])),
        )
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, CheckpointError):
        return None


def _keep(model: TextModel, path: Path) -> None:
    """Write a converted file whole or not at all, and drop those that were not used for longest."""
    words = {
        "format": _FORMAT,
        "digest": model.digest,
        "config": json.dumps(asdict(model.model.config)),
        "tokenizer": model.tokenizer.to_json(),
        "plain": model.plain.to_json(),
        "name": model.name,
        "template": model.template,
        "stop": json.dumps(model.stop),
    }
    with contextlib.suppress(OSError, SafetensorError):
        path.parent.mkdir(parents=True, exist_ok=True)
        _discard_drafts(path.parent)
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f"{path.stem}.", suffix=_DRAFT)
        os.close(handle)
        try:
            save_file({name: tensor.contiguous() for name, tensor in model.model.state_dict().items()}, draft, words)
            os.replace(draft, path)
        finally:
            Path(draft).unlink(missing_ok=True)
        ours = [
            found for kind in _DTYPES.values() for found in path.parent.glob(f"{'[0-9a-f]' * 64}.{kind}.safetensors")
        ]
        for found in sorted(ours, key=lambda other: other.stat().st_mtime)[:-_KEPT]:
            found.unlink(missing_ok=True)


def _discard_drafts(folder: Path) -> None:
    """Remove what writers that were killed have left; one that still writes is younger."""
    for draft in folder.glob(f"*{_DRAFT}"):
        if time.time() - draft.stat().st_mtime > _DRAFT_AGE_S:
            draft.unlink(missing_ok=True)


# --- folders ----------------------------------------------------------------------------------------------------------


def _from_folder(folder: Path, dtype: torch.dtype) -> TextModel:
    kind = read_json(folder / "config.json").get("model_type")
    if kind not in ("llama", "gpt2"):
        raise CheckpointError(f"want a model of the architecture llama or gpt2 in {folder}, was {kind!r}")
    model: CachedDecoder = Llama.load(folder, dtype) if kind == "llama" else GPT2.load(folder, dtype)
    words = folder / "tokenizer.json"
    try:
        content = words.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{words} cannot be read: {error}") from None
    settings = folder / "tokenizer_config.json"
    said = read_json(settings) if settings.is_file() else {}
    tokenizer = TextTokenizer(content)
    end = said.get("eos_token")
    end = end.get("content") if isinstance(end, dict) else end
    stop = tokenizer.token(end) if isinstance(end, str) else None
    template = said.get("chat_template")
    read = [*folder.glob("*.safetensors"), folder / "config.json", words, *([settings] if said else [])]
    return TextModel(
        model=model,
        tokenizer=tokenizer,
        plain=TextTokenizer(without_added(content)),
        name=folder.name,
        digest=_digest(sorted(read)),
        template=template if isinstance(template, str) else "",
        stop=() if stop is None else (stop,),
    )
