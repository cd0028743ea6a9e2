"""Small files of language models, written as other projects write them: GGUF, Hugging Face folders, nanoGPT."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from models.gpt2 import GPT2
from models.llama import Llama, LlamaConfig

TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe brief.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["s h", "sh a", "r e", "sha re", "Ġ sha", "Ġ re", "i m"]


def alphabet() -> list[str]:
    """How byte-level tokenizers spell the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    spelled = {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [spelled[byte] for byte in range(256)]


TOKENS = [*SPECIAL, *alphabet(), *(merge.replace(" ", "") for merge in MERGES)]
CONFIG = LlamaConfig(
    vocabulary=len(TOKENS), context=64, layers=2, width=64, heads=4, kv_heads=2, hidden=96, rotary_base=5_000.0
)


def llama(**changed: Any) -> Llama:
    """A random Llama that the files below are made of."""
    torch.manual_seed(0)
    model = Llama(replace(CONFIG, **changed)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3 if parameter.ndim == 1 else parameter.shape[1] ** -0.5)
    return model


def theirs(model: Llama) -> dict[str, Tensor]:
    """Its weights as Hugging Face names and cuts them."""
    c, state = model.config, model.state_dict()
    kv = c.kv_heads * c.head_dim
    found = {"model.embed_tokens.weight": state["embedding.weight"], "model.norm.weight": state["norm.weight"]}
    if not c.tied:
        found["lm_head.weight"] = state["head.weight"]
    for i in range(c.layers):
        a, b = f"model.layers.{i}", f"blocks.{i}"
        q, k, v = state[f"{b}.attention.qkv.weight"].split((c.width, kv, kv))
        gate, up = state[f"{b}.mlp.up.weight"].chunk(2)
        parts = {"self_attn.q_proj": q, "self_attn.k_proj": k, "self_attn.v_proj": v, "mlp.gate_proj": gate}
        parts |= {"mlp.up_proj": up, "self_attn.o_proj": state[f"{b}.attention.out.weight"]}
        parts |= {"mlp.down_proj": state[f"{b}.mlp.down.weight"]}
        parts |= {"input_layernorm": state[f"{b}.attention_norm.weight"]}
        parts |= {"post_attention_layernorm": state[f"{b}.mlp_norm.weight"]}
        found |= {f"{a}.{name}.weight": tensor.clone().contiguous() for name, tensor in parts.items()}
    return found


_GGUF = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def gguf_tensors(model: Llama) -> dict[str, np.ndarray]:
    """Its weights as llama.cpp names and orders them."""
    found = {}
    heads = {"attn_q": model.config.heads, "attn_k": model.config.kv_heads}
    for name, tensor in theirs(model).items():
        layer = name.split(".")[2] if name.startswith("model.layers") else None
        kind = name.removeprefix(f"model.layers.{layer}.").removesuffix(".weight")
        array = tensor.numpy()
        if count := heads.get(_GGUF[kind]):  # as its convert_hf_to_gguf.py does
            rows, width = array.shape
            array = array.reshape(count, 2, rows // count // 2, width).swapaxes(1, 2).reshape(rows, width)
        found[f"{'' if layer is None else f'blk.{layer}.'}{_GGUF[kind]}.weight"] = np.ascontiguousarray(array)
    return found


def write_gguf(
    path: Path,
    model: Llama,
    *,
    types: dict[str, str] | None = None,
    without: tuple[str, ...] = (),
    arch: str = "llama",
    tensors: dict[str, np.ndarray] | None = None,
    **changed: Any,
) -> Path:
    """A GGUF file.

    Args:
        types: the quantisation of a tensor, by the end of its name without ".weight"; the others are F32.
        without: keys of the metadata that are left out.
        changed: keys of the metadata, with _ for every dot, and what they hold instead; or further ones, with __.
    """
    import gguf
    from gguf.quants import quantize

    kinds = gguf.GGMLQuantizationType
    c = model.config
    writer = gguf.GGUFWriter(path, arch)
    content: dict[str, Any] = {
        "llama.block_count": c.layers,
        "llama.context_length": c.context,
        "llama.embedding_length": c.width,
        "llama.feed_forward_length": c.hidden,
        "llama.attention.head_count": c.heads,
        "llama.attention.head_count_kv": c.kv_heads,
        "llama.rope.freq_base": c.rotary_base,
        "llama.attention.layer_norm_rms_epsilon": c.eps,
        "general.name": "A tiny one",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.chat_template": TEMPLATE,
        "tokenizer.ggml.eos_token_id": 2,
    }
    content |= {key: changed.pop(key.replace(".", "_"), value) for key, value in content.items()}
    content |= {key.replace("__", "."): value for key, value in changed.items()}
    for key, value in content.items():
        if key in without:
            continue
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_uint32(key, value)
    for key, values in (("tokens", TOKENS), ("merges", MERGES), ("token_type", [3] * 3 + [1] * (len(TOKENS) - 3))):
        if f"tokenizer.ggml.{key}" not in without:
            writer.add_array(f"tokenizer.ggml.{key}", values)
    for name, array in (tensors if tensors is not None else gguf_tensors(model)).items():
        kind = kinds[(types or {}).get(name.removesuffix(".weight").rpartition(".")[2], "F32")]
        if kind == kinds.F32:
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_folder(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any], *, parts: int = 1) -> Path:
    """A Hugging Face folder."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    if parts == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    names, index = sorted(tensors), {}
    for part in range(parts):
        file = f"model-{part}.safetensors"
        save_file({name: tensors[name] for name in names[part::parts]}, folder / file)
        index |= dict.fromkeys(names[part::parts], file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


def llama_config(c: LlamaConfig) -> dict[str, Any]:
    """As Hugging Face writes it."""
    return {
        "model_type": "llama",
        "hidden_act": "silu",
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
    }


_GPT2 = {
    "embedding": "wte",
    "positions": "wpe",
    "norm": "ln_f",
    "attention_norm": "ln_1",
    "attention.qkv": "attn.c_attn",
    "attention.out": "attn.c_proj",
    "mlp_norm": "ln_2",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}


def gpt2_state(model: GPT2, *, turned: bool) -> dict[str, Tensor]:
    """Its weights as GPT-2's own names are, matrices of the blocks as (in, out) where `turned`."""
    found = {}
    for name, tensor in model.state_dict().items():
        layer = name.split(".")[1] if name.startswith("blocks.") else None
        kind, _, end = name.removeprefix(f"blocks.{layer}.").rpartition(".")
        if layer is not None and tensor.ndim == 2 and turned:
            tensor = tensor.t()
        found[f"{'' if layer is None else f'h.{layer}.'}{_GPT2[kind]}.{end}"] = tensor.clone().contiguous()
    return found
