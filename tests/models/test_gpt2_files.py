"""GPT-2 from folders of Hugging Face, files of nanoGPT and checkpoints of ours; what does not fit is refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from text_files import gpt2_state, write_folder
from tiny_text import text_model, tokens_of

from models.checkpoint import CheckpointError, Training, read_manifest, write
from models.gpt2 import GPT2, convert_nanogpt


def config_of(model: GPT2, **changed: Any) -> dict[str, Any]:
    c = model.config
    shape = {"vocab_size": c.vocabulary, "n_positions": c.context, "n_layer": c.layers, "n_embd": c.width}
    return {"model_type": "gpt2", "n_head": c.heads, "layer_norm_epsilon": c.eps, **shape, **changed}


def same(found: GPT2, model: GPT2) -> bool:
    tokens = tokens_of(model, 2, 10)
    assert not found.training
    assert all(p.requires_grad for p in found.parameters())
    with torch.no_grad():
        return torch.equal(found(tokens), model(tokens))


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_a_folder_of_hugging_face_is_the_model_that_it_was_made_of(tmp_path: Path, prefix: str) -> None:
    model = text_model("gpt2")
    tensors = {prefix + name: tensor for name, tensor in gpt2_state(model, turned=True).items()}
    tensors[f"{prefix}h.0.attn.bias"] = torch.ones(1, 1, 24, 24)  # a mask, which old files have
    if prefix:
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()

    found = GPT2.load(write_folder(tmp_path / "hf", tensors, config_of(model)))

    assert found.config == model.config
    assert same(found, model)


def saved(path: Path, made: GPT2, *, word: str = "_orig_mod.", **changed: Any) -> Path:
    c = made.config
    shape = {"n_layer": c.layers, "n_head": c.heads, "n_embd": c.width, "block_size": c.context}
    shape |= {"bias": c.bias, "vocab_size": c.vocabulary, "dropout": 0.0}
    state = {f"{word}transformer.{name}": t for name, t in gpt2_state(made, turned=False).items()}
    state[f"{word}lm_head.weight"] = state[f"{word}transformer.wte.weight"]
    content = {"model": state, "model_args": shape, "iter_num": 7, "best_val_loss": torch.tensor(1.5), "config": {}}
    torch.save({**content, **changed}, path)
    return path


@pytest.mark.parametrize("word", ["", "_orig_mod."])
def test_a_file_of_nanogpt_is_converted_once_and_read_as_ours(tmp_path: Path, word: str) -> None:
    model = text_model("gpt2-bare")  # no biases, GELU by the error function
    path = saved(tmp_path / "ckpt.pt", model, word=word)

    assert same(GPT2.from_nanogpt(path), model)
    digest = convert_nanogpt(path, tmp_path / "ours")

    manifest = read_manifest(tmp_path / "ours")
    assert (manifest.digest, manifest.kind, manifest.training.start) == (digest, "gpt2", None)
    assert same(GPT2.load(tmp_path / "ours"), model)


class Trap:
    """What a hostile pickle does when it is loaded."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))


def test_a_file_that_would_run_code_is_refused_before_it_does(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    path = saved(tmp_path / "ckpt.pt", text_model("gpt2-bare"), config=Trap(str(mark)))

    with pytest.raises(CheckpointError, match="more than tensors and plain values"):
        GPT2.from_nanogpt(path)

    assert not mark.exists()


@pytest.mark.parametrize("kept", [0, 10, 1000, -100])
def test_a_truncated_file_of_nanogpt_is_refused(tmp_path: Path, kept: int) -> None:
    path = saved(tmp_path / "ckpt.pt", text_model("gpt2-bare"))
    path.write_bytes(path.read_bytes()[:kept])

    with pytest.raises(CheckpointError, match=r"truncated|more than tensors"):
        GPT2.from_nanogpt(path)


@pytest.mark.parametrize("changed", [{"model": {}}, {"model": 3}, {"model_args": {}}, {"model_args": {"n_layer": "x"}}])
def test_a_file_that_is_no_nanogpt_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    path = saved(tmp_path / "ckpt.pt", text_model("gpt2-bare"), **changed)

    with pytest.raises(CheckpointError, match=r"no checkpoint of nanoGPT|do not fit"):
        GPT2.from_nanogpt(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        GPT2.from_nanogpt(tmp_path / "none.pt")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "bert"}, "model_type gpt2"),
        ({"activation_function": "relu"}, "activation"),
        ({"n_inner": 7}, "four times"),
        ({"scale_attn_by_inverse_layer_idx": True}, "one scale"),
        ({"scale_attn_weights": False}, "one scale"),
        ({"n_layer": 4}, "do not fit its config: want blocks.3"),
        ({"n_layer": 0}, "layers must lie in"),
        ({"n_embd": "wide"}, "width"),
        ({"n_positions": 25}, "positions.weight"),
    ],
)
def test_a_folder_with_another_config_is_refused_in_a_sentence(
    tmp_path: Path, config: dict[str, Any], said: str
) -> None:
    model = text_model("gpt2")
    folder = write_folder(tmp_path / "hf", gpt2_state(model, turned=True), config_of(model, **config))

    with pytest.raises(CheckpointError, match=said) as refused:
        GPT2.load(folder)

    assert "\n" not in str(refused.value)


def test_a_folder_with_other_weights_is_refused(tmp_path: Path) -> None:
    model = text_model("gpt2")
    state = gpt2_state(model, turned=True)
    for name, tensors, said in (
        ("missing", {n: t for n, t in state.items() if n != "h.1.ln_2.bias"}, "want blocks.1.mlp_norm.bias"),
        ("unknown", {**state, "h.0.gate.weight": torch.ones(1)}, "h.0.gate.weight"),
        ("shape", {**state, "h.0.ln_1.bias": torch.ones(31)}, "blocks.0.attention_norm.bias of shape"),
        ("head", {**state, "lm_head.weight": state["wte.weight"] + 1.0}, "head of its own"),
    ):
        with pytest.raises(CheckpointError, match=said):
            GPT2.load(write_folder(tmp_path / name, tensors, config_of(model)))
    whole = write_folder(tmp_path / "cut", state, config_of(model))
    weights = whole / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="truncated"):
        GPT2.load(whole)
    weights.unlink()
    with pytest.raises(CheckpointError, match="want weights at"):
        GPT2.load(whole)
    (whole / "config.json").write_text(json.dumps([1]))
    with pytest.raises(CheckpointError, match="JSON object"):
        GPT2.load(whole)
    with pytest.raises(CheckpointError, match="cannot be read"):
        GPT2.load(tmp_path / "nothing")


def test_a_checkpoint_of_another_kind_is_refused(tmp_path: Path) -> None:
    model = text_model("gpt2")
    unknown = Training(start=None, end=None, symbols=(), bar_s=1.0, embargo_bars=0)
    config = dataclasses.asdict(model.config)
    for kind, said in (("fingpt", "of kind fingpt"), ("gpt2", "colour")):
        folder = tmp_path / kind
        extra = {"colour": 1} if kind == "gpt2" else {}
        tensors = model.to_tensors()
        write(folder, kind=kind, config=config | extra, codec=None, training=unknown, metrics={}, tensors=tensors)
        with pytest.raises(CheckpointError, match=said):
            GPT2.load(folder)
