"""Is a result that of the shipped checkpoint?"""

from dataclasses import dataclass, replace
from pathlib import Path

from models.checkpoint import read_manifest, read_tensors, write

BITS_APART_MAX = 0.02  # of test bits: what other processors and versions may round to


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Whether two checkpoints are the same, or as good as the same."""

    same: bool
    line: str


def compare(result: Path, shipped: Path) -> Comparison:
    """The same weights, or test bits that differ by no more than rounding may make them.

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
    if not ("test_bits" in ours.metrics and "test_bits" in theirs.metrics):
        return Comparison(same=False, line=f"other weights than {shipped}, and test bits are not on both sides")
    mine, its = (float(manifest.metrics["test_bits"]["value"]) for manifest in (ours, theirs))
    apart = abs(mine - its)
    said = f"{mine:.4f} against {its:.4f}, {apart:.4f} apart, at most {BITS_APART_MAX} expected"
    if ours.training.data_sha256 != theirs.training.data_sha256:
        return Comparison(same=False, line=f"trained on other bars than {shipped}; test bits {said}")
    return Comparison(same=apart <= BITS_APART_MAX, line=f"other weights than {shipped}; test bits {said}")


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
