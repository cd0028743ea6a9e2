"""Which code ran."""

import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path


@cache
def code_version() -> str:
    """The commit of the code, with `+` where the tree was changed; the package's version where there is no git.

    As it was when the process first asked: a commit that lands later does not change the code that is loaded.
    """
    root = Path(__file__).parent.parent
    try:
        run = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return version("ticktorch")
    return run.stdout.strip()
