"""The command: python -m trainer {tokenizer,fingpt,gpt,advisor} CONFIG [flags]."""

import sys
from collections.abc import Sequence

from configs.command import leave_on_interrupt, run_command
from configs.load import ConfigError
from feeds.errors import FeedError
from models.advisor.advice import AdvisorError
from models.checkpoint import CheckpointError
from trainer.errors import TrainingError

_PROGRAM = "python -m trainer"


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code.

    Raises:
        SystemExit: on --help, with 0; on a wrong flag, with 2.
    """

    def work() -> int:
        if list(argv[:1]) == ["advisor"]:
            from trainer.advisor import run as train_advisor  # a config of its own, and no torch

            return train_advisor(argv[1:])
        from trainer.flags import parse, parse_gpt  # here: Ctrl-C is a line while it loads as well

        if list(argv[:1]) == ["gpt"]:
            asked = parse_gpt(argv[1:])
            from trainer.gpt import run as train_gpt  # it brings torch, which no flag needs

            return train_gpt(asked)
        command, arguments = parse(argv)
        from trainer.command import run

        return run(command, arguments)

    wrong = (ConfigError, FeedError, CheckpointError, TrainingError, AdvisorError)
    return run_command(_PROGRAM, work, wrong, _interrupted(argv))


def _interrupted(argv: Sequence[str]) -> str:
    return "interrupted" + (
        "; --resume goes on from the last state saved" if argv[:1] and argv[0] in ("fingpt", "gpt") else ""
    )


if __name__ == "__main__":
    leave_on_interrupt(_PROGRAM, _interrupted(sys.argv[1:]))
    sys.exit(main(sys.argv[1:]))
