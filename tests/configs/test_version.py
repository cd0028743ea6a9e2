"""A run names the code that it has loaded, whatever is committed while it goes on."""

import subprocess
import sys
from pathlib import Path

import pytest

from configs import version

ASK = "from configs.version import code_version\nprint(code_version())\n"
CHANGE = "import pathlib\npathlib.Path('.gitignore').write_text('')\n"


def git(folder: Path, *words: str) -> str:
    person = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    run = subprocess.run(["git", "-C", str(folder), *person, *words], capture_output=True, text=True, check=True)
    return run.stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with this one module in it."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "version.py").write_bytes(Path(version.__file__).read_bytes())
    (tmp_path / ".gitignore").write_text("__pycache__\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def ask(tree: Path, script: str = ASK) -> list[str]:
    return subprocess.run(
        [sys.executable, "-c", script], cwd=tree, capture_output=True, text=True, check=True
    ).stdout.split()


def test_it_is_the_commit_with_a_plus_where_the_tree_was_changed(tree: Path) -> None:
    commit = git(tree, "rev-parse", "--short", "HEAD")
    assert ask(tree)[0] == commit
    (tree / ".gitignore").write_text("")
    assert ask(tree)[0] == f"{commit}+"


def test_a_process_keeps_the_version_that_it_first_named(tree: Path) -> None:
    first, again = ask(tree, ASK + CHANGE + ASK)
    assert again == first
    assert ask(tree)[0] == f"{first}+"  # another process sees the change
