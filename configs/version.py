"""Which code ran."""

import subprocess
from importlib.metadata import version
from pathlib import Path


def code_version() -> str:
    """The commit of the code, with `+` where the tree was changed; the package's version where there is no git."""
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
