"""Checkpoints: what is written is read back, written whole or not at all."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_files import END, METRICS, START, TENSORS, TRAINING, arguments, read, same
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from models.checkpoint import CheckpointError, Training, read_manifest, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "demo", **arguments())
    return tmp_path / "demo"


# --- written and read back ---


def test_what_was_written_is_read_back(folder: Path) -> None:
    found, tensors = read(folder)

    assert same(tensors, TENSORS)
    assert found.training == TRAINING
    assert found.config == arguments()["config"]
    assert (found.codec, found.metrics, found.code) == (arguments()["codec"], METRICS, "abc1234")
    assert found.parameters == 7
    assert all(array.flags.writeable for array in tensors.values())  # torch.from_numpy warns otherwise


def test_a_tokenizer_alone_is_a_checkpoint(tmp_path: Path) -> None:
    codec = {name: array for name, array in TENSORS.items() if name.startswith("codec.")}
    write(tmp_path / "codec", **arguments(kind="tokenizer", tensors=codec))

    assert same(read(tmp_path / "codec")[1], codec)


def test_a_model_of_bare_tokens_has_no_codec(tmp_path: Path) -> None:
    unknown = Training(start=None, end=None, symbols=(), bar_s=60.0, embargo_bars=0)
    weights = {"model.head": np.zeros((1, 2), dtype=np.float32)}
    write(tmp_path / "bare", **arguments(codec=None, training=unknown, tensors=weights, metrics={}))

    found = read_manifest(tmp_path / "bare")
    assert (found.codec, found.training) == (None, unknown)


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    first = write(tmp_path / "a", **arguments())
    turned = dict(reversed(TENSORS.items()))
    turned["model.head.weight"] = np.asfortranarray(turned["model.head.weight"]).astype(">f4")
    second = write(tmp_path / "b", **arguments(tensors=turned))

    assert first == second == read_manifest(tmp_path / "a").digest
    for name in ("manifest.json", "weights.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_digest_names_values_not_their_spelling(folder: Path) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(content.items())), indent=7))

    assert read_manifest(folder).digest == content["digest"]


@pytest.mark.parametrize(
    "changed",
    [
        {"code": "abc1235"},
        {"config": {"layers": 5}},
        {"codec": {"kind": "fsq"}},
        {"metrics": {}},
        {"tensors": TENSORS | {"model.step": np.array(4)}},
        {"training": Training(start=START, end=END, symbols=("X",), bar_s=60.0, embargo_bars=1)},
    ],
)
def test_the_digest_covers_everything(folder: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
    assert write(tmp_path / "other", **arguments(**changed)) != read_manifest(folder).digest


def test_the_layout_is_as_documented(folder: Path) -> None:
    data = (folder / "weights.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    begin, end = header["model.head.weight"]["data_offsets"]

    assert (8 + length) % 8 == 0
    assert header["model.head.weight"] == {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}
    assert np.array_equal(np.frombuffer(data[8 + length :][begin:end], "<f4"), np.arange(6))
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "weights.safetensors"]
    assert list(json.loads((folder / "manifest.json").read_text())) == [
        *("format", "kind", "code", "config", "codec", "training", "metrics", "weights", "tensors", "digest")
    ]


SCALARS = st.sampled_from(
    [np.float16, np.float32, np.float64, np.int8, np.int16, np.int32, np.int64, np.uint8, np.bool]
)
FINITE = {"allow_nan": False, "allow_infinity": False}
ARRAYS = SCALARS.flatmap(
    lambda kind: npst.arrays(
        kind,
        npst.array_shapes(min_dims=0, min_side=0, max_side=4),
        elements=FINITE if np.dtype(kind).kind == "f" else {},
    )
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(**FINITE) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    tensors=st.dictionaries(st.from_regex(r"(model|codec)\.[a-z]{1,3}(\.[0-9]{1,2})?", fullmatch=True), ARRAYS),
    config=st.dictionaries(st.text(), JSON, max_size=4),
)
@settings(max_examples=50, deadline=None)
def test_any_tensors_and_any_config_survive(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, Any], config: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("any") / "x"
    tensors["model.x"] = np.zeros(1)
    write(folder, **arguments(tensors=tensors, config=config))

    found, read_back = read(folder)
    assert same(read_back, tensors)
    assert found.config == config


# --- whole or not at all ---


def test_a_checkpoint_is_replaced_by_a_whole_one(folder: Path) -> None:
    digest = write(folder, **arguments(config={"layers": 1}))

    assert read(folder)[0].digest == digest
    assert [path.name for path in folder.parent.iterdir()] == ["demo"]


@pytest.mark.parametrize("step", ["mkdir", "rename", "open", "fsync"])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_failing_disk_leaves_the_former_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch, step: str, after: int
) -> None:
    before = read(folder)
    owner: Any = os if step == "fsync" else Path
    real, calls = getattr(owner, step), 0

    def failing(*args: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == after + 1:
            raise OSError(28, "No space left on device")
        return real(*args, **keywords)

    monkeypatch.setattr(owner, step, failing)
    try:
        write(folder, **arguments(config={"layers": 1}))
        failed = False
    except CheckpointError as exc:
        failed = "No space left" in str(exc)
        assert failed
    monkeypatch.undo()
    found, tensors = read(folder)
    assert same(tensors, before[1])
    assert (found.config == before[0].config) or not failed
    assert not list(folder.parent.glob(".demo.part"))
    assert read(folder)[0].digest  # and the next writer is not in its way
    assert write(folder, **arguments()) == before[0].digest


KILLED = """
import os, sys, numpy as np
from pathlib import Path
from models import checkpoint
steps = 0
def stop_at(real):
    def step(*args, **keywords):
        global steps
        steps += 1
        if steps == int(sys.argv[2]):
            os._exit(9)
        return real(*args, **keywords)
    return step
Path.rename, Path.mkdir, os.fsync = stop_at(Path.rename), stop_at(Path.mkdir), stop_at(os.fsync)
training = checkpoint.Training(start=None, end=None, symbols=(), bar_s=60.0, embargo_bars=0)
checkpoint.write(
    sys.argv[1], kind="fingpt", config={"new": True}, codec=None, training=training, metrics={},
    tensors={"model.x": np.zeros(3)},
)
"""


def test_a_killed_writer_leaves_the_old_or_the_new_one(tmp_path: Path) -> None:
    found = []
    for step in range(1, 10):
        folder = tmp_path / str(step) / "demo"
        write(folder, **arguments())
        ended = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(step)], check=False, timeout=60)
        assert ended.returncode in (0, 9)
        if folder.exists():
            found.append(read(folder)[0].config.get("new", False))
        else:  # between the two renames: nothing under the name, and the sentence says where the former is
            with pytest.raises(CheckpointError, match="the one that was being replaced is at") as refused:
                read_manifest(folder)
            read(Path(str(refused.value).rpartition(" at ")[2]))
            found.append(None)
        write(folder, **arguments(config={"after": "the kill"}))
        assert read(folder)[0].config == {"after": "the kill"}
        assert [path.name for path in folder.parent.iterdir()] == ["demo"]
    assert found == sorted(found, key=[False, None, True].index)
    assert set(found) == {False, None, True}


def test_other_files_are_not_destroyed(tmp_path: Path, folder: Path) -> None:
    (folder / "notes.md").write_text("mine")
    with pytest.raises(CheckpointError, match=r"notes\.md"):
        write(folder, **arguments())
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match="folder or absent"):
        write(tmp_path / "file", **arguments())
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(CheckpointError, match="folder or absent"):
        write(tmp_path / "link", **arguments())
    assert (folder / "notes.md").read_text() == (tmp_path / "file").read_text() == "mine"


def test_an_empty_folder_and_missing_parents_are_filled(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "a" / "b" / "c", tmp_path / "a" / ".." / "d"):
        write(folder, **arguments())
        read(folder)


# --- arguments refused ---


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kind": "gpt5"}, "kind must be one of"),
        ({"kind": "tokenizer"}, "tensors of a model"),
        ({"kind": "tokenizer", "codec": None, "tensors": {"codec.x": np.zeros(1)}}, "must have a codec"),
        ({"codec": None}, "only beside its manifest"),
        ({"tensors": {}}, "tensors of a model"),
        ({"tensors": TENSORS | {"../../etc/passwd": np.zeros(1)}}, "want a tensor named"),
        ({"tensors": TENSORS | {"model.x\n": np.zeros(1)}}, "want a tensor named"),
        ({"tensors": TENSORS | {"optimizer.x": np.zeros(1)}}, "want a tensor named"),
        ({"tensors": TENSORS | {"model.x": np.array([np.nan])}}, "diverged"),
        ({"tensors": TENSORS | {"model.x": np.array([{}], dtype=object)}}, "tensor of type"),
        ({"tensors": TENSORS | {"model.x": np.array([1j])}}, "tensor of type"),
        ({"config": {"path": Path("x")}}, "config.path must be a JSON value"),
        ({"config": {"rate": [1.0, float("inf")]}}, r"config.rate\[1\] must be finite"),
        ({"config": {1: 2}}, "text as keys"),
        ({"metrics": {"bits": {"value": 1.0}}}, "baseline beside it"),
        ({"metrics": {"bits": {"value": 1.0, "baselines": {}}}}, "baseline beside it"),
        ({"metrics": {"bits": 1.0}}, "metric bits"),
        ({"metrics": {"bits": {"value": float("nan"), "baselines": {"a": 1}}}}, "must be finite"),
    ],
)
def test_impossible_arguments_are_refused_and_nothing_is_written(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "demo", **arguments(**changed))
    assert not list(tmp_path.iterdir())
