"""A Llama as a Hugging Face folder, which `models.gguf.load_text_model` reads, and `transformers` as well."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from configs.load import ConfigError
from models.llama import Llama, LlamaConfig
from models.text import TextModel

FILES = frozenset(("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"))


def refuse_foreign(folder: Path) -> None:
    """Refuse a place where something else is than a model that was written here.

    Raises:
        ConfigError: there is.
    """
    if os.path.lexists(folder):
        plain = folder.is_dir() and not folder.is_symlink()
        if not plain or {path.name for path in folder.iterdir()} - FILES:
            raise ConfigError(f"{folder} is no model that was tuned here, and is not replaced by one")


def write_folder(text: TextModel, model: Llama, folder: Path) -> None:
    """Write a model with the words of another, whole or not at all; one that is there is replaced.

    Args:
        text: whose tokenizer and chat template it gets.
        model: on any device; its weights are written in fp32.

    Raises:
        ConfigError: something else is in its place.
        OSError: it cannot be written.
    """
    refuse_foreign(folder)
    draft = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(draft, ignore_errors=True)  # of a writer that was killed
    draft.mkdir(parents=True)
    try:
        (draft / "config.json").write_text(json.dumps(_config(model.config), indent=2) + "\n")
        (draft / "tokenizer.json").write_text(text.tokenizer.to_json(), "utf-8")
        words: dict[str, Any] = {"chat_template": text.template}
        if text.stop:
            words["eos_token"] = text.tokenizer.decode(text.stop[:1])
        (draft / "tokenizer_config.json").write_text(json.dumps(words, indent=2) + "\n")
        save_file(_tensors(model), draft / "model.safetensors", {"format": "pt"})
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _tensors(model: Llama) -> dict[str, Tensor]:
    """The weights as Hugging Face names and cuts them."""
    c, state = model.config, {name: tensor.detach().cpu().float() for name, tensor in model.state_dict().items()}
    kv = c.kv_heads * c.head_dim
    found = {"model.embed_tokens.weight": state["embedding.weight"], "model.norm.weight": state["norm.weight"]}
    if not c.tied:
        found["lm_head.weight"] = state["head.weight"]
    for layer in range(c.layers):
        ours, theirs = f"blocks.{layer}", f"model.layers.{layer}"
        q, k, v = state[f"{ours}.attention.qkv.weight"].split((c.width, kv, kv))
        gate, up = state[f"{ours}.mlp.up.weight"].chunk(2)
        parts = {
            "self_attn.q_proj": q,
            "self_attn.k_proj": k,
            "self_attn.v_proj": v,
            "self_attn.o_proj": state[f"{ours}.attention.out.weight"],
            "mlp.gate_proj": gate,
            "mlp.up_proj": up,
            "mlp.down_proj": state[f"{ours}.mlp.down.weight"],
            "input_layernorm": state[f"{ours}.attention_norm.weight"],
            "post_attention_layernorm": state[f"{ours}.mlp_norm.weight"],
        }
        found |= {f"{theirs}.{name}.weight": part for name, part in parts.items()}
    # A safetensors file holds no two views of one memory.
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in found.items()}


def _config(c: LlamaConfig) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "vocab_size": c.vocabulary,
        "max_position_embeddings": c.context,
        "num_hidden_layers": c.layers,
        "hidden_size": c.width,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "intermediate_size": c.hidden,
        "rope_theta": c.rotary_base,
        "rms_norm_eps": c.eps,
        "tie_word_embeddings": c.tied,
        "torch_dtype": "float32",
    }
