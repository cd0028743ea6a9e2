"""Checkpoints: what training found and what it has seen, in a folder of two files.

A checkpoint is data. Reading one runs none of it: no pickle is ever loaded, and whatever is truncated, changed,
mismatched or of a newer format is refused with a sentence. `checkpoints/README.md` has the format byte for byte.
Nothing here imports torch.
"""

import hashlib
import json
import os
import reprlib
import shutil
import stat
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from models.manifest import DTYPES, TENSOR, Manifest, TensorSpec, Training, compose, parse

__all__ = ["CheckpointError", "Manifest", "TensorSpec", "Training", "read_manifest", "read_tensors", "write"]

MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"

Tensors = dict[str, npt.NDArray[Any]]

_MANIFEST_BYTES_MAX = 16 << 20  # a model of 6 layers has a manifest of some 10 KB
_PICKLED = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".joblib")


class CheckpointError(Exception):
    """A checkpoint that cannot be used; the message is one sentence that says what was wanted and what is there."""


def write(
    folder: str | Path,
    *,
    kind: str,
    config: Mapping[str, Any],
    codec: Mapping[str, Any] | None,
    training: Training,
    metrics: Mapping[str, Mapping[str, Any]],
    tensors: Mapping[str, npt.NDArray[Any]],
    code: str = "",
) -> str:
    """Write a checkpoint whole or not at all. The same arguments give the same bytes.

    A checkpoint that is there is replaced; anything else that is there is left alone and refused. The bytes reach the
    disk before the folder gets its name. One process at a time may write to a folder.

    Args:
        kind: "fingpt" (tensors of the model, and of its codec unless that is None), "gpt2" and "advisor" (of the model)
            or "tokenizer" (codec alone).
        config: JSON values that the reader of this kind needs to build its module.
        codec: the codec's own manifest, JSON values.
        metrics: figures by name, each {"value": number, "baselines": {name: number, at least one}, anything else}.
        tensors: names start with "model." or "codec."; finite numbers.
        code: version of the code; "": the package's.

    Returns:
        The digest, 64 hexadecimal digits.

    Raises:
        ValueError: an argument breaks the contract above.
        CheckpointError: `folder` holds something else than a checkpoint, or cannot be written.
    """
    weights = _pack(tensors)
    content = compose(
        kind=kind,
        code=code or f"ticktorch {version('ticktorch')}",
        config=config,
        codec=codec,
        training=training,
        metrics=metrics,
        tensors={name: TensorSpec(dtype=_dtype_name(array), shape=array.shape) for name, array in tensors.items()},
        weights_bytes=len(weights),
        weights_sha256=hashlib.sha256(weights).hexdigest(),
    )
    text = json.dumps(content, indent=2, ensure_ascii=True, allow_nan=False) + "\n"
    if len(text) > _MANIFEST_BYTES_MAX:
        raise ValueError(f"want a manifest of at most {_MANIFEST_BYTES_MAX:,} bytes, was {len(text):,}")
    _put(Path(folder), {WEIGHTS: weights, MANIFEST: text.encode("ascii")})
    return str(content["digest"])


def read_manifest(folder: str | Path) -> Manifest:
    """Read and check the manifest of a checkpoint; the weights are not looked at.

    Raises:
        CheckpointError: there is none, or it is not what `write` wrote.
    """
    folder = Path(folder)
    _check_folder(folder)
    path = folder / MANIFEST
    content = _parse(path, _read(path, _MANIFEST_BYTES_MAX))
    try:
        return parse(content)
    except (ValueError, RecursionError) as exc:
        raise CheckpointError(f"{path} is not a usable manifest: {exc}") from None


def read_tensors(folder: str | Path, manifest: Manifest) -> Tensors:
    """Read the weights of a checkpoint: exactly the tensors that its manifest names, as arrays of their own.

    Args:
        manifest: what `read_manifest` gave for this folder.

    Raises:
        CheckpointError: the file is missing, truncated, changed, or not what the manifest says.
    """
    folder = Path(folder)
    _check_folder(folder)
    path = folder / WEIGHTS
    data = _read(path, manifest.weights_bytes)
    if len(data) != manifest.weights_bytes:
        raise CheckpointError(
            f"{path} is truncated: want {manifest.weights_bytes:,} bytes by its manifest, was {len(data):,}"
        )
    found = hashlib.sha256(data).hexdigest()
    if found != manifest.weights_sha256:
        raise CheckpointError(f"{path} was changed: want sha256 {manifest.weights_sha256}, was {found}")
    try:
        stored = dict(deserialize(data))  # type: ignore[no-untyped-call]
    except (SafetensorError, ValueError, OverflowError) as exc:
        raise CheckpointError(f"{path} is not a safetensors file: {exc}") from None
    if missing := sorted(set(manifest.tensors) ^ set(stored)):
        raise CheckpointError(
            f"{path} and its manifest name different tensors: {reprlib.repr(missing)} are in one alone"
        )
    tensors = {}
    for name, spec in manifest.tensors.items():
        value = stored[name]
        dtype, shape = value["dtype"], tuple(value["shape"])
        if (dtype, shape) != (spec.dtype, spec.shape):
            raise CheckpointError(f"{path}: want {name} as {spec.dtype} {spec.shape}, was {dtype} {shape}")
        tensors[name] = np.frombuffer(value["data"], DTYPES[dtype]).astype(_native(dtype), copy=False).reshape(shape)
    return tensors


# --- arguments to content -----------------------------------------------------------------------------------------


def _pack(tensors: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """The weights file. safetensors sorts by type and name, so the order of the mapping does not show."""
    plain: Tensors = {}
    for name, array in tensors.items():
        if not TENSOR.fullmatch(name):
            raise ValueError(f"want a tensor named like model.head.weight or codec.mean, was {name!r}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"tensor {name} must be finite: the training that made it has diverged")
        plain[name] = np.asarray(array, DTYPES[_dtype_name(array)], order="C")
    return save(plain)


def _dtype_name(array: npt.NDArray[Any]) -> str:
    for name, dtype in DTYPES.items():
        if array.dtype.newbyteorder("<") == np.dtype(dtype):
            return name
    raise ValueError(f"want a tensor of type {', '.join(DTYPES)}, was {array.dtype}")


def _native(dtype: str) -> np.dtype[Any]:
    return np.dtype(DTYPES[dtype]).newbyteorder("=")


# --- files --------------------------------------------------------------------------------------------------------


def _put(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files into a draft beside `folder`, then give it its name."""
    folder = Path(os.path.abspath(folder))
    draft, former = (folder.with_name(f".{folder.name}.{end}") for end in ("part", "former"))
    try:
        replaces = _refuse_foreign(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _discard(draft)  # of a writer that was killed
        draft.mkdir()
        try:
            for name, data in files.items():
                with (draft / name).open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            _sync(draft)
            if replaces:
                _replace(folder, draft, former)
            else:
                draft.rename(folder)
            _sync(folder.parent)
        finally:
            _discard(draft)
        _discard(former)  # also what a killed writer left: there is a whole checkpoint in its place now
    except OSError as exc:
        raise CheckpointError(f"checkpoint {folder} cannot be written: {exc}") from None


def _refuse_foreign(folder: Path) -> bool:
    """Whether a checkpoint is there.

    Raises:
        CheckpointError: something else is there.
    """
    if not folder.is_symlink() and not folder.exists():
        return False
    if folder.is_symlink() or not folder.is_dir():
        raise CheckpointError(
            f"want {folder} to be a folder or absent, so as to write a checkpoint, was something else"
        )
    found = {path.name for path in folder.iterdir()}
    if foreign := sorted(found - {MANIFEST, WEIGHTS}):
        raise CheckpointError(
            f"{folder} holds {reprlib.repr(foreign)}, which is no part of a checkpoint: it is not replaced"
        )
    return bool(found)


def _replace(folder: Path, draft: Path, former: Path) -> None:
    """Two renames: killed between them, a writer leaves the former checkpoint whole, under its name for that."""
    _discard(former)
    folder.rename(former)
    try:
        draft.rename(folder)
    except BaseException:
        former.rename(folder)
        raise


def _discard(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_folder(folder: Path) -> None:
    """Refuse what is not a checkpoint by the look of it, with the sentence that helps most.

    Raises:
        CheckpointError: it is none.
    """
    if folder.suffix.lower() in _PICKLED and not folder.is_dir():
        raise CheckpointError(
            f"{folder} looks like a pickle, which could run code when loaded: want a checkpoint folder"
        )
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        former = folder.with_name(f".{folder.name}.former") if folder.name else folder
        hint = f"; the one that was being replaced is at {former}" if folder.name and former.is_dir() else ""
        raise CheckpointError(f"want a checkpoint folder at {folder}, was {found}{hint}")
    if not os.path.lexists(folder / WEIGHTS):
        if pickled := sorted(path.name for path in folder.iterdir() if path.suffix.lower() in _PICKLED):
            raise CheckpointError(
                f"{folder} holds {pickled[0]}, by its name a pickle, which could run code when loaded: want {WEIGHTS}"
            )


def _read(path: Path, bytes_max: int) -> bytes:
    """The bytes of a plain file, through one handle: what is checked is what is used.

    Raises:
        CheckpointError: it is missing, a link, no plain file, longer than `bytes_max`, or cannot be read.
    """
    try:
        # O_NOFOLLOW: a link could name any file of this machine. O_NONBLOCK: a pipe would wait for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise CheckpointError(f"{path} must be a plain file")
            if status.st_size > bytes_max:
                raise CheckpointError(f"{path} must have at most {bytes_max:,} bytes, was {status.st_size:,}")
            with open(handle, "rb", closefd=False) as file:
                return file.read(status.st_size + 1)
        finally:
            os.close(handle)
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} is no checkpoint: it has no {path.name}") from None
    except OSError as exc:
        if path.is_symlink():
            raise CheckpointError(f"{path} must be a plain file, was a link") from None
        raise CheckpointError(f"{path} cannot be read: {exc.strerror}") from None


def _parse(path: Path, data: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) != len(pairs):
            raise ValueError("a key stands twice in one object")
        return content

    def refuse(text: str) -> None:
        raise ValueError(f"{text} is not a number")

    try:
        content = json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as exc:
        raise CheckpointError(f"{path} is truncated or not JSON: {exc}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a JSON object, was {type(content).__name__}")
    return content
