"""Text to tokens on disk: fetched through the package registry or read from a file, cut, and mapped into memory.

Tokens are two bytes each, in `train.bin` and `val.bin` of a cache folder; `meta.json` beside them says what they mean.
Nothing here is ever a pickle.
"""

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from configs.load import ConfigError
from feeds.errors import DataError
from models.checkpoint import CheckpointError
from models.spelling import CHARACTERS_MAX, spelling_of
from models.text import byte_pairs, package
from trainer.gpt_archive import archive_texts, fetch
from trainer.gpt_config import TextConfig

__all__ = ["META", "TextData", "prepared", "without_licence"]

META = "meta.json"

_FORMAT = 1
_FILES = {"train": "train.bin", "validation": "val.bin"}
_TEXT_BYTES_MAX = 4 << 30

Tokens = npt.NDArray[Any]  # (n,) uint16, on disk


@dataclass(frozen=True, slots=True, eq=False)
class TextData:
    """Tokens of a text, and what they mean.

    Attributes:
        meta: the content of `meta.json`.
        digest: sha256 of the tokens and of what they mean.
    """

    folder: Path
    meta: dict[str, Any]
    train: Tokens
    validation: Tokens
    digest: str

    @property
    def vocabulary(self) -> int:
        return int(self.meta["vocabulary"])

    @property
    def spelling(self) -> dict[str, Any]:
        """What `models.spelling.spelling_of` takes."""
        return {key: self.meta[key] for key in ("tokens", "characters", "tokenizer", "vocabulary") if key in self.meta}

    def characters_a_token(self, part: str) -> float:
        return float(self.meta[part]["characters"] / self.meta[part]["tokens"])


def prepared(config: TextConfig, *, quiet: bool) -> TextData:
    """The tokens of a text: from the cache, or made and kept there.

    Raises:
        ConfigError: the config names no text.
        DataError: it cannot be fetched or read, or is too short.
        PackageError: byte pairs want the library `tokenizers`, which is not installed.
    """
    if not config.text and not config.package:
        raise ConfigError("want data.text, a file, or data.package, to train on, was neither")
    source = _file_digest(Path(config.text)) if config.text else config.sha256
    says = {
        "format": _FORMAT,
        "source_sha256": source,
        "files": "" if config.text else config.files,
        "tokens": config.tokens,
        "most": config.vocabulary if config.tokens == "bpe" else 0,
        "validation_fraction": config.validation_fraction,
    }
    folder = Path(config.cache) / hashlib.sha256(json.dumps(says, sort_keys=True).encode()).hexdigest()[:16]
    found = _load(folder, says)
    if found is None:
        _make(folder, _text(config, quiet=quiet), says, config)
        found = _load(folder, says)
    if found is None:
        raise DataError(f"the tokens in {folder} were changed while they were read: want nobody else to write there")
    return found


def without_licence(text: str) -> str:
    """A text of Project Gutenberg without its header and licence; any other as it is."""
    lines = text.split("\n")
    starts = [i for i, line in enumerate(lines) if _starts(line)]
    if starts:
        lines = lines[starts[-1] + 1 :]
    ends = [i for i, line in enumerate(lines) if _ends(line)]
    return "\n".join(lines[: ends[0]] if ends else lines).strip("\n")


def _starts(line: str) -> bool:
    line = line.upper().replace("*** ", "***")
    return line.startswith(("***START OF THE PROJECT GUTENBERG", "***START OF THIS PROJECT GUTENBERG")) or (
        line.startswith("*END*THE SMALL PRINT") or line.endswith("*END THE SMALL PRINT")
    )


def _ends(line: str) -> bool:
    line = line.upper().replace("*** ", "***").removeprefix("***").strip()
    return line.startswith(
        ("END OF THE PROJECT GUTENBERG", "END OF THIS PROJECT GUTENBERG", "END OF PROJECT GUTENBERG")
    )


def _text(config: TextConfig, *, quiet: bool) -> str:
    if config.text:
        path = Path(config.text)
        if path.stat().st_size > _TEXT_BYTES_MAX:
            raise DataError(f"want a text of at most {_TEXT_BYTES_MAX:,} bytes, {path} has {path.stat().st_size:,}")
        texts = {str(path): path.read_bytes()}
    else:
        archive = fetch(config.package, config.sha256, Path(config.cache), quiet=quiet)
        texts = archive_texts(archive, config.files)
    found = []
    for name, data in texts.items():
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{name}: want text in UTF-8, was {error}") from None
        found.append(without_licence(text.replace("\r\n", "\n").replace("\r", "\n")))
    return "\n\n\n".join(found) + "\n"


def _make(folder: Path, text: str, says: dict[str, Any], config: TextConfig) -> None:
    """Write the tokens whole or not at all."""
    cut = round(len(text) * (1.0 - config.validation_fraction))
    parts = {"train": text[:cut], "validation": text[cut:]}
    meta = {**says, **(_characters(text) if config.tokens == "characters" else _pairs(parts["train"], config))}
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".part-"))
    try:
        for name, part in parts.items():
            tokens = _tokens(part, meta)
            if len(tokens) < 2:
                raise DataError(f"the text has {len(text):,} characters, too few: its {name} part has no two tokens")
            data = tokens.tobytes()
            (draft / _FILES[name]).write_bytes(data)
            digest = hashlib.sha256(data).hexdigest()
            meta[name] = {"tokens": len(tokens), "characters": len(part), "sha256": digest}
        (draft / META).write_text(json.dumps(meta, indent=2) + "\n", encoding="ascii")
        if folder.exists():  # what could not be used
            shutil.rmtree(folder)
        try:
            draft.rename(folder)
        except OSError:
            if not folder.exists():  # else somebody was quicker, and made the same of the same text
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _characters(text: str) -> dict[str, Any]:
    characters = "".join(sorted(set(text)))
    if len(characters) > CHARACTERS_MAX:
        raise DataError(f"the text has {len(characters):,} different characters, at most {CHARACTERS_MAX:,} fit: bpe?")
    return {"characters": characters, "vocabulary": len(characters)}


def _pairs(text: str, config: TextConfig) -> dict[str, Any]:
    """Byte pairs of the training text, GPT-2's way: within words, and any text can be spelled.

    Source: Sennrich et al., arXiv:1508.07909; Radford et al., "Language Models are Unsupervised Multitask Learners",
    2019, section 2.2.
    """
    library = package("tokenizers")
    cut = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner = library.Tokenizer(library.models.BPE())
    learner.pre_tokenizer = cut
    alphabet = sorted(cut.alphabet())
    trainer = library.trainers.BpeTrainer(
        vocab_size=config.vocabulary, initial_alphabet=alphabet, special_tokens=[], show_progress=False
    )
    learner.train_from_iterator([text], trainer)
    learned = json.loads(learner.to_str())["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in learned["merges"]]
    tokenizer = byte_pairs(learned["vocab"], merges, [], "gpt-2")
    return {"tokenizer": tokenizer, "vocabulary": len(learned["vocab"])}


def _tokens(text: str, meta: dict[str, Any]) -> Tokens:
    if meta["tokens"] == "characters":
        codes = np.frombuffer(text.encode("utf-32-le"), "<u4")
        known = np.frombuffer(meta["characters"].encode("utf-32-le"), "<u4")  # sorted
        return np.searchsorted(known, codes).astype("<u2")
    return np.array(spelling_of(meta, META)[0].encode(text), "<u2")


def _load(folder: Path, says: dict[str, Any]) -> TextData | None:
    """What `_make` wrote; None where it is not there, or not as it was written."""
    try:
        meta = json.loads((folder / META).read_text("ascii"))
        if not isinstance(meta, dict) or {key: meta.get(key) for key in says} != says:
            return None
        _, count = spelling_of(meta, folder / META)
        found: dict[str, Tokens] = {}
        for name, file in _FILES.items():
            part: Tokens = np.memmap(folder / file, "<u2", mode="r")
            if len(part) != meta[name]["tokens"] or int(part.max()) >= count or count != meta["vocabulary"]:
                return None
            if hashlib.sha256(part.data).hexdigest() != meta[name]["sha256"]:
                return None
            found[name] = part
    except (OSError, ValueError, KeyError, TypeError, CheckpointError):
        return None
    seen = {key: value for key, value in meta.items() if key != "source_sha256"}
    digest = hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()
    return TextData(folder, meta, found["train"], found["validation"], digest)


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: wanted a text; {error.strerror}") from None
