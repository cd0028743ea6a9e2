"""The flags of `python -m trainer`: what to train, by which config, and any of its keys over it."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from configs.flags import registry
from configs.load import ConfigError, load
from trainer.config import TrainConfig
from trainer.gpt_config import GPTTrainConfig

PROGRAM = "python -m trainer"
COMMANDS = ("tokenizer", "fingpt")

_USAGE = f"""\
usage: {PROGRAM} {{{",".join(COMMANDS)},gpt,advisor}} CONFIG [flags]

  tokenizer   fit a tokenizer on the training bars
  fingpt      fit a tokenizer, then train a model on its tokens; one folder holds both
  gpt         train a GPT-2 on text: {PROGRAM} gpt --help
  advisor     fit a head that reads headlines: {PROGRAM} advisor --help

CONFIG is a TOML file such as configs/train/demo.toml. {PROGRAM} fingpt CONFIG --help lists the flags.
"""
# tyro does not wrap it: one line a paragraph, none longer than a terminal is wide.
_DESCRIPTION = """\
Every key of the config is a flag, [loop] steps is --loop.steps; flags win.

Several processes: torchrun --nproc-per-node 2 -m trainer fingpt CONFIG

Exit codes: 0 done, 1 the result is not that of the shipped checkpoint,
2 bad usage, config or data, 130 interrupted.
"""

_GPT_DESCRIPTION = """\
Train a GPT-2 on text, by characters or byte pairs; python -m models.write goes on with texts then.

Every key of the config is a flag, [loop] steps is --loop.steps; flags win.

Several processes: torchrun --nproc-per-node 2 -m trainer gpt CONFIG

Exit codes: 0 done, 2 bad usage, config or data, 130 interrupted.
"""

A = TypeVar("A")


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What the user typed, over the config file."""

    tokens: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    """train on a plain file of tokens in place of bars; nobody knows when they were, so all is in-sample"""
    resume: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help_behavior_hint="")] = False
    """go on from the state that a killed run left in the output folder, or begin where there is none"""
    update: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help_behavior_hint="")] = False
    """replace the shipped checkpoint by the result"""
    quiet: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help_behavior_hint="")] = False
    """no progress and no table"""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)


@dataclass(frozen=True, kw_only=True)
class GPTArguments:
    """What the user typed, over the config file."""

    resume: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help_behavior_hint="")] = False
    """go on from the state that a killed run left in the output folder, or begin where there is none"""
    quiet: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help_behavior_hint="")] = False
    """no progress and no table"""
    config: Annotated[GPTTrainConfig, tyro.conf.arg(name="")] = field(default_factory=GPTTrainConfig)


def parse(argv: Sequence[str]) -> tuple[str, Arguments]:
    """The command and its arguments.

    Raises:
        ConfigError: the file or a value cannot be used.
        SystemExit: with 0 after --help, with 2 after a message about a flag.
    """
    first = argparse.ArgumentParser(prog=PROGRAM, add_help=False, usage=_USAGE.removeprefix("usage: "))
    first.add_argument("command", choices=COMMANDS)
    first.add_argument("file", type=Path, metavar="CONFIG")
    if not argv or argv[0] in ("-h", "--help"):
        print(_USAGE, end="", file=sys.stdout if argv else sys.stderr)
        raise SystemExit(0 if argv else 2)
    if list(argv[1:]) in (["-h"], ["--help"]):
        base, flags, command = TrainConfig(), ["--help"], first.parse_args([argv[0], "CONFIG"]).command
    else:
        named = first.parse_args(argv[:2])
        base, flags, command = load(TrainConfig, named.file), list(argv[2:]), named.command
    arguments = _read(Arguments, flags, Arguments(config=base), f"{PROGRAM} {command} CONFIG", _DESCRIPTION)
    if command == "tokenizer":
        if arguments.tokens is not None:
            raise ConfigError("--tokens brings tokens, and a tokenizer is fitted on bars")
        if arguments.resume or arguments.update:
            raise ConfigError("--resume and --update are of fingpt: a tokenizer is fitted whole, and none is shipped")
        if arguments.config.fit.checkpoint:
            raise ConfigError("fit.checkpoint names a tokenizer, and this command fits one: want it empty")
    if arguments.update and not arguments.config.shipped:
        raise ConfigError("--update replaces the shipped checkpoint, and the config names none")
    if arguments.update and arguments.config.folds:
        raise ConfigError("--update replaces the shipped checkpoint by one model, not by folds: want folds = 0")
    return command, arguments


def parse_gpt(argv: Sequence[str]) -> GPTArguments:
    """The arguments of `gpt`.

    Args:
        argv: what stands behind `gpt`.

    Raises:
        ConfigError, SystemExit: as `parse`.
    """
    first = argparse.ArgumentParser(prog=f"{PROGRAM} gpt", add_help=False, usage=f"{PROGRAM} gpt CONFIG [flags]")
    first.add_argument("file", type=Path, metavar="CONFIG")
    base, flags = GPTTrainConfig(), ["--help"]
    if list(argv) not in (["-h"], ["--help"]):
        base, flags = load(GPTTrainConfig, first.parse_args(argv[:1]).file), list(argv[1:])
    return _read(GPTArguments, flags, GPTArguments(config=base), f"{PROGRAM} gpt CONFIG", _GPT_DESCRIPTION)


def _read(kind: type[A], flags: list[str], default: A, program: str, description: str) -> A:
    try:
        return tyro.cli(kind, args=flags, default=default, prog=program, description=description, registry=registry())
    except ValueError as exc:
        raise ConfigError(str(exc)) from None
