"""Untrusted text made plain: one line of visible characters, without markup, of a bounded length."""

import html
import re
import unicodedata
from dataclasses import dataclass

PIECES_MAX = 96  # pieces of at most six characters, near what a language model calls tokens
CHARS_MAX = 4_096  # read at all

_ADDRESS = re.compile(r"(?:https?://|www\.)\S*|\bpic\.twitter\.com/\S*", re.IGNORECASE)
_COMMENT = re.compile(r"<!--.*?(?:-->|$)", re.DOTALL)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<[!?][^<>]*>")
_PIECE = re.compile(r"\w{1,6}|[^\w\s]")
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_HARMLESS = frozenset("\u00ad\u200b\u200d\u200e\u200f\ufeff")  # what editors and emoji leave behind
_HARMLESS_MAX = 3
_DROPPED = frozenset(("Cc", "Cf", "Co", "Cs", "Cn"))
_LAYERS_MAX = 6  # of markup within markup, the last of which must change nothing; headlines have one or two
_MARKS_MAX = 2  # on one letter; more of them is a text made to be seen and not read


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What is left of a text.

    Attributes:
        text: one line, NFKC, at most PIECES_MAX pieces.
        hidden: whether characters that nobody sees were in it, beyond what editors leave behind.
        cut: whether there was more.
    """

    text: str
    hidden: bool
    cut: bool


def clean(text: str) -> Cleaned:
    """The text as a person would see it, on one line. What is clean stays as it is.

    References are resolved before tags are taken out, and compatible forms made one (full width, ligatures) before
    that. What is then left may be markup again, as of references that were escaped twice, so it is cleaned again; what
    is wrapped deeper than anyone wraps a headline is hidden.
    """
    cut, hidden = len(text) > CHARS_MAX, False
    text = text[:CHARS_MAX]
    for _ in range(_LAYERS_MAX):
        before = text
        text, unseen, longer = _once(text)
        hidden, cut = hidden or unseen, cut or longer
        if text == before:
            return Cleaned(text, hidden, cut)
    return Cleaned("", True, cut)


def _once(text: str) -> tuple[str, bool, bool]:
    """One layer less, whether something was hidden in it, and whether it was cut."""
    text = unicodedata.normalize("NFKC", html.unescape(text))[:CHARS_MAX]
    text = _ADDRESS.sub(" ", _TAG.sub(" ", _COMMENT.sub(" ", text)))
    shown, hidden = _visible(text)
    line = " ".join(shown.split())
    short = _first_pieces(line)
    return short, hidden, len(short) < len(line)


def _visible(text: str) -> tuple[str, bool]:
    kept: list[str] = []
    harmless = marks = 0
    hidden = False
    for char in text:
        kind = unicodedata.category(char)
        if kind in _DROPPED:
            if char.isspace() or kind == "Cc":
                kept.append(" ")
            elif char in _HARMLESS:
                harmless += 1
            else:
                hidden = hidden or kind in ("Cf", "Co") or char in _BIDI
            continue
        marks = marks + 1 if kind in ("Mn", "Me") else 0
        if marks > _MARKS_MAX:
            hidden = True
        elif not "\ufe00" <= char <= "\ufe0f":  # which picture an emoji is
            kept.append(char)
    return "".join(kept), hidden or harmless > _HARMLESS_MAX


def _first_pieces(line: str) -> str:
    end = len(line)
    for count, piece in enumerate(_PIECE.finditer(line)):
        if count == PIECES_MAX:
            return line[:end].rstrip()
        end = piece.end()
    return line
