"""What `python -m trainer` does: from a config and its flags to a checkpoint, and lines for a person."""

import os
from pathlib import Path

from configs.load import ConfigError
from configs.outputs import check_writable
from configs.version import code_version
from models.checkpoint import MANIFEST, WEIGHTS
from trainer import fingpt, shipped
from trainer.config import TrainConfig
from trainer.data import load_bars
from trainer.flags import Arguments
from trainer.logs import LOG
from trainer.splits import Part, Split, split
from trainer.tokenizer import fitted
from trainer.walk import walk_forward
from trainer.world import World, world


def run(command: str, arguments: Arguments) -> int:
    """Train what the command asks for; returns its exit code.

    Raises:
        ConfigError, FeedError, CheckpointError, TrainingError: what a user can get wrong, in a sentence.
    """
    code_version()  # of the code that is loaded now: hours later the tree may hold another
    with world(arguments.config.loop) as here:
        return _tokenizer(arguments, here) if command == "tokenizer" else _fingpt(arguments, here)


def _tokenizer(arguments: Arguments, here: World) -> int:
    config = arguments.config
    if not here.first:
        return 0
    out = Path(config.folder)
    out = out.with_name(f"{out.name}-tokenizer")
    _refuse_occupied(out)
    bars = load_bars(config.feeds)
    laid = split(bars, config.split)
    made = fitted(config, bars, laid, out, keep=False, quiet=arguments.quiet)
    _say(arguments, [*_parts(laid), f"code perplexity {made.codec.perplexity:.1f} of {made.codec.codes}", str(out)])
    return 0


def _fingpt(arguments: Arguments, here: World) -> int:
    config, out, quiet = arguments.config, Path(arguments.config.folder), arguments.quiet
    if not config.folds:
        _refuse_occupied(out)
    if here.first:
        check_writable(out / MANIFEST)
        check_writable(fingpt.work_folder(out) / LOG)
    if config.shipped and not arguments.update and not config.folds and not Path(config.shipped).exists():
        raise ConfigError(f"want a checkpoint to compare with, {config.shipped} does not exist: --update makes it")
    if arguments.tokens is not None:
        if config.folds:
            raise ConfigError("walk-forward wants times, and plain tokens have none: want folds = 0")
        language = fingpt.language_of_tokens(config, arguments.tokens)
        said = ["plain tokens: nobody knows when they were, so every figure is in-sample"]
    else:
        bars = load_bars(config.feeds)
        if config.folds:
            lines = walk_forward(config, bars, out, here, resume=arguments.resume, quiet=quiet)
            _say(arguments, lines if here.first else [])
            return 0
        laid = split(bars, config.split)
        said = _parts(laid)
        language = fingpt.language_of_bars(config, bars, laid, out, here, resume=arguments.resume, quiet=quiet)
    result = fingpt.train_model(config, language, out, here, resume=arguments.resume, quiet=quiet)
    if result is None:
        return 0
    _say(arguments, [*said, *result.lines, f"checkpoint: {out} ({result.digest[:12]})"])
    return _beside_shipped(arguments, config, out)


def _beside_shipped(arguments: Arguments, config: TrainConfig, out: Path) -> int:
    if not config.shipped:
        return 0
    home = Path(config.shipped)
    if arguments.update:
        print(f"{home} is now {shipped.update(out, home)}")
        return 0
    comparison = shipped.compare(out, home)
    print(comparison.line)
    return 0 if comparison.same else 1


def _refuse_occupied(out: Path) -> None:
    """Refuse a place where no checkpoint could be written: now, not after hours of training.

    Raises:
        ConfigError: something else than a checkpoint is there.
    """
    if not os.path.lexists(out):
        return
    folder = out.is_dir() and not out.is_symlink()
    if not folder or {path.name for path in out.iterdir()} - {MANIFEST, WEIGHTS}:
        raise ConfigError(f"{out} is no checkpoint, and is not replaced by one: want another --out")


def _parts(laid: Split) -> list[str]:
    def shown(part: Part | None) -> str:
        return "none" if part is None else f"{part[0]:%Y-%m-%d %H:%M} to {part[1]:%Y-%m-%d %H:%M}"

    said = f"training {shown(laid.train)}, validation {shown(laid.validation)}, test {shown(laid.test)}"
    return [f"{said} (embargo to {laid.embargo_end:%Y-%m-%d %H:%M})"]


def _say(arguments: Arguments, lines: list[str]) -> None:
    if not arguments.quiet:
        print("\n".join(lines), flush=True)
