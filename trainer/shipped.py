"""Is a result that of the shipped checkpoint? And can it be compared with it, or replace it, before the work begins?"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from configs.load import ConfigError
from configs.outputs import check_writable
from models.checkpoint import MANIFEST, WEIGHTS, read_manifest, read_tensors, write


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What two trainings of the same kind on the same data are compared by, where their weights differ."""

    name: str  # in the manifest
    words: str
    apart_max: float  # what other processors and versions may round to
    data: str


FIGURES = {
    "fingpt": Figure(name="test_bits", words="test bits", apart_max=0.02, data="bars"),
    "advisor": Figure(name="test_macro_f1", words="test macro-F1", apart_max=0.005, data="headlines"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Whether two checkpoints are the same, or as good as the same."""

    same: bool
    line: str


def refuse_occupied(out: Path) -> None:
    """Refuse a place where no checkpoint could be written: now, not after hours of training.

    Raises:
        ConfigError: something else than a checkpoint is there.
    """
    if not os.path.lexists(out):
        return
    folder = out.is_dir() and not out.is_symlink()
    if not folder or {path.name for path in out.iterdir()} - {MANIFEST, WEIGHTS}:
        raise ConfigError(f"{out} is no checkpoint, and is not replaced by one: want another --out")


def check_shipped(shipped: str, *, replacing: bool) -> None:
    """Refuse a shipped checkpoint that the result could not be compared with, or could not replace.

    Args:
        shipped: its folder; "": there is none, and nothing to refuse.
        replacing: the result is to take its place, so that it may be broken or missing.

    Raises:
        ConfigError: it is missing, or something else is in its place.
        CheckpointError: it is broken.
        OSError: its place cannot be written.
    """
    if not shipped:
        return
    home = Path(shipped)
    if replacing:
        refuse_occupied(home)
        check_writable(home / MANIFEST)
    elif not os.path.lexists(home):
        raise ConfigError(f"want a checkpoint to compare with, {home} does not exist: --update makes it")
    else:
        read_tensors(home, read_manifest(home))


def beside(result: Path, shipped: str, *, replacing: bool) -> int:
    """Compare a result with the shipped checkpoint, or put it in its place, and say so; returns the exit code.

    Raises:
        CheckpointError: one of them cannot be used.
    """
    if not shipped:
        return 0
    home = Path(shipped)
    if replacing:
        print(f"{home} is now {update(result, home)}")
        return 0
    found = compare(result, home)
    print(found.line)
    return 0 if found.same else 1


def compare(result: Path, shipped: Path) -> Comparison:
    """The same weights, or figures on the test part that differ by no more than rounding may make them.

    Which code trained them is not compared: a commit that changes nothing in the result is no difference.

    Raises:
        CheckpointError: one of them cannot be used.
    """
    ours, theirs = read_manifest(result), read_manifest(shipped)
    if replace(ours, code=theirs.code, digest=theirs.digest) == theirs:
        by = "" if ours.code == theirs.code else f" but for the code that trained it, {ours.code} and {theirs.code}"
        return Comparison(same=True, line=f"identical to {shipped}{by}: {theirs.digest}")
    if ours.weights_sha256 == theirs.weights_sha256:
        return Comparison(same=True, line=f"the weights of {shipped}, bit by bit; the manifests differ")
    if ours.kind != theirs.kind or ours.kind not in FIGURES:
        return Comparison(same=False, line=f"{ours.kind}, and other weights than {shipped}, which is {theirs.kind}")
    figure = FIGURES[ours.kind]
    if not (figure.name in ours.metrics and figure.name in theirs.metrics):
        return Comparison(same=False, line=f"other weights than {shipped}, and {figure.words} are not on both sides")
    mine, its = (float(manifest.metrics[figure.name]["value"]) for manifest in (ours, theirs))
    apart = abs(mine - its)
    said = f"{figure.words} {mine:.4f} against {its:.4f}, {apart:.4f} apart, at most {figure.apart_max} expected"
    if ours.training.data_sha256 != theirs.training.data_sha256:
        return Comparison(same=False, line=f"trained on other {figure.data} than {shipped}; {said}")
    return Comparison(same=apart <= figure.apart_max, line=f"other weights than {shipped}; {said}")


def update(result: Path, shipped: Path) -> str:
    """Put the result in the place of the shipped checkpoint; returns its digest."""
    manifest = read_manifest(result)
    return write(
        shipped,
        kind=manifest.kind,
        config=manifest.config,
        codec=manifest.codec,
        training=manifest.training,
        metrics=manifest.metrics,
        tensors=read_tensors(result, manifest),
        code=manifest.code,
    )
