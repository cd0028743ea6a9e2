"""A language model with what turns text into its tokens: its tokenizers and its chat template.

Text from outside is tokenised by `plain`, which knows no special tokens: what looks like the end of a message is then
seven ordinary pieces, and cannot end one.
"""

import importlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from models.checkpoint import CheckpointError
from models.decoder import CachedDecoder

__all__ = ["PackageError", "TextError", "TextModel", "TextTokenizer", "byte_pairs", "package", "without_added"]


class PackageError(CheckpointError):
    """A package that reads this kind of model is not installed; the message says which."""


class TextError(ValueError):
    """Something was asked of a text model that it cannot do; the message says what was wanted and what came."""


def package(name: str) -> Any:
    """A package of the extra `llm`.

    Raises:
        PackageError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise PackageError(
            f"a language model of a file needs the package {name}, which is not installed: pip install 'ticktorch[llm]'"
        ) from None


class TextTokenizer:
    """Text to tokens and back. Made from the JSON of the library `tokenizers`.

    Raises:
        PackageError: the library is not installed.
        CheckpointError: it does not take the JSON.
    """

    def __init__(self, content: str) -> None:
        library = package("tokenizers")
        try:
            self._inner = library.Tokenizer.from_str(content)
            self._inner.no_padding()  # some files ask for it, or for a cut; a text has the tokens that it has
            self._inner.no_truncation()
        except Exception as error:  # the library raises no narrower class
            raise CheckpointError(f"want a tokenizer of the library tokenizers: {error}") from None

    def encode(self, text: str) -> list[int]:
        """Tokens of a text; nothing is put before or after it. Half of a surrogate pair becomes a question mark."""
        sound = text.encode("utf-8", "replace").decode("utf-8")
        tokens: list[int] = self._inner.encode(sound, add_special_tokens=False).ids
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones by their names; one that the tokenizer does not have is left out."""
        text: str = self._inner.decode([int(token) for token in tokens], skip_special_tokens=False)
        return text

    def token(self, text: str) -> int | None:
        """The token that is exactly this, such as a special one; None where there is none."""
        found: int | None = self._inner.token_to_id(text)
        return found

    def to_json(self) -> str:
        content: str = self._inner.to_str()
        return content


@dataclass(frozen=True, slots=True, eq=False)
class TextModel:
    """A model with its words.

    Attributes:
        model: in evaluation mode.
        tokenizer: with special tokens; for what we write ourselves.
        plain: without; for text from outside.
        name: what the file calls itself.
        digest: sha256 of the file or folder, 64 hexadecimal digits.
        stop: tokens that end an answer.
    """

    model: CachedDecoder
    tokenizer: TextTokenizer
    plain: TextTokenizer
    name: str
    digest: str
    template: str = field(default="", repr=False)
    stop: tuple[int, ...] = ()

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        """What the chat template makes of messages {"role": ..., "content": ...}, up to where the answer begins.

        To be read by `tokenizer`, so contents must be our own: `chat_tokens` takes those from outside.

        Raises: TextError: the template is not ChatML, or a message has no role or content.
        """
        return "".join(text for text, _ in self._pieces(messages))

    def chat_tokens(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Tokens of `chat`, with contents read by `plain`: none of them can end a message or begin another.

        Raises: TextError: as `chat`.
        """
        tokens: list[int] = []
        for text, ours in self._pieces(messages):
            tokens += (self.tokenizer if ours else self.plain).encode(text)
        return tokens

    def _pieces(self, messages: Sequence[Mapping[str, str]]) -> list[tuple[str, bool]]:
        """Texts, and whether each is of the template."""
        system = chatml_system(self.template)
        pieces: list[tuple[str, bool]] = []
        for i, message in enumerate(messages):
            role, content = message.get("role"), message.get("content")
            if not isinstance(role, str) or not re.fullmatch(r"[a-z]+", role) or not isinstance(content, str):
                raise TextError(f"want messages with a role of small letters and a content, was {dict(message)!r:.200}")
            if i == 0 and system is not None and role != "system":
                pieces.append((f"<|im_start|>system\n{system}<|im_end|>\n", True))
            pieces += [(f"<|im_start|>{role}\n", True), (content, False), ("<|im_end|>\n", True)]
        return [*pieces, ("<|im_start|>assistant\n", True)]


_NEWLINE = r"(?:\n|\\n)"  # within a text of the template: itself, or escaped
_CHATML = re.compile(
    r"\{% for message in messages %\}"
    r"(?:\{% if loop\.first and messages\[0\]\['role'\] != 'system' %\}"
    rf"\{{\{{ '<\|im_start\|>system{_NEWLINE}(?P<system>[^'\\{{}}]*)<\|im_end\|>{_NEWLINE}' \}}\}}"
    r"\{% endif %\})?"
    rf"\{{\{{ ?'<\|im_start\|>' \+ message\['role'\] \+ '{_NEWLINE}' \+ message\['content'\]"
    rf" \+ '<\|im_end\|>' \+ '{_NEWLINE}' ?\}}\}}"
    r"\{% endfor %\}"
    rf"\{{% if add_generation_prompt %\}}\{{\{{ '<\|im_start\|>assistant{_NEWLINE}' \}}\}}\{{% endif %\}}\s*"
)


def chatml_system(template: str) -> str | None:
    """What a ChatML template says as the system where no message does; None where it says nothing.

    A template is a program; this form of it is recognised, and no other is run.

    Raises: TextError: it is another.
    """
    match = _CHATML.fullmatch(template)
    if match is None:
        raise TextError(f"want a chat template in the form of ChatML, was {template[:120]!r}")
    return match["system"]


# --- tokenizers from their parts --------------------------------------------------------------------------------------

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
SPLITS = ("smollm", "gpt-2", "default", "llama-bpe", "llama3")  # how text is cut before pairs are merged


def byte_pairs(vocabulary: Mapping[str, int], merges: Sequence[str], added: Sequence[str], split: str) -> str:
    """The JSON of a byte-level BPE tokenizer.

    Args:
        vocabulary: pieces, spelled in the alphabet of bytes, to their numbers.
        merges: pairs in the order of merging, "first second".
        added: pieces of the vocabulary that are found in a text before anything else is.
        split: one of SPLITS.

    Raises:
        PackageError: the library is not installed.
        CheckpointError: there is no such split, or a merge is of no piece.
    """
    library = package("tokenizers")
    if split not in SPLITS:
        raise CheckpointError(f"want text cut the way of {', '.join(SPLITS)}, was {split!r}")
    pairs = [tuple(merge.split(" ")) for merge in merges]
    if wrong := next((pair for pair in pairs if len(pair) != 2), None):
        raise CheckpointError(f"want merges of two pieces, was {' '.join(wrong)!r}")
    cut = library.pre_tokenizers
    llama = split in ("llama-bpe", "llama3")
    try:
        model = library.models.BPE(dict(vocabulary), pairs, ignore_merges=llama)
    except Exception as error:  # the library raises no narrower class
        raise CheckpointError(f"want merges of pieces that the vocabulary has: {error}") from None
    made = library.Tokenizer(model)
    parts = {"smollm": [cut.Digits(individual_digits=True)]}.get(split, [])
    if llama:
        parts = [cut.Split(library.Regex(_LLAMA3), "isolated")]
    made.pre_tokenizer = cut.Sequence([*parts, cut.ByteLevel(add_prefix_space=False, use_regex=not llama)])
    made.decoder = library.decoders.ByteLevel()
    made.add_special_tokens([library.AddedToken(text, special=True, normalized=False) for text in added])
    content: str = made.to_str()
    return content


def without_added(content: str) -> str:
    """The JSON of a tokenizer without its added tokens, which then no text contains.

    Raises: CheckpointError: it is no such JSON.
    """
    try:
        parts = json.loads(content)
        added = {token["content"] for token in parts["added_tokens"]}
        model = parts["model"]
        if model["type"] != "BPE":
            raise CheckpointError(f"want a tokenizer of byte pairs, was {model['type']}")
        model["vocab"] = {piece: number for piece, number in model["vocab"].items() if piece not in added}
        model["unk_token"] = None
        return json.dumps({**parts, "added_tokens": [], "post_processor": None})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"want a tokenizer of the library tokenizers: {error!r}") from None
