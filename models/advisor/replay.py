"""Recorded answers, and the advisor that gives them again. JSON Lines, one answer a line."""

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from models.advisor.advice import LEARNT_UNKNOWN, Advice, Advisor, AdvisorError, Headline

_KEYS = (
    "key",
    "action",
    "score",
    "confidence",
    "probabilities",
    "symbol",
    "reason",
    "backend",
    "model_id",
    "prompt_id",
)
_LINE_BYTES_MAX = 1 << 16


def key_of(headline: Headline, model_id: str, prompt_id: str) -> str:
    """What names an answer: the text, the symbol, the model and the question. 64 hexadecimal digits."""
    parts = json.dumps([headline.text, headline.symbol, model_id, prompt_id])
    return hashlib.sha256(parts.encode()).hexdigest()


def line_of(headline: Headline, advice: Advice) -> str:
    """One line of a recording, without its end."""
    values: dict[str, Any] = {name: getattr(advice, name) for name in _KEYS[1:]}
    return json.dumps({"key": key_of(headline, advice.model_id, advice.prompt_id), **values}, sort_keys=True)


class Recorder:
    """An advisor whose answers are also written down.

    Args:
        path: lines are appended.

    Raises:
        AdvisorError: when an answer cannot be written down.
    """

    def __init__(self, inner: Advisor, path: str | Path) -> None:
        self._inner, self._path = inner, Path(path)

    @property
    def backend(self) -> str:
        return self._inner.backend

    @property
    def model_id(self) -> str:
        return self._inner.model_id

    @property
    def prompt_id(self) -> str:
        return self._inner.prompt_id

    @property
    def learnt_until(self) -> datetime:
        return self._inner.learnt_until

    def advise(self, batch: Sequence[Headline]) -> list[Advice]:
        answers = self._inner.advise(batch)
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(f"{line_of(asked, advice)}\n" for asked, advice in zip(batch, answers, strict=True))
        except OSError as exc:
            raise AdvisorError(f"{self._path} cannot be written: {exc.strerror}") from None
        return answers

    def close(self) -> None:
        self._inner.close()


class Replay:
    """Answers as they were recorded. The same headline has the answers it had, in their order; then the last again.

    Args:
        learnt_until: of the model that answered, naive UTC; a recording does not say it.

    Raises:
        AdvisorError: the recording is missing, empty, broken, or of several models.
    """

    backend = "replay"

    def __init__(self, path: str | Path, *, learnt_until: datetime = LEARNT_UNKNOWN) -> None:
        self._path = Path(path)
        self.learnt_until = learnt_until
        self._answers: dict[str, list[Advice]] = {}
        models: set[tuple[str, str]] = set()
        try:
            with self._path.open("rb") as file:
                number = 0
                while line := file.readline(_LINE_BYTES_MAX + 1):
                    number += 1
                    if line.strip():
                        key, advice = self._parse(number, line)
                        self._answers.setdefault(key, []).append(advice)
                        models.add((advice.model_id, advice.prompt_id))
        except OSError as exc:
            raise AdvisorError(f"want recorded answers at {path}: {exc.strerror}") from None
        if len(models) != 1:
            raise AdvisorError(f"want recorded answers of one model at {path}, was of {len(models)}")
        ((self.model_id, self.prompt_id),) = models

    def advise(self, batch: Sequence[Headline]) -> list[Advice]:
        """As recorded.

        Raises:
            AdvisorError: no answer was recorded for a headline.
        """
        found = []
        for headline in batch:
            answers = self._answers.get(key_of(headline, self.model_id, self.prompt_id))
            if not answers:
                raise AdvisorError(f"{self._path} has no answer to a headline about {headline.symbol or 'no symbol'}")
            found.append(answers.pop(0) if len(answers) > 1 else answers[0])
        return found

    def close(self) -> None:
        """It holds nothing."""

    def _parse(self, number: int, line: bytes) -> tuple[str, Advice]:
        where = f"{self._path}:{number}"
        if len(line) > _LINE_BYTES_MAX:
            raise AdvisorError(f"{where}: want a line of at most {_LINE_BYTES_MAX} bytes, was longer")
        try:
            content = json.loads(line)
            if not isinstance(content, dict) or set(content) != set(_KEYS):
                raise ValueError(f"want an object with the keys {', '.join(_KEYS)}")
            key, values = content.pop("key"), content
            texts = (
                key,
                *(values[name] for name in ("action", "symbol", "reason", "backend", "model_id", "prompt_id")),
            )
            if not all(isinstance(text, str) for text in texts):
                raise ValueError("want texts as texts")
            values["probabilities"] = tuple(float(chance) for chance in values["probabilities"])
            return key, Advice(**values)
        except (ValueError, TypeError, OverflowError, RecursionError) as exc:
            raise AdvisorError(f"{where}: no recorded answer: {exc}") from None
