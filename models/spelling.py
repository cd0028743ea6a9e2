"""How a text is spelled in tokens: by characters, or by byte pairs; and the text of tokens that come one by one."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from models.checkpoint import CheckpointError
from models.text import TextError, TextTokenizer
from models.weights import read_json

__all__ = ["CHARACTERS_MAX", "KINDS", "Characters", "Piecewise", "Spelling", "read_spelling", "spelling_of"]

KINDS = ("characters", "bpe")
CHARACTERS_MAX = 65_536  # what two bytes a token can tell apart

_BROKEN = "\ufffd"  # in place of bytes that are no character, or not yet
_BYTES_A_CHARACTER = 4  # in UTF-8, at most


class Spelling(Protocol):
    """Text to tokens and back."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, tokens: Sequence[int]) -> str: ...


class Characters:
    """A token a character.

    Args:
        characters: token 0, token 1, and so on.

    Raises: ValueError: none, too many, or one twice.
    """

    def __init__(self, characters: str) -> None:
        if not 1 <= len(characters) <= CHARACTERS_MAX or len(set(characters)) != len(characters):
            raise ValueError(
                f"want 1 to {CHARACTERS_MAX:,} different characters, was {len(characters):,}, of which"
                f" {len(set(characters)):,} differ"
            )
        self.characters = characters
        self._token = {character: token for token, character in enumerate(characters)}

    def encode(self, text: str) -> list[int]:
        """Tokens of a text.

        Raises: TextError: the model has never seen one of its characters.
        """
        try:
            return [self._token[character] for character in text]
        except KeyError as error:
            raise TextError(f"want characters that the model has seen, {self._shown()}, was {error}") from None

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; one that there is no character for is left out."""
        known = len(self.characters)
        return "".join(self.characters[token] for token in tokens if 0 <= token < known)

    def _shown(self) -> str:
        text = repr(self.characters)
        return text if len(text) <= 120 else f"{text[:120]} …"


def spelling_of(content: Mapping[str, Any], where: object) -> tuple[Spelling, int]:
    """A spelling as manifests and `meta.json` hold it, and how many tokens it has.

    {"tokens": "characters", "characters": text} or {"tokens": "bpe", "tokenizer": JSON of the library `tokenizers`,
    as text, "vocabulary": number}; other keys are not read.

    Raises:
        CheckpointError: it is neither.
        PackageError: it needs the library, which is not installed.
    """
    kind = content.get("tokens")
    if kind == "characters" and isinstance(characters := content.get("characters"), str):
        try:
            return Characters(characters), len(characters)
        except ValueError as error:
            raise CheckpointError(f"{where} has no usable tokens: {error}") from None
    text, count = content.get("tokenizer"), content.get("vocabulary")
    if kind == "bpe" and isinstance(text, str) and isinstance(count, int):
        return TextTokenizer(text), count
    raise CheckpointError(f"want tokens of {' or '.join(KINDS)} in {where}, was {kind!r:.80} without what goes with it")


def read_spelling(path: Path) -> Spelling:
    """The spelling of a file: what `spelling_of` takes, or a `tokenizer.json`.

    Raises:
        CheckpointError: it is missing, or something else.
        PackageError: it needs the library `tokenizers`, which is not installed.
    """
    content = read_json(path)
    if "tokens" in content:
        return spelling_of(content, path)[0]
    return TextTokenizer(json.dumps(content))


class Piecewise:
    """The text of tokens as they come: what a token adds to those before, and no half of a character.

    Args:
        before: tokens that are there already; a piece may look different at the beginning of a text.
    """

    def __init__(self, spelling: Spelling, before: Sequence[int] = ()) -> None:
        self._spelling = spelling
        self._tokens = list(before[-2 * _BYTES_A_CHARACTER :])
        self._start, self._told = 0, len(self._tokens)

    def add(self, token: int) -> str:
        """What can be told now; "" where a character is not whole yet."""
        self._tokens.append(token)
        waiting = len(self._tokens) - self._told
        text = self._new()
        return "" if text.endswith(_BROKEN) and waiting < _BYTES_A_CHARACTER else self._tell(text)

    def rest(self) -> str:
        """What is left at the end, as it is."""
        return self._tell(self._new())

    def _new(self) -> str:
        before = self._spelling.decode(self._tokens[self._start : self._told])
        return self._spelling.decode(self._tokens[self._start :])[len(before) :]

    def _tell(self, text: str) -> str:
        self._tokens = self._tokens[self._told :] or self._tokens[self._start :]
        self._start, self._told = 0, len(self._tokens)
        return text
