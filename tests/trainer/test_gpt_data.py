"""Text to tokens: fetched by pip from a folder, read without unpacking, and mapped as it was written."""

import hashlib
import importlib.util
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.load import ConfigError
from feeds.errors import DataError
from models.spelling import spelling_of
from trainer.gpt_archive import archive_texts, fetch
from trainer.gpt_config import GPTTrainConfig, TextConfig, TextModelConfig
from trainer.gpt_data import META, TextData, prepared, without_licence

needs_llm = pytest.mark.skipif(importlib.util.find_spec("tokenizers") is None, reason="wants the extra `llm`")

HAMLET, LEAR = "Who's there?\nNay, answer me.\n", "Nothing will come of nothing:\nspeak again.\n"
# A build that needs no other package; it leaves a mark when it runs.
BACKEND = """\
import pathlib
pathlib.Path({mark!r}).touch()

def prepare_metadata_for_build_wheel(folder, settings=None):
    info = pathlib.Path(folder) / "plays-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: plays\\nVersion: 1.0\\n")
    return info.name

def build_wheel(*arguments):
    raise SystemExit("want no wheel")
"""
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def archive(folder: Path, files: dict[str, bytes], *further: tarfile.TarInfo) -> Path:
    """The source archive of a package `plays`, as the registry has them."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "plays-1.0.tar.gz"
    backend = BACKEND.format(mark=str(folder / "ran"))
    build = {"pyproject.toml": PROJECT, "backend.py": backend, "PKG-INFO": "Name: plays\n"}
    with tarfile.open(path, "w:gz") as tar:
        for name, content in {**{key: value.encode() for key, value in build.items()}, **files}.items():
            member = tarfile.TarInfo(f"plays-1.0/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in further:
            tar.addfile(member)
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, the only place where pip looks."""
    folder = tmp_path / "registry"
    folder.mkdir()
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_REQUIRE_VIRTUALENV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def config(folder: Path, **values: Any) -> TextConfig:
    return TextConfig(**{"cache": str(folder / "cache"), "validation_fraction": 0.25, **values})


def said(data: TextData) -> str:
    spelling, count = spelling_of(data.spelling, "here")
    assert count == data.vocabulary
    return spelling.decode([*data.train.tolist(), *data.validation.tolist()])


def of_text(folder: Path, text: str, **values: Any) -> TextData:
    path = folder / "text.txt"
    path.write_bytes(text.encode())
    return prepared(config(folder, text=str(path), **values), quiet=True)


def test_a_package_is_fetched_once_and_its_texts_become_tokens(tmp_path: Path, registry: Path) -> None:
    files = {
        "texts/lear_gut.txt": LEAR,
        "texts/hamlet_gut.txt": HAMLET,
        "texts/hamlet_gut_f.txt": "folio",
        "x.txt": "x",
    }
    path = archive(registry, {name: text.encode() for name, text in files.items()})
    wanted = config(tmp_path, package="plays==1.0", sha256=digest(path), files="*/texts/*_gut.txt")

    data = prepared(wanted, quiet=True)

    text = f"{HAMLET.strip()}\n\n\n{LEAR.strip()}\n"
    assert said(data) == text
    assert (len(data.train), len(data.validation)) == (round(0.75 * len(text)), len(text) - round(0.75 * len(text)))
    assert (data.train.dtype, data.vocabulary) == (np.dtype("<u2"), len(set(text)))
    assert isinstance(data.train, np.memmap)
    assert {file.name for file in data.folder.iterdir()} == {"train.bin", "val.bin", META}
    assert json.loads((data.folder / META).read_text())["characters"] == "".join(sorted(set(text)))

    path.unlink()  # neither tokens nor archive are fetched again
    assert prepared(wanted, quiet=True).digest == data.digest
    other = config(tmp_path, package="plays==1.0", sha256=wanted.sha256, files="*/x.txt", validation_fraction=0.5)
    with pytest.raises(DataError, match="too few"):
        prepared(other, quiet=True)


def test_an_archive_of_another_digest_is_refused_and_nothing_of_it_runs(tmp_path: Path, registry: Path) -> None:
    archive(registry, {"a.txt": b"text"})

    with pytest.raises(DataError, match=r"plays==1\.0 cannot be fetched: THESE PACKAGES DO NOT MATCH THE HASHES"):
        fetch("plays==1.0", "0" * 64, tmp_path / "cache", quiet=True)

    assert not (registry / "ran").exists()
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_a_registry_it_is_said_in_a_sentence(
    tmp_path: Path, registry: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match=r"plays==1.0 cannot be fetched: No matching .*--data.text FILE takes") as error:
        fetch("plays==1.0", "0" * 64, tmp_path / "cache", quiet=False)

    assert "\n" not in str(error.value)
    assert "fetching the source archive of plays==1.0" in capsys.readouterr().err


def test_names_that_lead_out_of_the_archive_lead_nowhere(tmp_path: Path) -> None:
    link = tarfile.TarInfo("plays-1.0/link.txt")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    pipe = tarfile.TarInfo("plays-1.0/pipe.txt")
    pipe.type = tarfile.FIFOTYPE
    path = archive(tmp_path / "deep" / "down", {"../../../out.txt": b"out", "in.txt": b"in"}, link, pipe)
    before = sorted(tmp_path.rglob("*"))

    found = archive_texts(path, "*.txt")

    assert found == {"plays-1.0/../../../out.txt": b"out", "plays-1.0/in.txt": b"in"}
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_no_archive_or_has_no_such_text_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path, {"a.txt": b"a" * 10_000})
    with pytest.raises(DataError, match=r"want files named \*.md, there are none"):
        archive_texts(path, "*.md")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="want a tar archive"):
        archive_texts(path, "*.txt")
    path.write_text("no archive")
    with pytest.raises(DataError, match="want a tar archive"):
        archive_texts(path, "*.txt")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"The Project Gutenberg EBook\n*** START OF THIS PROJECT GUTENBERG EBOOK LEAR ***\n\n{LEAR}", LEAR.strip()),
        (f"{LEAR}\n*** END OF THE PROJECT GUTENBERG EBOOK LEAR ***\nlicence", LEAR.strip()),
        (f"{LEAR}\nEnd of Project Gutenberg's King Lear\nlicence", LEAR.strip()),
        (f"***START OF THE PROJECT GUTENBERG\nby\n*END*THE SMALL PRINT! FOR ETEXTS*Ver*END*\n{LEAR}", LEAR.strip()),
        (f"{LEAR}and the end of the project\n", f"{LEAR}and the end of the project"),
    ],
)
def test_headers_and_licences_are_cut_off_and_nothing_else_is(text: str, kept: str) -> None:
    assert without_licence(text) == kept


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=8, max_size=200))
def test_characters_come_back_as_they_were(tmp_path: Path, text: str) -> None:
    kept = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").strip("\n") + "\n"
    if len(kept) < 8:
        return
    data = of_text(tmp_path, text)
    assert said(data) == kept
    assert max(data.train.max(), data.validation.max()) < data.vocabulary == len(set(kept))


@needs_llm
def test_byte_pairs_are_learned_from_the_training_part_alone_and_spell_any_text(tmp_path: Path) -> None:
    text = "to be or not to be, that is the question. " * 40
    cut = round(0.75 * len(text))
    data = of_text(tmp_path, text, tokens="bpe", vocabulary=300)
    other = of_text(tmp_path, text[:cut] + "Zürich 東京 😀 " * 60, tokens="bpe", vocabulary=300)

    assert said(data) == text.strip("\n") + "\n"
    assert 256 < data.vocabulary <= 300
    assert len(data.train) < cut / 3
    again = of_text(tmp_path, text, tokens="bpe", vocabulary=300, cache=str(tmp_path / "other"))
    assert (again.meta, again.train.tobytes()) == (data.meta, data.train.tobytes())
    longer = text[:cut] + "Zürich 東京 😀 " * 60
    held = of_text(tmp_path, longer, tokens="bpe", vocabulary=300, validation_fraction=1.0 - cut / (len(longer) + 1))
    assert held.meta["tokenizer"] == data.meta["tokenizer"]
    assert "東京 😀" in said(other)
    spelling, _ = spelling_of(data.spelling, "here")
    assert spelling.decode(spelling.encode("Ægypt’s 😀")) == "Ægypt’s 😀"


def test_damaged_tokens_are_made_again(tmp_path: Path) -> None:
    data = of_text(tmp_path, HAMLET * 3)
    whole = {file: (data.folder / file).read_bytes() for file in ("train.bin", "val.bin", META)}
    for file, damaged in (
        ("train.bin", whole["train.bin"][:-2]),
        ("train.bin", whole["train.bin"][:-2] + b"\x01\x00"),
        ("val.bin", b"\xff\xff" * (len(whole["val.bin"]) // 2)),
        ("val.bin", b""),
        (META, whole[META][:-20]),
        (META, b"[]"),
        (META, whole[META].replace(b'"characters": "', b'"characters": "AA')),
    ):
        (data.folder / file).write_bytes(damaged)
        again = of_text(tmp_path, HAMLET * 3)
        assert again.digest == data.digest
        assert {file: (again.folder / file).read_bytes() for file in whole} == whole


def test_what_cannot_be_read_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"want data.text, a file, or data.package"):
        prepared(TextConfig(), quiet=True)
    with pytest.raises(DataError, match=r"none.txt: wanted a text; No such file"):
        prepared(config(tmp_path, text=str(tmp_path / "none.txt")), quiet=True)
    with pytest.raises(DataError, match="wanted a text; Is a directory"):
        prepared(config(tmp_path, text=str(tmp_path)), quiet=True)
    with pytest.raises(DataError, match="has 2 characters, too few"):
        of_text(tmp_path, "a")
    (tmp_path / "latin.txt").write_bytes("Zürich".encode("latin-1"))
    with pytest.raises(DataError, match="want text in UTF-8"):
        prepared(config(tmp_path, text=str(tmp_path / "latin.txt")), quiet=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"package": "plays"},
        {"package": "-r x==1", "sha256": "0" * 64},
        {"package": "plays==1.0"},
        {"package": "plays==1.0", "sha256": "0" * 63},
        {"tokens": "words"},
        {"vocabulary": 255},
        {"vocabulary": 65_537},
        {"validation_fraction": 0.0},
        {"validation_fraction": float("nan")},
    ],
)
def test_impossible_texts_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        TextConfig(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"trials": 0}, {"out": ".."}, {"name": "a/b"}, {"validation_windows": -1}, {"judged_windows": -1}]
)
def test_impossible_trainings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        GPTTrainConfig(**wrong)
    with pytest.raises(ValueError, match="heads must divide width"):
        TextModelConfig(width=10, heads=3)
