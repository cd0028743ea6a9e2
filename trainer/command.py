"""What `python -m trainer` does: from a config and its flags to a checkpoint, and lines for a person."""

from pathlib import Path

from configs.load import ConfigError
from configs.version import code_version
from trainer import fingpt, shipped
from trainer.data import load_bars
from trainer.flags import Arguments
from trainer.runs import check_outputs
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
    shipped.refuse_occupied(out)
    bars = load_bars(config.feeds)
    laid = split(bars, config.split)
    made = fitted(config, bars, laid, out, keep=False, quiet=arguments.quiet)
    _say(arguments, [*_parts(laid), f"code perplexity {made.codec.perplexity:.1f} of {made.codec.codes}", str(out)])
    return 0


def _fingpt(arguments: Arguments, here: World) -> int:
    config, out, quiet = arguments.config, Path(arguments.config.folder), arguments.quiet
    if not config.folds:
        shipped.refuse_occupied(out)
    if here.first:
        check_outputs(out)
    if here.first and not config.folds:  # folds are not compared
        shipped.check_shipped(config.shipped, replacing=arguments.update)
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
    return shipped.beside(out, config.shipped, replacing=arguments.update)


def _parts(laid: Split) -> list[str]:
    def shown(part: Part | None) -> str:
        return "none" if part is None else f"{part[0]:%Y-%m-%d %H:%M} to {part[1]:%Y-%m-%d %H:%M}"

    said = f"training {shown(laid.train)}, validation {shown(laid.validation)}, test {shown(laid.test)}"
    return [f"{said} (embargo to {laid.embargo_end:%Y-%m-%d %H:%M})"]


def _say(arguments: Arguments, lines: list[str]) -> None:
    if not arguments.quiet:
        print("\n".join(lines), flush=True)
