"""The advisor's language model against others with the same weights: transformers, and llama.cpp where it is there."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.advisor.advice import Headline
from models.advisor.gpt import Gpt
from models.advisor.reader import engine_of, open_model, plain_tokens
from models.engine import Fed

HEADLINES = 16  # that both read
ERROR_MAX = 1e-4  # of the hidden states, over the largest of them


@dataclass(slots=True)
class Pair:
    """Two who do the same work, item by item in turn."""

    ours: str
    theirs: str
    note: str
    ms: list[tuple[float, float]] = field(default_factory=list)

    def run(self, rounds: int, works: Sequence[tuple[Callable[[], object], Callable[[], object]]]) -> None:
        """`works`: ours and theirs of each item. Who begins changes from item to item."""
        for turn in range(rounds + 1):
            for number, pair in enumerate(works):
                spent = [0.0, 0.0]
                for who in (0, 1) if (number + turn) % 2 else (1, 0):
                    began = time.perf_counter()
                    pair[who]()
                    spent[who] = (time.perf_counter() - began) * 1e3
                if turn:  # the first one warms up
                    self.ms.append((spent[0], spent[1]))

    @property
    def ratio(self) -> float:
        """Median over the items of ours over theirs."""
        times = np.array(self.ms)
        return float(np.median(times[:, 0] / times[:, 1]))

    def line(self) -> str:
        times = np.array(self.ms)
        quarters = np.quantile(times[:, 0] / times[:, 1], [0.25, 0.75])
        ours, theirs = np.median(times, axis=0)
        return (
            f"| {self.ours} | {self.theirs} | {self.note} | {ours:.1f} | {theirs:.1f} | {self.ratio:.3f} "
            f"({quarters[0]:.3f} to {quarters[1]:.3f}) |"
        )


@torch.inference_mode()
def against_transformers(model: Path, head: Path, texts: Sequence[str], rounds: int) -> list[Pair]:
    """The reading alone, and all that gpt does, against the hidden states of the same layers; then of all layers."""
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    opened, gpt = open_model(model, "fp32"), Gpt(model, head)
    layer = int(gpt.manifest.config["reading"]["layer"])
    engine = engine_of(opened, 1)
    theirs = AutoModelForCausalLM.from_pretrained(model.parent, gguf_file=model.name, dtype=torch.float32).model
    theirs.train(False)
    theirs.norm = torch.nn.Identity()  # what leaves the blocks
    every, texts = theirs.layers, texts[:HEADLINES]
    tokens = [plain_tokens(opened, text) for text in texts]
    theirs_read = [partial(theirs, torch.tensor([one]), use_cache=False) for one in tokens]
    note = f"{np.mean([len(one) for one in tokens]):.0f} tokens on average"
    pairs = []
    for depth in (layer, len(every)):
        theirs.layers = every[:depth]
        ours_read = [partial(engine.embed, [one], depth) for one in tokens]
        off = max(_off(ours(), read()) for ours, read in zip(ours_read, theirs_read, strict=True))
        if not off <= ERROR_MAX:
            raise SystemExit(f"want the hidden states of transformers after {depth} blocks, was {off:.1e} away")
        name = f"transformers, {depth} layers"
        pairs.append(Pair(f"hidden states, {depth} layers", name, f"{note}; {off:.0e} apart"))
        pairs[-1].run(rounds, list(zip(ours_read, theirs_read, strict=True)))
        if depth == layer:
            whole = [partial(gpt.advise, [Headline(text=text)]) for text in texts]
            pairs.append(Pair("all of gpt: clean, tokens, reading, head", name, note))
            pairs[-1].run(rounds, list(zip(whole, theirs_read, strict=True)))
    return pairs


def _off(ours: Any, theirs: Any) -> float:
    """Largest difference of the last token's hidden state, over the largest number in it."""
    last = theirs.last_hidden_state[0, -1].numpy()
    return float(np.abs(ours[0, : len(last)] - last).max() / np.abs(last).max())


def against_llama_cpp(model: Path, head: Path, texts: Sequence[str], rounds: int) -> list[Pair]:
    """All layers of a headline, and a token after it."""
    from llama_cpp import Llama

    theirs = Llama(str(model), n_ctx=512, n_threads=1, n_threads_batch=1, verbose=False)
    opened = open_model(model, "fp32")
    engine = engine_of(opened, 1)
    tokens = [plain_tokens(opened, text) for text in texts[:HEADLINES]]

    def read(one: list[int]) -> None:
        theirs.reset()
        theirs.eval(one)

    note = f"{np.mean([len(one) for one in tokens]):.0f} tokens on average"
    prefill = Pair("prefill, all layers, fp32", "llama.cpp, Q4_1", note)
    fed = [[Fed(symbol="p", tokens=one, gap=True)] for one in tokens]
    prefill.run(rounds, [(partial(engine.feed, a), partial(read, b)) for a, b in zip(fed, tokens, strict=True)])
    step = Pair("one more token, fp32", "llama.cpp, Q4_1", "after a headline")
    step.run(rounds, [(partial(engine.feed, [Fed(symbol="p", tokens=[5])]), partial(theirs.eval, [5]))] * 8)
    return [prefill, step]
