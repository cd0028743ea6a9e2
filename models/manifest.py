"""The manifest of a checkpoint, from values to JSON and back; `models.checkpoint` has the files."""

import dataclasses
import hashlib
import json
import math
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np

FORMAT = 1
KINDS = ("advisor", "fingpt", "gpt2", "tokenizer")
# safetensors' name of a type, and numpy's; little-endian in the file, whatever the machine.
DTYPES = {
    "BOOL": "?",
    "U8": "<u1",
    "I8": "<i1",
    "I16": "<i2",
    "I32": "<i4",
    "I64": "<i8",
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
}
TENSOR = re.compile(r"(model|codec)(\.[A-Za-z0-9_-]+)+")

_SHA256 = re.compile(r"[0-9a-f]{64}")
_BAR_S_MAX = 1e12  # far beyond any bar, and within a float and a calendar
_MOMENTS = ("start", "end", "embargo_end")  # of the training window, as ISO 8601 in the file
_TOP = ("code", "codec", "config", "digest", "format", "kind", "metrics", "tensors", "training", "weights")


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What the weights have seen: every bar that fitted them, the codebook, the statistics, or chose between trials.

    Times are naive UTC. Validation that decided when to stop, or which trial to keep, belongs into the window.
    """

    start: datetime | None  # close of the first bar; None: unknown, so everything up to `end` overlaps
    end: datetime | None  # close of the last bar; None: unknown, so every window overlaps
    symbols: tuple[str, ...]
    bar_s: float
    embargo_bars: int  # bars after `end` in which no decision counts as out of sample
    embargo_end: datetime | None = None  # by the calendars of all symbols; None: `end` + `embargo_bars` * `bar_s`
    data_sha256: str = ""  # of the rows trained on, as the trainer documents; "": not known
    licence: str = ""  # of the data: may weights made from it be shared?
    trials: int = 1  # configurations that were tried before this one was kept; figures are deflated by it
    seed: int = 0

    def __post_init__(self) -> None:
        if self.start is not None and self.end is None:
            raise ValueError(f"want an end of the training window that has a start, was none after {self.start}")
        for name in ("start", "end", "embargo_end"):
            moment = getattr(self, name)
            if moment is not None and moment.tzinfo is not None:
                raise ValueError(f"{name} must be naive UTC, was {moment}")
        if self.start is not None and self.end is not None and self.end < self.start:
            raise ValueError(f"training must not end before it starts, was {self.start} to {self.end}")
        if self.embargo_end is not None and (self.end is None or self.embargo_end < self.end):
            raise ValueError(f"embargo_end must not be before end {self.end}, was {self.embargo_end}")
        if not 0.0 < self.bar_s <= _BAR_S_MAX:
            raise ValueError(f"bar_s must lie in (0, {_BAR_S_MAX}], was {reprlib.repr(self.bar_s)}")
        if self.embargo_bars < 0:
            raise ValueError(f"embargo_bars must not be negative, was {self.embargo_bars}")
        try:
            _ = self.guard_end
        except OverflowError:
            raise ValueError(
                f"want an embargo within the calendar, was {self.embargo_bars} of {self.bar_s} s"
            ) from None
        if self.trials < 1:
            raise ValueError(f"trials must be at least 1, was {self.trials}")
        if self.data_sha256 and not _SHA256.fullmatch(self.data_sha256):
            raise ValueError(f"data_sha256 must be 64 hexadecimal digits, was {self.data_sha256!r}")
        if not all(self.symbols) or len(set(self.symbols)) != len(self.symbols):
            raise ValueError(f"symbols must be named, each once, were {self.symbols}")

    @property
    def guard_end(self) -> datetime | None:
        """The last moment at which a decision is in sample; None where the window is unknown."""
        if self.end is None or self.embargo_end is not None:
            return self.embargo_end
        return self.end + timedelta(seconds=self.embargo_bars * self.bar_s)

    def overlaps(self, start: datetime, end: datetime) -> bool:
        """Whether a decision within [start, end] would be judged on what the weights have seen.

        Args:
            start: naive UTC, the first moment at which something is decided; warm-up inputs may be older.
            end: the last one.
        """
        guard_end = self.guard_end
        if guard_end is None:
            return True
        return start <= guard_end and (self.start is None or end >= self.start)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """What a tensor of the weights file must be."""

    dtype: str  # safetensors' name, such as F32
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The manifest of a checkpoint, checked against its digest."""

    kind: str  # one of KINDS
    code: str  # version of the code that wrote it
    config: dict[str, Any]  # of the model, or of the tokenizer's training
    codec: dict[str, Any] | None  # what `tokenizer` needs to make tokens; None: the model was trained on bare tokens
    training: Training
    metrics: dict[str, dict[str, Any]]  # name -> {"value": float, "baselines": {name: float}, ...}
    tensors: dict[str, TensorSpec]
    weights_bytes: int
    weights_sha256: str
    digest: str  # sha256 of all of the above: it names the checkpoint

    @property
    def parameters(self) -> int:
        """Numbers in the tensors of the model."""
        return sum(spec.size for name, spec in self.tensors.items() if name.startswith("model."))

    def overlap(self, start: datetime, end: datetime) -> bool:
        """`Training.overlaps`: whether decisions within [start, end] (naive UTC) would be in sample."""
        return self.training.overlaps(start, end)


def compose(
    *,
    kind: str,
    code: str,
    config: Mapping[str, Any],
    codec: Mapping[str, Any] | None,
    training: Training,
    metrics: Mapping[str, Mapping[str, Any]],
    tensors: Mapping[str, TensorSpec],
    weights_bytes: int,
    weights_sha256: str,
) -> dict[str, Any]:
    """The manifest as JSON values, with its digest.

    Raises:
        ValueError: it is none that `parse` takes.
    """
    content = {
        "format": FORMAT,
        "kind": kind,
        "code": code,
        "config": config,
        "codec": codec,
        "training": _training_to_json(training),
        "metrics": metrics,
        "weights": {"bytes": weights_bytes, "sha256": weights_sha256},
        "tensors": {name: {"dtype": spec.dtype, "shape": spec.shape} for name, spec in sorted(tensors.items())},
    }
    plain: dict[str, Any] = {name: _plain(value, name) for name, value in content.items()}
    plain["digest"] = _digest(plain)
    parse(plain)
    return plain


def parse(content: Mapping[str, Any]) -> Manifest:
    """The manifest of JSON values.

    Raises:
        ValueError: of another format, changed since its digest was made, or not what `compose` gives.
    """
    found = content.get("format")
    if type(found) is not int:
        raise ValueError(f"want the format as a number, was {reprlib.repr(found)}")
    if found > FORMAT:
        raise ValueError(f"it is of format {found}, newer than {FORMAT}, the newest that this version reads")
    if found != FORMAT:
        raise ValueError(f"it is of format {found}, want {FORMAT}")
    _same_keys("manifest", content, _TOP)
    _plain(content, "manifest")
    digest = _digest(content)
    if content["digest"] != digest:
        raise ValueError(f"it was changed: want digest {reprlib.repr(content['digest'])}, was {digest}")
    weights = _is("weights", content["weights"], dict)
    _same_keys("weights", weights, ("bytes", "sha256"))
    if _is("weights.bytes", weights["bytes"], int) < 0 or not _SHA256.fullmatch(_is("sha256", weights["sha256"], str)):
        raise ValueError(f"want the length and the sha256 of the weights, was {reprlib.repr(weights)}")
    tensors = {name: _spec(name, value) for name, value in _is("tensors", content["tensors"], dict).items()}
    codec = content["codec"]
    _check_kind(_is("kind", content["kind"], str), codec, tensors)
    _check_metrics(_is("metrics", content["metrics"], dict))
    return Manifest(
        kind=content["kind"],
        code=_is("code", content["code"], str),
        config=_is("config", content["config"], dict),
        codec=None if codec is None else _is("codec", codec, dict),
        training=_training(_is("training", content["training"], dict)),
        metrics=content["metrics"],
        tensors=tensors,
        weights_bytes=weights["bytes"],
        weights_sha256=weights["sha256"],
        digest=digest,
    )


def _plain(value: Any, where: str) -> Any:
    """`value` as JSON gives it back; whatever JSON cannot carry is refused, infinities included."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} must be finite, was {value}")
        return value
    if isinstance(value, list | tuple):
        return [_plain(part, f"{where}[{i}]") for i, part in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{where} must have text as keys, was {key!r}")
        return {key: _plain(part, f"{where}.{key}") for key, part in value.items()}
    raise ValueError(f"{where} must be a JSON value, was {type(value).__name__}")


def _training_to_json(training: Training) -> dict[str, Any]:
    content = dataclasses.asdict(training)
    for name in _MOMENTS:
        content[name] = None if content[name] is None else content[name].isoformat()
    return content


def _digest(content: Mapping[str, Any]) -> str:
    """sha256 of the content without its digest, in the one spelling that depends on values alone."""
    rest = {key: value for key, value in content.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _training(content: dict[str, Any]) -> Training:
    _same_keys("training", content, tuple(field.name for field in dataclasses.fields(Training)))
    values = dict(content)
    for name in _MOMENTS:
        if values[name] is not None:
            values[name] = datetime.fromisoformat(_is(f"training.{name}", values[name], str))
    for name in ("embargo_bars", "trials", "seed"):
        _is(f"training.{name}", values[name], int)
    for name in ("data_sha256", "licence"):
        _is(f"training.{name}", values[name], str)
    _is("training.bar_s", values["bar_s"], int | float)
    symbols = _is("training.symbols", values["symbols"], list)
    values["symbols"] = tuple(_is("training.symbols", symbol, str) for symbol in symbols)
    return Training(**values)


def _spec(name: str, content: Any) -> TensorSpec:
    if not TENSOR.fullmatch(name):
        raise ValueError(f"want a tensor named like model.head.weight or codec.mean, was {reprlib.repr(name)}")
    _same_keys(name, _is(name, content, dict), ("dtype", "shape"))
    if _is(f"type of {name}", content["dtype"], str) not in DTYPES:
        raise ValueError(f"want {name} of type {', '.join(DTYPES)}, was {reprlib.repr(content['dtype'])}")
    shape = tuple(_is(f"shape of {name}", size, int) for size in _is(f"shape of {name}", content["shape"], list))
    if any(size < 0 for size in shape):
        raise ValueError(f"want sizes of {name} from 0, was {reprlib.repr(shape)}")
    return TensorSpec(dtype=content["dtype"], shape=shape)


def _check_kind(kind: str, codec: Any, tensors: Mapping[str, Any]) -> None:
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, was {reprlib.repr(kind)}")
    has_model = any(name.startswith("model.") for name in tensors)
    if has_model != (kind != "tokenizer"):
        raise ValueError(f"want tensors of a model in a checkpoint of any kind but tokenizer, was {kind}")
    if codec is None and kind == "tokenizer":
        raise ValueError("a checkpoint of kind tokenizer must have a codec")
    if codec is None and any(name.startswith("codec.") for name in tensors):
        raise ValueError("want tensors of a codec only beside its manifest, was none")


def _check_metrics(metrics: Mapping[str, Any]) -> None:
    """A figure without what it must beat says nothing."""
    for name, metric in metrics.items():
        if not isinstance(metric, dict) or not _number(metric.get("value")):
            raise ValueError(f'metric {name} must be {{"value": number, "baselines": ...}}, was {reprlib.repr(metric)}')
        baselines = metric.get("baselines")
        if not isinstance(baselines, dict) or not baselines or not all(map(_number, baselines.values())):
            raise ValueError(f"metric {name} must have a baseline beside it, was {reprlib.repr(baselines)}")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is(name: str, value: Any, want: Any) -> Any:
    if not isinstance(value, want) or isinstance(value, bool):
        raise ValueError(f"{name} must be of type {getattr(want, '__name__', want)}, was {reprlib.repr(value)}")
    return value


def _same_keys(name: str, content: Mapping[str, Any], want: tuple[str, ...]) -> None:
    if set(content) != set(want):
        differing = sorted(set(content) ^ set(want))
        raise ValueError(
            f"{name} must have the keys {', '.join(sorted(want))}; {reprlib.repr(differing)} is not in both"
        )
