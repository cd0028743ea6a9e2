"""Whether a result can be written, asked before the work that makes it."""

import errno
import os
from contextlib import suppress
from pathlib import Path


def check_writable(path: Path) -> None:
    """Refuse a file that cannot be written, by trying. What is made for that is removed again.

    Raises:
        OSError: as writing it would.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists():
        path.open("ab").close()
        return
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        if made:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.open("xb").close()
        path.unlink()
    finally:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
