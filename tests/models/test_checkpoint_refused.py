"""Checkpoints that are not what was written: each is refused with a sentence, and none runs code."""

import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_files import TENSORS, arguments, forge, read, same
from hypothesis import given, settings
from hypothesis import strategies as st

from models.checkpoint import CheckpointError, read_manifest, read_tensors, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "demo", **arguments())
    return tmp_path / "demo"


def nothing(content: dict[str, Any]) -> None:
    pass


def test_what_is_no_checkpoint_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(CheckpointError, match="was nothing"):
        read_manifest(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="was a file"):
        read_manifest(folder / "manifest.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"it has no manifest\.json"):
        read_manifest(tmp_path / "empty")
    (folder / "weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"it has no weights\.safetensors"):
        read_tensors(folder, read_manifest(folder))


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("bomb",))


@pytest.mark.parametrize("name", ["model.pt", "pytorch_model.bin", "model.ckpt", "weights.PTH"])
def test_a_pickle_is_refused_and_never_loaded(
    tmp_path: Path, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bomb = pickle.dumps(_Bomb())
    (tmp_path / name).write_bytes(bomb)
    with pytest.raises(CheckpointError, match="pickle"):
        read_manifest(tmp_path / name)
    kept = read_manifest(folder)
    (folder / "weights.safetensors").rename(folder / name)
    (folder / name).write_bytes(bomb)
    with pytest.raises(CheckpointError, match="pickle"):
        read_tensors(folder, kept)
    forge(folder, nothing, weights=bomb)  # a pickle under our name, with all sums right
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        read(folder)
    assert not (tmp_path / "bomb").exists()


@pytest.mark.parametrize("size", [2**63 - 1, 10**30])
def test_weights_longer_than_any_file_are_refused(folder: Path, size: int) -> None:
    def lengthen(content: dict[str, Any]) -> None:
        content["weights"]["bytes"] = size

    forge(folder, lengthen)

    with pytest.raises(CheckpointError, match=f"is truncated: want {size:,} bytes"):
        read(folder)


def test_links_and_pipes_are_refused(tmp_path: Path, folder: Path) -> None:
    for name in ("weights.safetensors", "manifest.json"):
        moved = (folder / name).rename(tmp_path / name)
        (folder / name).symlink_to(moved)
        with pytest.raises(CheckpointError, match="was a link"):
            read(folder)
        (folder / name).unlink()
        os.mkfifo(folder / name)
        with pytest.raises(CheckpointError, match="plain file"):
            read(folder)
        (folder / name).unlink()
        (folder / name).mkdir()
        with pytest.raises(CheckpointError, match="plain file"):
            read(folder)
        (folder / name).rmdir()
        moved.rename(folder / name)
    assert same(read(folder)[1], TENSORS)


@pytest.mark.parametrize("name", ["manifest.json", "weights.safetensors"])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_truncated_file_is_refused(tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("cut") / "demo"
    write(folder, **arguments())
    whole = (folder / name).read_bytes()
    length = data.draw(st.integers(0, len(whole.rstrip()) - 1))
    (folder / name).write_bytes(whole[:length])

    with pytest.raises(CheckpointError, match="truncated"):
        read(folder)


@pytest.mark.parametrize("name", ["manifest.json", "weights.safetensors"])
@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_a_flipped_bit_is_refused(tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("flip") / "demo"
    write(folder, **arguments())
    before = read(folder)
    changed = bytearray((folder / name).read_bytes())
    at, bit = data.draw(st.integers(0, len(changed) - 1)), data.draw(st.integers(0, 7))
    changed[at] ^= 1 << bit
    (folder / name).write_bytes(changed)

    try:
        found = read(folder)
    except CheckpointError:
        return
    # Only the spelling of the manifest may differ: a space that became a tab.
    assert name == "manifest.json"
    assert found[0] == before[0]
    assert same(found[1], TENSORS)


@given(junk=st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_bytes_with_right_sums_are_refused_or_match(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    folder = tmp_path_factory.mktemp("junk") / "demo"
    write(folder, **arguments())
    (folder / "manifest.json").write_bytes(junk)
    with pytest.raises(CheckpointError):
        read_manifest(folder)
    write(folder, **arguments())
    forge(folder, nothing, weights=junk)
    with pytest.raises(CheckpointError):
        read(folder)


def _set(*path: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("format", to=2), "newer than 1"),
        (_set("format", to=10**30), "newer than 1"),
        (_set("format", to=0), "format 0, want 1"),
        (_set("format", to=True), "format as a number"),
        (_set("format", to="1"), "format as a number"),
        (_set("surprise", to=1), "surprise"),
        (_set("kind", to="pickle"), "kind must be one of"),
        (_set("kind", to=["fingpt"]), "kind must be of type str"),
        (_set("code", to=None), "code must be"),
        (_set("config", to=[]), "config must be"),
        (_set("codec", to=3), "codec must be"),
        (_set("codec", to=None), "only beside its manifest"),
        (_set("metrics", "test_bits", "baselines", to={}), "baseline"),
        (_set("training", to=None), "training must be"),
        (_set("training", "start", to="yesterday"), "yesterday"),
        (_set("training", "start", to=5), "training.start"),
        (_set("training", "end", to="2018-12-20T00:00:00+00:00"), "naive"),
        (_set("training", "bar_s", to=-1), "bar_s"),
        (_set("training", "bar_s", to=10**400), "bar_s"),
        (_set("training", "symbols", to="BTC-USD"), "symbols"),
        (_set("training", "symbols", to=[1]), "symbols"),
        (_set("training", "trials", to=True), "trials"),
        (_set("weights", "bytes", to=-1), "length"),
        (_set("weights", "bytes", to=1.0), "weights.bytes"),
        (_set("weights", "file", to="../../etc/passwd"), "file"),
        (_set("weights", "sha256", to="zz"), "sha256"),
        (_set("tensors", "../../x", to={"dtype": "F32", "shape": [1]}), "want a tensor named"),
        (_set("tensors", "model.head.weight", "dtype", to="O"), "of type BOOL"),
        (_set("tensors", "model.head.weight", "dtype", to=["F32"]), "must be of type str"),
        (_set("tensors", "model.head.weight", "shape", to=[-2, -3]), "sizes"),
        (_set("tensors", "model.head.weight", "shape", to=[True, 6]), "shape"),
        (_set("tensors", "model.head.weight", "shape", to=6), "shape"),
        (_set("tensors", "model.head.weight", "extra", to=6), "extra"),
    ],
)
def test_a_forged_manifest_is_refused(folder: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    forge(folder, change)
    with pytest.raises(CheckpointError, match=message):
        read_manifest(folder)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "null",
        '{"format": 1, "format": 1}',
        '{"format": NaN}',
        '{"format": 1, "config": {"x": 1e999}}',
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"format": ' + "9" * 5_000 + "}",
        '{"format": 1}',
    ],
)
def test_hostile_json_is_refused(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError):
        read_manifest(folder)


def test_a_manifest_too_long_is_not_read(folder: Path) -> None:
    with (folder / "manifest.json").open("ab") as file:
        file.truncate(1 << 40)  # sparse: it takes no room here, and would take a terabyte of memory there
    with pytest.raises(CheckpointError, match="at most 16,777,216 bytes"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("model.head.weight", {"dtype": "F32", "shape": [3, 2]}),
        ("model.head.weight", {"dtype": "I32", "shape": [2, 3]}),
        ("model.head.weight", {"dtype": "F32", "shape": [2, 3, 10**12]}),
        ("model.more", {"dtype": "F32", "shape": [1]}),
    ],
)
def test_tensors_unlike_their_manifest_are_refused(folder: Path, name: str, spec: dict[str, Any]) -> None:
    forge(folder, _set("tensors", name, to=spec))
    with pytest.raises(CheckpointError, match=name):
        read(folder)


def hostile(shape: bytes, end: bytes) -> bytes:
    head = b'{"model.x":{"dtype":"F32","shape":[%s],"data_offsets":[0,%s]}}' % (shape, end)
    return struct.pack("<Q", len(head)) + head + b"\0" * 4


@pytest.mark.parametrize(
    "weights",
    [
        b"",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 10**9) + b"{}",
        struct.pack("<Q", 100) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        hostile(b"2", b"8"),
        hostile(b"-1", b"4"),
        hostile(b"4611686018427387905", b"4"),  # of four bytes each: 2**64 + 4
    ],
)
def test_a_hostile_weights_file_with_right_sums_is_refused(folder: Path, weights: bytes) -> None:
    forge(folder, _set("tensors", to={"model.x": {"dtype": "F32", "shape": [1]}}), weights=weights)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        read(folder)


def test_weights_of_another_checkpoint_are_refused(folder: Path, tmp_path: Path) -> None:
    other = TENSORS | {"model.head.weight": np.ones((2, 3), dtype=np.float32)}
    write(tmp_path / "other", **arguments(tensors=other))
    (tmp_path / "other" / "weights.safetensors").replace(folder / "weights.safetensors")
    with pytest.raises(CheckpointError, match="was changed"):
        read(folder)


def test_reading_needs_no_torch(folder: Path) -> None:
    code = (
        "import sys; from models import checkpoint as c; m = c.read_manifest(sys.argv[1]); "
        "c.read_tensors(sys.argv[1], m); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(folder)], check=False, timeout=60).returncode == 0
