"""A language model that goes on with a text: from whatever file it is in, token by token through its cache."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models.checkpoint import MANIFEST, CheckpointError, read_manifest
from models.decoder import CachedDecoder
from models.engine import Engine, Fed
from models.gguf import load_text_model
from models.gpt2 import GPT2
from models.sampling import EXACT, Floats, Sampling, draw, probabilities
from models.spelling import Piecewise, Spelling, read_spelling, spelling_of
from models.text import TextError, TextModel

__all__ = ["Writer", "load_writer", "write"]

_TEXT = "text"  # the engine's name of what is written
_SMALLEST = np.finfo(np.float64).tiny


@dataclass(frozen=True, slots=True, eq=False)
class Writer:
    """A model with its spelling.

    Attributes:
        model: in evaluation mode.
        stop: tokens that end a text.
        chats: what its chat template is known of; None: it has not learned to answer.
    """

    model: CachedDecoder
    spelling: Spelling
    name: str
    stop: tuple[int, ...] = ()
    chats: TextModel | None = None

    def answer(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Tokens of messages up to where the answer begins.

        Raises: TextError: there is no chat template of a known form.
        """
        if self.chats is None:
            raise TextError(f"want a model with a chat template to answer, {self.name} goes on with texts alone")
        return self.chats.chat_tokens(messages)


def load_writer(path: str | Path, dtype: torch.dtype = torch.float32, *, tokenizer: str | Path = "") -> Writer:
    """A model of one of our checkpoints, a GGUF file, a Hugging Face folder of safetensors, or a nanoGPT `ckpt.pt`.

    Args:
        tokenizer: a `tokenizer.json` or `meta.json`, in place of what the model brings; nanoGPT's bring nothing.

    Raises:
        CheckpointError: there is no sound model of a known architecture, or nothing says what its tokens mean.
        PackageError: a package that reads it is not installed.
    """
    path = Path(path)
    own = (path / MANIFEST).is_file()
    if own or path.suffix == ".pt":
        model = GPT2.load(path, dtype) if own else GPT2.from_nanogpt(path).to(dtype)
        if tokenizer:
            return Writer(model, read_spelling(Path(tokenizer)), path.name)
        codec = read_manifest(path).codec if own else None
        if codec is None:
            raise CheckpointError(f"{path} does not say what its tokens mean: want --tokenizer FILE, a tokenizer.json")
        spelling, count = spelling_of(codec, path)
        if count != model.config.vocabulary:
            raise CheckpointError(f"{path} has {model.config.vocabulary} tokens, and says what {count} mean")
        return Writer(model, spelling, path.name)
    found = load_text_model(path, dtype)
    if tokenizer:
        return Writer(found.model, read_spelling(Path(tokenizer)), found.name, found.stop)
    return Writer(found.model, found.tokenizer, found.name, found.stop, found if found.template else None)


def write(
    writer: Writer,
    start: str | Sequence[int],
    count: int,
    *,
    sampling: Sampling = EXACT,
    seed: int = 0,
    threads: int = 1,
) -> Iterator[str]:
    """Pieces of text that follow `start`, as they come: at most `count` tokens, fewer where the model ends its text.

    Beyond the model's context it goes on from the later half of what it has seen, read anew. The same arguments give
    the same text on the same machine.

    Raises:
        TextError: `start` has no token, or a character that the model has never seen.
        EngineError: a token of `start` is impossible.
    """
    given = writer.spelling.encode(start) if isinstance(start, str) else list(start)
    if not given:
        raise TextError("want a text to go on from, of at least one token, was none")
    context = min(writer.model.config.context, len(given) + count)
    engine = Engine(writer.model, 1, context=context, threads=threads)
    chance = np.random.default_rng(seed)
    text = Piecewise(writer.spelling, given)
    seen = given[-context:]
    new = seen
    for _ in range(count):
        full = engine.length(_TEXT) + len(new) > context
        if full:
            new = seen = seen[-max(1, context // 2) :]
        chances = engine.feed([Fed(symbol=_TEXT, tokens=new, gap=full)])
        token = int(draw(probabilities(_logits(chances), sampling), chance.random(1))[0])
        if token in writer.stop:
            break
        new = [token]
        seen = [*seen[1 - context :], token] if context > 1 else new
        if piece := text.add(token):
            yield piece
    if piece := text.rest():
        yield piece


def _logits(chances: Floats) -> Floats:
    """Up to a constant a row, which changes nothing; a chance that underflowed is one of 1e-308."""
    return np.log(np.maximum(chances, _SMALLEST))
