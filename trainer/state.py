"""The file that a killed run goes on from: weights, optimiser and counters, in one safetensors file.

One file is written whole or not at all. The counters are JSON in its header; nothing in it can run code.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from configs.load import ConfigError
from trainer.errors import TrainingError

FORMAT = 1


class State:
    """What was restored."""

    def __init__(self, counters: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.counters = counters
        self._tensors = tensors

    def tensors(self, kind: str) -> dict[str, Tensor]:
        """Those saved under `kind`."""
        return {name.removeprefix(f"{kind}:"): t for name, t in self._tensors.items() if name.startswith(f"{kind}:")}


def save(path: Path, counters: Mapping[str, Any], **kinds: Mapping[str, Tensor]) -> None:
    """Replace the file at once. After a crash it is the earlier one or this one.

    Args:
        counters: JSON values; floats come back bit by bit.
        kinds: tensors by name, of each kind.

    Raises:
        TrainingError: it cannot be written: the disk is full, say.
    """
    tensors = {
        f"{kind}:{name}": tensor.detach().to("cpu", copy=True).contiguous()
        for kind, named in kinds.items()
        for name, tensor in named.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    metadata = {"counters": json.dumps({"format": FORMAT, **counters}, allow_nan=False)}
    try:
        save_file(tensors, partial, metadata=metadata)
    except SafetensorError as exc:
        raise TrainingError(f"the state to resume from cannot be written to {partial}: {exc}") from None
    with partial.open("rb+") as stream:
        os.fsync(stream.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read(path: Path) -> State | None:
    """What `save` wrote, or None where there is no file.

    Raises:
        ConfigError: the file is something else.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            counters = json.loads((file.metadata() or {}).get("counters", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except (SafetensorError, OSError, ValueError) as exc:
        raise ConfigError(f"{path} is not a state to resume from: {exc}") from None
    if not isinstance(counters, dict) or counters.get("format") != FORMAT:
        raise ConfigError(f"{path} is not a state to resume from: want format {FORMAT}")
    return State(counters, tensors)
