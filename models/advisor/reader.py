"""What a frozen language model makes of texts from outside: its hidden states, as numbers for a head."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from models.advisor.advice import AdvisorError
from models.checkpoint import CheckpointError
from models.engine import Engine
from models.gguf import load_text_model
from models.text import TextModel

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TOKENS_MAX = 128  # of a text; 96 pieces are rarely more
CONTEXT = 1_024  # tokens, where the model has as many


def open_model(path: str | Path, dtype: str) -> TextModel:
    """A language model of a file or folder.

    Args:
        dtype: fp32 or bf16.

    Raises:
        AdvisorError: it cannot be used; the message says why.
    """
    if dtype not in DTYPES:
        raise AdvisorError(f"want a dtype of {', '.join(DTYPES)}, was {dtype!r}")
    try:
        return load_text_model(path, DTYPES[dtype])
    except CheckpointError as exc:
        raise AdvisorError(str(exc)) from None


def engine_of(model: TextModel, threads: int, *, beside: int = 0) -> Engine:
    """What runs the model on one text at a time.

    Args:
        beside: tokens of a prompt and an answer, for which there must be room beside a text; 0: there are none.

    Raises:
        AdvisorError: the model cannot see so many.
    """
    context = min(CONTEXT, int(model.model.config.context))
    if beside and beside + TOKENS_MAX > context:
        raise AdvisorError(f"want a model that sees {beside + TOKENS_MAX} tokens, {model.name} sees {context}")
    return Engine(model.model, 1, context=context, threads=threads)


def plain_tokens(model: TextModel, text: str) -> list[int]:
    """Tokens of a text from outside: none of them is special, at most TOKENS_MAX and what the model can see."""
    return model.plain.encode(text)[: min(TOKENS_MAX, int(model.model.config.context))]


class Reader:
    """A language model that reads, and never writes.

    Raises:
        AdvisorError: the model cannot be used.
    """

    def __init__(self, path: str | Path, *, dtype: str = "fp32", threads: int = 1) -> None:
        self._model = open_model(path, dtype)
        self.name, self.digest = self._model.name, self._model.digest
        self._engine = engine_of(self._model, threads)

    def read(self, texts: Sequence[str], layer: int) -> npt.NDArray[np.float32]:
        """Hidden states of the last token and the mean over all after `layer` blocks, (N, 2 W).

        Raises:
            AdvisorError: a text has nothing to read, or there is no such layer.
        """
        tokens = [plain_tokens(self._model, text) for text in texts]
        if not all(tokens):
            raise AdvisorError("want texts with something to read, was an empty one")
        try:
            return self._engine.embed(tokens, layer)
        except ValueError as exc:
            raise AdvisorError(str(exc)) from None
