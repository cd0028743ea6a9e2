"""Weights from elsewhere into a model: folders of safetensors, names of other projects, and what must fit."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from models.checkpoint import CheckpointError

__all__ = ["fill", "on_meta", "read_folder", "read_json", "renamed"]

_JSON_BYTES_MAX = 64 << 20  # a tokenizer of 256,000 tokens has some 30 MB

M = TypeVar("M", bound=nn.Module)


def on_meta(make: Callable[[], M]) -> M:
    """A model of shapes alone: nothing is drawn, and no memory asked for what may not fit."""
    with torch.device("meta"):
        return make()


def fill(model: nn.Module, tensors: Mapping[str, Tensor], where: object, dtype: torch.dtype) -> None:
    """Put weights into a model that was made on the meta device.

    Raises:
        CheckpointError: one is missing, unknown, or of another shape.
    """
    wanted = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    stored = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    differing = [name for name in stored.keys() | wanted.keys() if stored.get(name) != wanted.get(name)]
    if differing:
        name = min(differing, key=lambda name: (name in stored, name))  # one that is missing says most
        want = f"{name} of shape {wanted[name]}" if name in wanted else f"no {name}"
        raise CheckpointError(
            f"the weights of {where} do not fit its config: want {want}, was"
            f" {stored.get(name, 'nothing')}, and {len(differing) - 1} more differ"
        )
    model.load_state_dict({name: tensor.to(dtype) for name, tensor in tensors.items()}, assign=True)
    model.requires_grad_(True)


def renamed(
    tensors: Iterable[tuple[str, Tensor]], rules: Mapping[str, str], ignored: str, where: object
) -> dict[str, Tensor]:
    """Tensors under our names.

    Args:
        rules: their names to ours, with {} for the number of a block.
        ignored: a regular expression of names that are no weights.

    Raises:
        CheckpointError: a name is in neither.
    """
    patterns = [
        (re.compile(re.escape(theirs).replace(r"\{\}", "([0-9]{1,4})")), ours) for theirs, ours in rules.items()
    ]
    skip = re.compile(ignored)
    found: dict[str, Tensor] = {}
    for name, tensor in tensors:
        if skip.fullmatch(name):
            continue
        for pattern, ours in patterns:
            if match := pattern.fullmatch(name):
                found[ours.format(*match.groups())] = tensor
                break
        else:
            raise CheckpointError(f"{where} has a tensor {name}, which no model of its architecture has")
    return found


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a file.

    Raises:
        CheckpointError: there is none, or it is something else.
    """
    try:
        if path.stat().st_size > _JSON_BYTES_MAX:
            raise CheckpointError(f"{path} must have at most {_JSON_BYTES_MAX:,} bytes, was {path.stat().st_size:,}")
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is truncated or not JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a JSON object, was {type(content).__name__}")
    return content


def read_folder(folder: Path) -> dict[str, Tensor]:
    """All tensors of a Hugging Face folder: `model.safetensors`, or the parts that its index names.

    Raises:
        CheckpointError: a file is missing, truncated or no safetensors file.
    """
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.is_file():
        parts = read_json(index).get("weight_map")
        if not isinstance(parts, dict) or not all(isinstance(name, str) for name in parts.values()):
            raise CheckpointError(f"{index} must have a weight_map of files by tensor")
        names = sorted(set(parts.values()))
        if wrong := [name for name in names if Path(name).name != name]:
            raise CheckpointError(f"{index} must name files of its own folder, was {wrong[0]}")
    found: dict[str, Tensor] = {}
    for name in names:
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"want weights at {path}, was nothing")
        try:
            with safe_open(path, framework="pt") as file:
                found.update({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 - it is no dict
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"{path} is truncated or no safetensors file: {error}") from None
    return found
