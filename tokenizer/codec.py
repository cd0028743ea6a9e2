"""Bars to tokens and back: all that a fitted tokenizer needs to run, in numpy. Fitting is in `tokenizer.fit`."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tokenizer.bars import BarSeries, Floats, Ints
from tokenizer.features import FeatureConfig, FeatureStream, features, moves
from tokenizer.quantise import (
    GridRounding,
    Rounding,
    VectorRounding,
    checked,
    network_of,
    parse_grid,
    perplexity,
    tensors_of,
)

QUANTILES = 64  # of a code's returns
NO_TOKEN = -1  # of a bar in warm-up

_KINDS = ("vqvae", "fsq", "returns")
_PREFIX = "codec."
_COLLAPSED = 0.25  # of the codes; a healthy codebook of 128 has a perplexity of 98, a collapsed one of 7


class CodebookCollapsed(ValueError):  # noqa: N818 - it says what happened
    """A codebook that says almost nothing: few of its codes are used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerConfig:
    """What a tokenizer is made of."""

    kind: str = "vqvae"  # vqvae; fsq: a fixed grid in place of a codebook; returns: vqvae over log returns alone
    codes: int = 128  # the vocabulary
    levels: int = 1  # codebooks, each on what the one before left over; a language model reads the first alone
    grid: str = "8x4x4"  # steps of each number of fsq; their product is codes
    dim: int = 16  # numbers that a codebook row has
    hidden: int = 64  # width of encoder and decoder
    commitment: float = 0.25  # weight of the loss that draws the encoder to its code
    decay: float = 0.99  # of a code's running mean, a step
    revive_below: float = 0.1  # of the mean use; a code that is used less is moved to where it is needed
    features: FeatureConfig = field(default_factory=FeatureConfig)

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"kind must be one of {', '.join(_KINDS)}, was {self.kind!r}")
        for name, low, high in (("codes", 2, 65_536), ("levels", 1, 8), ("dim", 1, 256), ("hidden", 1, 4096)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} must lie in [{low}, {high}], was {value}")
        if not 0.0 <= self.commitment < math.inf:
            raise ValueError(f"commitment must be finite and not negative, was {self.commitment}")
        for name in ("decay", "revive_below"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must lie in [0, 1), was {getattr(self, name)}")
        steps = parse_grid(self.grid)
        if self.kind == "fsq" and math.prod(steps) != self.codes:
            raise ValueError(f"codes must be {math.prod(steps)}, the steps of the grid {self.grid}, was {self.codes}")
        if self.kind == "fsq" and self.levels != 1:
            raise ValueError(f"levels must be 1 for a grid, was {self.levels}")
        if self.kind == "returns" and self.features.kind != "returns":
            object.__setattr__(self, "features", dataclasses.replace(self.features, kind="returns"))

    @property
    def latent(self) -> int:
        """How many numbers stand between encoder and decoder."""
        return len(parse_grid(self.grid)) if self.kind == "fsq" else self.dim


@dataclass(frozen=True, slots=True)
class Encoded:
    """The tokens of a series."""

    tokens: Ints  # (n,) of the first level; -1 in warm-up
    levels: Ints  # (n, levels) -1 in warm-up
    scale: Floats  # (n,) what bar t is measured by, from the bars before it, log return; NaN in warm-up
    returns: Floats  # (n,) log return, close to close; NaN for the first bar


@dataclass(frozen=True, slots=True)
class Decoded:
    """Bars as tokens tell them. A tokenizer of returns knows no gaps and no wicks."""

    open: Floats  # (n,)
    high: Floats  # (n,)
    low: Floats  # (n,)
    close: Floats  # (n,)
    returns: Floats  # (n,) log return, close to close
    scale: Floats  # (n,) by which bar t was drawn; it follows the path's own returns

    def __len__(self) -> int:
        return len(self.close)


class Codec:
    """A fitted tokenizer. Immutable; streams share it.

    Numbers are kept as float32, as files hold them, and computed with as float64: what was fitted and what was loaded
    give the same tokens.

    Args:
        tensors: see `to_tensors`; their names with or without "codec." in front.

    Raises:
        ValueError: a tensor is missing, of another shape, or impossible.
    """

    def __init__(self, config: TokenizerConfig, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
        bare = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
        count = len(config.features.names)
        self.config = config
        self.codes = config.codes
        self.mean = checked(bare, "mean", (count,))
        self.std = checked(bare, "std", (count,))
        if not (self.std > 0.0).all():
            raise ValueError(f"std of the codec must be positive, was {self.std.tolist()}")
        self._encoder = network_of("encoder", bare, (count, config.hidden, config.latent))
        self._decoder = network_of("decoder", bare, (config.latent, config.hidden, count))
        self._codebooks: Floats | None = None
        self._rounding: Rounding
        if config.kind == "fsq":
            self._rounding = GridRounding(parse_grid(config.grid))
        else:
            self._codebooks = checked(bare, "codebooks", (config.levels, config.codes, config.dim))
            self._rounding = VectorRounding(self._codebooks)
        self.returns_table = checked(bare, "returns_table", (config.codes, QUANTILES))
        if (np.diff(self.returns_table, axis=1) < 0.0).any():
            raise ValueError("returns_table of the codec must not decrease along a row")
        counts = checked(bare, "code_counts", (config.codes,))
        if (counts < 0.0).any() or (counts % 1.0).any():
            raise ValueError("code_counts of the codec must be whole and not negative")
        self.code_counts: Ints = counts.astype(np.int64)
        self.code_moves = self._moves(np.arange(config.codes)[:, None])
        for array in (self.mean, self.std, self.returns_table, self.code_counts, self.code_moves):
            array.flags.writeable = False

    mean: Floats  # (F,) of the features of the training bars
    std: Floats  # (F,) their standard deviation
    returns_table: Floats  # (V, 64) sorted quantiles of a code's training returns in scales; see `tokenizer.fit`
    code_counts: Ints  # (V,) training bars of each code of the first level
    code_moves: Floats  # (V, F) what each code of the first level says: moves in scales, by feature

    @property
    def perplexity(self) -> float:
        """exp of the entropy of the training tokens, of `codes` at most."""
        return perplexity(self.code_counts)

    def encode(self, bars: BarSeries) -> Encoded:
        """The tokens of a series: what a stream gives for its bars one by one."""
        found = features(bars, self.config.features)
        levels = np.full((len(bars), self.config.levels), NO_TOKEN, np.int64)
        known = ~np.isnan(found.scale)  # (n,)
        levels[known] = self._codes(found.x[known])
        return Encoded(levels[:, 0].copy(), levels, found.scale, found.returns)

    def stream(self) -> "CodecStream":
        """A new stream over the bars of one symbol."""
        return CodecStream(self)

    def decode(self, tokens: npt.ArrayLike, first_close: float, first_scale: float) -> Decoded:
        """The bars that tokens stand for.

        Args:
            tokens: (n,) of the first level, or (n, l) of the first l levels.
            first_close: close of the bar before the first, quote currency.
            first_scale: scale of the first bar, log return; see `CodecStream.scale`.

        Raises:
            ValueError: no such token, an impossible start, or a path whose moves grow beyond all numbers.
        """
        codes = np.asarray(tokens)
        codes = codes[:, None] if codes.ndim == 1 else codes  # (n, l)
        if codes.ndim != 2 or not 1 <= codes.shape[1] <= self.config.levels:
            raise ValueError(f"tokens must be (n,) or (n, 1 to {self.config.levels}), was {np.shape(tokens)}")
        if codes.size and not np.issubdtype(codes.dtype, np.integer):
            raise ValueError(f"tokens must be whole numbers, was {codes.dtype}")
        wrong = (codes < 0) | (codes >= self.codes)
        if wrong.any():
            raise ValueError(f"tokens must lie in [0, {self.codes}), was {codes[wrong][0]}")
        for name, value in (("first_close", first_close), ("first_scale", first_scale)):
            if not 0.0 < value < math.inf:
                raise ValueError(f"{name} must be positive and finite, was {value}")
        return self._walk(self._moves(codes.astype(np.int64)), first_close, first_scale)

    def distortion(self, bars: BarSeries) -> Floats:
        """How badly the codes tell each bar: mean squared error over standardised features; NaN in warm-up. (n,)"""
        found = features(bars, self.config.features)
        known = ~np.isnan(found.scale)
        error = np.full(len(bars), np.nan)
        error[known] = np.square(self._standard(found.x[known]) - self._told(self._codes(found.x[known]))).mean(axis=1)
        return error

    def to_tensors(self) -> dict[str, npt.NDArray[Any]]:
        """What a checkpoint keeps, float32 and int64, by names such as "codec.mean".

        Raises:
            CodebookCollapsed: the perplexity of the training tokens is under a quarter of the codes.
        """
        if self.perplexity < _COLLAPSED * self.codes:
            raise CodebookCollapsed(
                f"want a code perplexity of at least {_COLLAPSED * self.codes:g} of {self.codes} codes, was"
                f" {self.perplexity:.1f}: most codes are hardly used; train longer, on more bars, or with fewer codes"
            )
        return {_PREFIX + name: tensor for name, tensor in sorted(self._tensors().items())}

    def to_manifest(self) -> dict[str, Any]:
        """What a checkpoint's manifest says of the codec, in JSON values."""
        return {
            "config": dataclasses.asdict(self.config),
            "features": list(self.config.features.names),
            "perplexity": self.perplexity,
            "training_tokens": int(self.code_counts.sum()),
        }

    @classmethod
    def from_parts(cls, manifest: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]) -> Self:
        """What `to_manifest` and `to_tensors` wrote down. Tensors of other names, such as a model's, are passed over.

        Raises:
            ValueError: they do not make a codec.
        """
        from configs.load import ConfigError, build

        try:
            config = build(TokenizerConfig, dict(manifest["config"]))
        except (KeyError, TypeError, ConfigError) as exc:
            raise ValueError(f"the codec has no usable config: {exc}") from None
        return cls(config, tensors)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The codec of a checkpoint.

        Raises:
            CheckpointError: the folder holds no usable one.
        """
        from models.checkpoint import CheckpointError, read_manifest, read_tensors

        manifest = read_manifest(folder)
        if manifest.codec is None:
            raise CheckpointError(f"{folder} holds a model without a tokenizer")
        try:
            return cls.from_parts(manifest.codec, read_tensors(folder, manifest))
        except ValueError as exc:
            raise CheckpointError(f"{folder} holds no usable tokenizer: {exc}") from None

    def _standard(self, x: Floats) -> Floats:
        standard: Floats = (x - self.mean) / self.std
        return standard

    def _codes(self, x: Floats) -> Ints:
        """(N, F) -> (N, L)"""
        codes, doubtful = self._rounding.all(self._encoder.all(self._standard(x)))
        for i in np.flatnonzero(doubtful).tolist():
            codes[i] = self._codes_of_one(x[i])
        return codes

    def _codes_of_one(self, x: Floats) -> tuple[int, ...]:
        return self._rounding.one(self._encoder.one(self._standard(x)))

    def _told(self, codes: Ints) -> Floats:
        """Codes to standardised features, (N, l) -> (N, F)."""
        return self._decoder.all(self._rounding.back(codes))

    def _moves(self, codes: Ints) -> Floats:
        """Codes to moves in scales, (N, l) -> (N, F)."""
        return moves(self._told(codes) * self.std + self.mean, self.config.features)

    def _walk(self, said: Floats, first_close: float, first_scale: float) -> Decoded:
        """Prices along moves in scales, (n, F); each return takes its part in the scale of the next bar."""
        config = self.config.features
        decay, floor = config.decay, config.scale_floor
        scale = np.empty(len(said))
        variance = first_scale * first_scale
        for i, z in enumerate(said[:, config.close_index].tolist()):
            scale[i] = now = max(math.sqrt(variance), floor)
            move = z * now
            variance = decay * variance + (1.0 - decay) * move * move
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            returns = said[:, config.close_index] * scale  # (n,)
            close = first_close * np.exp(np.cumsum(returns))  # (n,)
            previous = np.concatenate([[first_close], close[:-1]])[: len(close)]  # (n,)
            gap = upper = lower = np.zeros(len(said))
            if config.kind == "bar":
                gap, upper, lower = (
                    said[:, config.names.index(n)] * scale for n in ("gap", "upper wick", "lower wick")
                )
            opened = previous * np.exp(gap)  # (n,)
            high = np.maximum(opened, close) * np.exp(upper)
            low = np.minimum(opened, close) * np.exp(-lower)
        lost = np.flatnonzero(~((low > 0.0) & (high < np.inf)))
        if len(lost):
            raise ValueError(f"prices along these tokens leave what a number can hold at token {lost[0]}")
        return Decoded(opened, high, low, close, returns, scale)

    def _tensors(self) -> dict[str, npt.NDArray[Any]]:
        single = np.float32
        found: dict[str, npt.NDArray[Any]] = {
            "mean": self.mean.astype(single),
            "std": self.std.astype(single),
            "returns_table": self.returns_table.astype(single),
            "code_counts": np.array(self.code_counts),
        }
        found |= tensors_of("encoder", self._encoder) | tensors_of("decoder", self._decoder)
        if self._codebooks is not None:
            found["codebooks"] = self._codebooks.astype(single)
        return found


class CodecStream:
    """Tokens of one symbol, bar by bar, in constant time and memory."""

    __slots__ = ("_codec", "_features")

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._features = FeatureStream(codec.config.features)

    @property
    def scale(self) -> float:
        """The scale of the NEXT bar, as a log return; NaN where that bar is in warm-up."""
        return self._features.scale

    def push(
        self,
        open: float,  # noqa: A002 - the field is called so everywhere
        high: float,
        low: float,
        close: float,
        volume: float = 0.0,
    ) -> int:
        """The token of the bar that just closed; -1 in warm-up.

        Raises:
            ValueError: the bar cannot have happened; the stream is as before.
        """
        x = self._features.push(open, high, low, close, volume)
        return NO_TOKEN if x is None else self._codec._codes_of_one(x)[0]

    def state(self) -> dict[str, float]:
        """All that it remembers, as plain numbers."""
        return self._features.state()

    def restore(self, state: dict[str, float]) -> None:
        """Go on where `state()` was taken, of a stream with the same codec."""
        self._features.restore(state)
