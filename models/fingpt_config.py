"""The shape of a FinGPT, as configs and manifests say it. Nothing here imports torch: a flag need not wait for it."""

from dataclasses import dataclass
from typing import Any

from models.shape import build_config

# Of a config: far beyond what these models are for, and within what a machine can be asked for.
_MOST = {"vocabulary": 65_536, "context": 65_536, "layers": 256, "width": 16_384, "heads": 1_024, "kv_heads": 1_024}


@dataclass(frozen=True, slots=True, kw_only=True)
class FinGPTConfig:
    """The shape of a FinGPT. The defaults have exactly 19,005,440 parameters."""

    vocabulary: int = 128  # codes of the tokenizer
    context: int = 256  # bars that one position sees, itself included
    layers: int = 6
    width: int = 512
    heads: int = 8
    kv_heads: int = 8  # fewer than heads: grouped-query attention
    hours: bool = False  # condition on the hour of week of each bar's close
    symbols: tuple[str, ...] = ()  # condition on the symbol; all others share the unknown one
    symbol_dropout: float = 0.1  # share of training sequences whose symbol is hidden
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must lie in [1, {most}], was {getattr(self, name)}")
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"width / heads must be a whole even number, was {self.width} / {self.heads}")
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads must divide heads, was {self.kv_heads} of {self.heads}")
        for name in ("symbol_dropout", "dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must lie in [0, 1), was {getattr(self, name)}")
        if len(set(self.symbols)) != len(self.symbols):
            raise ValueError(f"symbols must differ, was {self.symbols}")

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "FinGPTConfig":
        """The inverse of `dataclasses.asdict`, also after a trip through JSON (lists for tuples).

        Raises:
            ValueError: a field is unknown, of another type, or impossible.
        """
        return build_config(cls, values)
