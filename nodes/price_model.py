"""Price models behind the seam of `nodes.infer`: tokens of many symbols in, distributions of their next bars out."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import csp
import numpy as np
import numpy.typing as npt
from csp import ts

from models.checkpoint import Manifest, Training, read_manifest
from models.returns import ReturnTable, StepForecast
from nodes.events import Forecast, TokenFrame
from nodes.forecast import LEVELS, ForecastConfig
from nodes.infer import Request
from tokenizer.codec import Codec

if TYPE_CHECKING:
    from models.engine import Engine

Floats = npt.NDArray[np.float64]

_LEVELS = np.array(LEVELS)
_LEAST = 2.0**-60  # a probability below it is rounding
_SIZE_MAX = 65_536  # of a context or a vocabulary, as models.fingpt has it
_HOURS = 168  # of a week


class BarsRequest(Request):
    """Bars of one symbol, oldest first, that the models have not seen."""

    frames: list[object]  # of TokenFrame
    fresh: bool  # what came before is to be forgotten


@csp.node
def ask_about(frame: ts[TokenFrame]) -> ts[BarsRequest]:
    """A request for each bar."""
    if csp.ticked(frame):
        return BarsRequest(key=frame.symbol, asof=frame.asof, frames=[frame], fresh=False)


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The checkpoints of a config, as far as no model runs: what they have seen, and their tokenizers."""

    folders: tuple[Path, ...]
    manifests: tuple[Manifest, ...]

    @classmethod
    def read(cls, folders: Sequence[Path]) -> "Checkpoints":
        """Read what they say of themselves.

        Raises:
            CheckpointError: a folder holds none.
            ValueError: one is not of a price model, or they do not go together.
        """
        manifests = tuple(read_manifest(folder) for folder in folders)
        for folder, manifest in zip(folders, manifests, strict=True):
            if manifest.kind != "fingpt" or manifest.codec is None:
                what = manifest.kind if manifest.kind != "fingpt" else "fingpt without a tokenizer"
                raise ValueError(f"want checkpoints of price models with their tokenizers, {folder} is of kind {what}")
            for name in ("context", "vocabulary"):
                size = manifest.config.get(name)
                if type(size) is not int or not 1 <= size <= _SIZE_MAX:
                    raise ValueError(f"want the {name} of {folder} to lie in [1, {_SIZE_MAX}], was {size!r}")
        lengths = [manifest.training.bar_s for manifest in manifests]
        if len(set(lengths)) != 1:
            raise ValueError(f"want checkpoints of one bar length, were {', '.join(f'{s:g} s' for s in lengths)}")
        return cls(tuple(folders), manifests)

    @property
    def bar_s(self) -> float:
        """The bars that they were trained on."""
        return self.manifests[0].training.bar_s

    @property
    def trainings(self) -> tuple[tuple[Path, Training], ...]:
        """What each has seen."""
        return tuple((folder, m.training) for folder, m in zip(self.folders, self.manifests, strict=True))

    @property
    def context(self) -> int:
        """Bars that the one with the longest memory looks back on."""
        return max(manifest.config["context"] for manifest in self.manifests)

    def codecs(self) -> tuple[Codec, ...]:
        """Their tokenizers.

        Raises:
            CheckpointError: a folder holds no usable one.
            ValueError: one has other tokens than its model, or they measure returns by different scales, so that their
                distributions cannot be mixed.
        """
        codecs = tuple(Codec.load(folder) for folder in self.folders)
        for folder, manifest, codec in zip(self.folders, self.manifests, codecs, strict=True):
            if codec.codes != manifest.config["vocabulary"]:
                raise ValueError(
                    f"want a tokenizer of {manifest.config['vocabulary']} codes, as the model of {folder} reads, was of"
                    f" {codec.codes}"
                )
        for name in ("scale_halflife_bars", "scale_floor", "clip"):
            found = [getattr(codec.config.features, name) for codec in codecs]
            if len(set(found)) != 1:
                raise ValueError(f"want checkpoints with one {name}, to mix what they say, were {found}")
        return codecs


class PriceModel:
    """What the checkpoints say of the next bar of each symbol. Weights are loaded by `load`, or when first asked.

    Args:
        checkpoints: of the models.
        codecs: their tokenizers.
        symbols: how many there may be.
        config: `form` and `missing_max` are read.
    """

    name = "forecast"

    def __init__(self, checkpoints: Checkpoints, codecs: Sequence[Codec], symbols: int, config: ForecastConfig) -> None:
        self._checkpoints, self._symbols, self._config = checkpoints, symbols, config
        features = codecs[0].config.features
        self._table = ReturnTable(
            np.concatenate([codec.returns_table for codec in codecs]),
            features.scale_halflife_bars,
            features.scale_floor,
            features.clip,
        )
        self._engines: list[Engine] = []
        self._context = checkpoints.context
        self._codes = [range(codec.codes) for codec in codecs]
        self._recent: dict[str, deque[TokenFrame]] = {}  # what the caches hold, to fill them again after a failure
        self._expected: dict[str, list[Floats]] = {}  # by symbol: the probabilities of its next token, a model each

    def load(self) -> None:
        """Load the weights. PyTorch is imported here and not before.

        Raises:
            CheckpointError, FormError: a model cannot be made.
        """
        from models.engine import Engine
        from models.export import exported
        from models.fingpt import FinGPT

        self._engines = [
            Engine(
                exported(FinGPT.load(folder), self._config.form),
                self._symbols,
                max_gap_bars=self._config.missing_max,
            )
            for folder in self._checkpoints.folders
        ]

    def close(self) -> None:
        """It holds nothing but memory."""

    def merge(self, waiting: BarsRequest, newer: BarsRequest) -> BarsRequest:
        """No bar is lost: the newer ones come after those that wait, as far back as a model can see."""
        if newer.fresh:
            return newer
        frames, fresh = [*waiting.frames, *newer.frames], waiting.fresh
        if len(frames) > self._context:
            frames, fresh = frames[-self._context :], True
        return BarsRequest(key=newer.key, asof=newer.asof, frames=frames, fresh=fresh)

    def predict(self, requests: Sequence[BarsRequest]) -> list[Forecast]:
        """What comes next after each request's bars.

        A failure is one of all requests, and of this time alone: their bars are fed again with the next ones, and the
        forecast of those is as if it had not been. Only a symbol with an impossible frame begins anew.

        Raises:
            ValueError: a frame holds what no tokenizer gives.
            Exception: whatever a model raises.
        """
        if not self._engines:
            self.load()
        impossible = {request.key: text for request in requests if (text := self._impossible(request))}
        pieces = [self._piece(request) for request in requests if request.key not in impossible]
        try:
            if impossible:
                raise ValueError("; ".join(impossible.values()))
            chances = [self._feed(n, pieces) for n in range(len(self._engines))]  # (B, V) each
            scale = np.array([piece.frames[-1].scale for piece in pieces])  # (B,)
            mixed = np.concatenate(chances, axis=1) / len(chances)  # (B, sum of V)
            step = self._table.forecast(mixed, scale)
            quantiles = step.quantile(_LEVELS)  # (B, n)
        except Exception:
            for request in requests:  # nobody knows how far it came: what they have seen is fed anew next time
                self._forget(request.key)
                if request.key in impossible:
                    self._recent.pop(request.key, None)  # fed again, the frame would fail for as long as it is held
            raise
        return [
            self._forecast(piece, step, row, quantiles[row], [chance[row].copy() for chance in chances])
            for row, piece in enumerate(pieces)
        ]

    def _impossible(self, request: BarsRequest) -> str:
        """What of a request cannot be, as a sentence; nothing where all can."""
        frames: list[Any] = request.frames
        for frame in frames:
            tokens = frame.tokens
            known = len(tokens) == len(self._codes) and all(map(range.__contains__, self._codes, tokens))
            if not (known and 0 <= frame.hour < _HOURS and 0.0 < frame.scale < math.inf and frame.missing >= 0):
                sizes = ", ".join(str(len(codes)) for codes in self._codes)
                return (
                    f"want a token of {request.key} below {sizes}, an hour of the week, a positive scale, was"
                    f" {tokens}, {frame.hour}, {frame.scale}"
                )
        return ""

    def _piece(self, request: BarsRequest) -> "_Piece":
        """What of a request is fed: the bars since the last hole that is too wide, after a failure those before too."""
        frames: list[Any] = list(request.frames)
        symbol, fresh = request.key, request.fresh
        recent = self._recent.setdefault(symbol, deque(maxlen=self._context))
        if fresh:
            recent.clear()
        elif symbol not in self._expected and recent:
            frames, fresh = [*recent, *frames], True
            recent.clear()
        for i in range(len(frames) - 1, 0, -1):
            if frames[i].missing > self._config.missing_max:
                frames, fresh = frames[i:], True
                break
        recent.extend(frames)
        return _Piece(symbol, frames[-self._context :], fresh, len(request.frames))

    def _feed(self, n: int, pieces: "Sequence[_Piece]") -> Floats:
        from models.engine import Fed

        return self._engines[n].feed(
            [
                Fed(
                    symbol=piece.symbol,
                    tokens=[frame.tokens[n] for frame in piece.frames],
                    hours=[frame.hour for frame in piece.frames],
                    missing_bars=piece.frames[0].missing,
                    gap=piece.fresh,
                )
                for piece in pieces
            ]
        )

    def _forget(self, symbol: str) -> None:
        self._expected.pop(symbol, None)
        for engine in self._engines:
            engine.forget(symbol)

    def _forecast(
        self, piece: "_Piece", step: StepForecast, row: int, quantiles: Floats, chances: list[Floats]
    ) -> Forecast:
        last = piece.frames[-1]
        before = self._expected.get(piece.symbol)
        bridged = last.missing <= self._config.missing_max
        surprise = math.nan  # of a bar that nobody had asked about: its like was not expected, it was skipped
        if before is not None and piece.asked == 1 and not piece.fresh and bridged:
            surprise = _mean([-math.log2(max(p[t], _LEAST)) for p, t in zip(before, last.tokens, strict=True)])
        self._expected[piece.symbol] = chances
        return Forecast(
            symbol=piece.symbol,
            asof=last.asof,
            mean=float(step.mean[row]),
            volatility=float(step.volatility[row]),
            quantiles=quantiles,
            probability_up=float(step.probability_up[row] + 0.5 * step.probability_flat[row]),
            entropy=_mean([-float(p @ np.log2(np.maximum(p, _LEAST))) for p in chances]),
            surprise=surprise,
            token=last.tokens[0],
        )


@dataclass(frozen=True, slots=True)
class _Piece:
    """What one symbol's cache is fed."""

    symbol: str
    frames: list[TokenFrame]
    fresh: bool
    asked: int  # bars of the request itself


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
