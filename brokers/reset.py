"""Re-arm trading after an emergency stop: python -m brokers.reset JOURNAL"""

import argparse
import getpass
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from brokers.figures import apart
from brokers.journal import Halt, Journal, JournalError

_DONE, _BAD_USAGE, _STILL_HALTED, _INTERRUPTED = 0, 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Show what stopped trading and, once a person agrees, reset it. Returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        with Journal(options.journal, create=False) as journal:
            return _reset(journal, options)
    except (JournalError, ValueError) as exc:
        print(f"reset: {exc}", file=sys.stderr)
        return _BAD_USAGE
    except KeyboardInterrupt:
        print("\nreset: interrupted, nothing was changed", file=sys.stderr)
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m brokers.reset",
        description="Show what made risk stop trading, and re-arm it. A stop lasts, over restarts too, until a person"
        " does this.",
        epilog="Exit codes: 0 re-armed, or nothing was halted; 2 bad usage, or no such journal; 3 you said no, trading"
        " stays halted; 130 interrupted.",
    )
    parser.add_argument("journal", metavar="JOURNAL", help="the journal file of the account")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--by", metavar="NAME", default=None, help="who resets it, for the record; default: this user")
    parser.add_argument("--note", metavar="TEXT", default="", help="why it is safe to trade again, for the record")
    return parser


def _reset(journal: Journal, options: argparse.Namespace) -> int:
    halt = journal.open_halt()
    if halt is None:
        print(f"nothing is halted in {options.journal}")
        return _DONE
    print(_told(halt))
    if not options.yes:
        if not sys.stdin.isatty():
            print(
                "reset: there is no terminal to ask on. To re-arm trading type:"
                f" python -m brokers.reset {options.journal} --yes",
                file=sys.stderr,
            )
            return _BAD_USAGE
        if not _agreed():
            print("trading stays halted")
            return _STILL_HALTED
    done = journal.reset(_name(options.by), datetime.now(UTC).replace(tzinfo=None), options.note)
    if done is None:
        print("somebody else has reset it meanwhile")
    else:
        print(f"re-armed by {done.reset_by} at {done.reset_time:%Y-%m-%d %H:%M:%S} UTC")
    return _DONE


def _told(halt: Halt) -> str:
    value, limit = apart(halt.value, halt.limit)
    return (
        f"trading was halted at {halt.engine_time} UTC\n"
        f"  why     {halt.code}: {halt.message}\n"
        f"  value   {value}\n"
        f"  limit   {limit}\n"
        f"  equity  {halt.equity:,.2f}"
    )


def _agreed() -> bool:
    try:
        return input("re-arm trading? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


def _name(by: str | None) -> str:
    if by is not None:
        return by
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        raise ValueError("this user has no name: say who you are with --by NAME") from None


if __name__ == "__main__":
    sys.exit(main())
