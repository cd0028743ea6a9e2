"""`python -m trainer advisor CONFIG`: a head on labelled headlines, from a file to a checkpoint."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from configs.flags import registry
from configs.load import ConfigError, load, plain
from configs.version import code_version
from models.advisor.weights import KIND, HeadConfig, Reading
from models.checkpoint import Training, read_manifest, write
from models.manifest import Manifest
from trainer import shipped
from trainer.advisor_config import AdvisorTrainConfig
from trainer.advisor_data import Labelled, load_labelled, load_sentences, parted
from trainer.advisor_figures import accuracy, figures, macro_f1
from trainer.advisor_fit import Design, Fitted, Floats, Ints, chances, fit, log_loss, ngram_matrix, out_of_fold
from trainer.advisor_fit import temperature as temperature_of
from trainer.advisor_fit import threshold as threshold_of
from trainer.advisor_parts import Readings
from trainer.logs import progress

PROGRAM = "python -m trainer advisor"

_BAR_S = 1.0  # headlines have no bars; the format wants a positive number
# tyro does not wrap it: one line a paragraph, none longer than a terminal is wide.
_DESCRIPTION = """\
Fit an advisor's head on labelled headlines; every key of the config is a flag, flags win.

Rows that are alike stay together. Strength, layer and threshold are chosen by cross-validation;
a part of the rows is held out, and nothing is chosen on it.

Exit codes: 0 done, 1 the result is not that of the shipped checkpoint,
2 bad usage, config or data, 130 interrupted.
"""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What the user typed, over the config file."""

    update: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help_behavior_hint="")] = False
    """replace the shipped checkpoint by the result"""
    quiet: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help_behavior_hint="")] = False
    """no progress and no table"""
    config: Annotated[AdvisorTrainConfig, tyro.conf.arg(name="")] = field(default_factory=AdvisorTrainConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One of the ways that were tried, and its loss on rows that it did not see."""

    strength: float
    loss: float  # nats a row, after calibration
    layer: int | None = None
    share: float = 1.0
    temperature: float = 1.0


def run(argv: Sequence[str]) -> int:
    """Train a head; returns the exit code.

    Args:
        argv: what stands behind `advisor`.

    Raises:
        ConfigError, DataError, AdvisorError, CheckpointError: what a user can get wrong, in a sentence.
        SystemExit: on --help, with 0; on a wrong flag, with 2.
    """
    arguments = _parse(argv)
    config, out = arguments.config, Path(arguments.config.folder)
    if not config.data:
        raise ConfigError("data must name a file of labelled headlines, was ''")
    rows = load_labelled(config.data, config.alike)
    lines = train(config, rows, out, quiet=arguments.quiet)
    if not arguments.quiet:
        print("\n".join(lines), flush=True)
    if not config.shipped:
        return 0
    home = Path(config.shipped)
    if arguments.update:
        print(f"{home} is now {shipped.update(out, home)}")
        return 0
    same = home.exists() and _same(read_manifest(out), read_manifest(home))
    print(f"{'the same as' if same else 'not the same as'} {home}")
    return 0 if same else 1


def train(config: AdvisorTrainConfig, rows: Labelled, out: Path, *, quiet: bool) -> list[str]:
    """Choose, fit, calibrate, judge, and write the checkpoint; returns lines for a person."""
    fold, test = parted(rows.groups, config.test_fraction, config.folds, config.seed)
    kept = np.flatnonzero(fold >= 0)
    elsewhere = load_sentences(config.elsewhere, config.alike) if config.elsewhere else None
    ngrams = ngram_matrix(rows.texts, config.ngrams)
    readings = _readings(config, rows.texts, [int(layer) for layer in config.reading.layers], quiet=quiet)
    best, logits, tried = _choose(config, ngrams, readings, rows, kept, fold, quiet=quiet)
    threshold = threshold_of(
        chances(logits / best.temperature), rows.labels[kept], config.precision, config.emitted_min
    )
    design = _design(ngrams, readings, best.layer)
    head = fit(design.at(kept), rows.labels[kept], best.strength, share=best.share, steps=config.steps)
    head = head.cooled(best.temperature)
    found = figures(chances(head.logits(design.at(test))), rows.at(test), threshold, config.seed, "test")
    if elsewhere:
        there = _readings(config, elsewhere.texts, [best.layer] if best.layer else [], quiet=quiet)
        other = _design(ngram_matrix(elsewhere.texts, config.ngrams), there, best.layer)
        found |= figures(chances(head.logits(other)), elsewhere, threshold, config.seed, "elsewhere")
    found |= _chosen_on(logits / best.temperature, rows.labels[kept])
    reading = None
    if best.layer is not None:
        reading = Reading(model=readings.name, digest=readings.digest, layer=best.layer, share=best.share)
    made = HeadConfig(advisor=config.kind, threshold=threshold, ngrams=config.ngrams, reading=reading)
    digest = write(
        out,
        kind=KIND,
        config=plain(made),
        codec=None,
        training=_seen(config, rows.at(kept), tried),
        metrics=found,
        tensors=_tensors(head),
        code=code_version(),
    )
    return [*_lines(best, threshold, len(kept), len(test), found), f"checkpoint: {out} ({digest[:12]})"]


def _design(ngrams: Any, readings: Readings, layer: int | None) -> Design:
    return Design(ngrams, None if layer is None else readings.layers[layer])


def _readings(config: AdvisorTrainConfig, texts: list[str], layers: list[int], *, quiet: bool) -> Readings:
    if config.kind == "head":
        return Readings("", "", {})
    from trainer.advisor_readings import read_all  # here: it brings torch

    return read_all(config, texts, layers, quiet=quiet)


def _choose(
    config: AdvisorTrainConfig, ngrams: Any, readings: Readings, rows: Labelled, kept: Ints, fold: Ints, *, quiet: bool
) -> tuple[Trial, Floats, int]:
    """The trial of the least loss on unseen rows, its logits (N, 3) there, and how many there were."""
    strengths = np.geomspace(config.strength_min, config.strength_max, config.strengths).tolist()
    grid: list[tuple[int | None, float, float]] = [(None, 1.0, strength) for strength in strengths]
    if config.kind == "gpt":
        shares = [float(share) for share in config.reading.shares]
        grid = [(layer, share, one) for layer in readings.layers for share in shares for one in strengths]
    labels, folds = rows.labels[kept], fold[kept]
    best: Trial | None = None
    kept_logits = np.empty((len(kept), 3))
    with progress("advisor", len(grid) * config.folds, quiet=quiet) as told:
        for number, (layer, share, strength) in enumerate(grid):
            design = _design(ngrams, readings, layer).at(kept)
            logits = np.empty((len(kept), 3))
            done = number * config.folds
            for held, part in out_of_fold(design, labels, folds, strength, share=share, steps=config.steps):
                logits[held] = part
                done += 1
                told(done, "" if best is None else f"loss {best.loss:.4f}")
            heat = temperature_of(logits, labels)
            loss = log_loss(logits / heat, labels)
            if best is None or loss < best.loss:
                best = Trial(strength=strength, loss=loss, layer=layer, share=share, temperature=heat)
                kept_logits = logits
    if best is None:
        raise ConfigError("want at least one layer, share and strength to try, was none")
    return best, kept_logits, len(grid)


def _chosen_on(logits: Floats, labels: Ints) -> dict[str, dict[str, Any]]:
    flat = np.tile([0.0, 1.0, 0.0], (len(labels), 1))
    return {
        f"folds_{name}": {"value": judge(logits, labels), "baselines": {"always_hold": judge(flat, labels)}}
        for name, judge in (("accuracy", accuracy), ("macro_f1", macro_f1))
    }


def _seen(config: AdvisorTrainConfig, rows: Labelled, tried: int) -> Training:
    return Training(
        start=None,  # the rows bear no date
        end=None,
        symbols=(),
        bar_s=_BAR_S,
        embargo_bars=0,
        data_sha256=rows.digest(),
        licence=config.licence,
        trials=tried,
        seed=config.seed,
    )


def _tensors(head: Fitted) -> dict[str, Any]:
    found = {"model.ngrams": head.ngrams.astype(np.float16), "model.bias": head.bias.astype(np.float32)}
    for name in ("dense", "mean", "scale"):
        if (value := getattr(head, name)) is not None:
            found[f"model.{name}"] = value.astype(np.float32)
    return found


def _lines(best: Trial, threshold: float, kept: int, test: int, found: dict[str, dict[str, Any]]) -> list[str]:
    of = "" if best.layer is None else f", layer {best.layer}, share {best.share:g}"
    lines = [
        (
            f"{kept} rows to train, {test} held out; strength {best.strength:g}{of}, "
            f"temperature {best.temperature:.2f}, threshold {threshold:.3f}"
        )
    ]
    for name, figure in found.items():
        if "interval_95" in figure:
            low, high = figure["interval_95"]
            beside = ", ".join(f"{key} {value:.3f}" for key, value in figure["baselines"].items())
            lines.append(f"{name:36} {figure['value']:.3f} [{low:.3f}, {high:.3f}]  ({beside})")
    return lines


def _same(ours: Manifest, theirs: Manifest) -> bool:
    """The same weights; or as good as the same, where another processor rounds otherwise."""
    if ours.weights_sha256 == theirs.weights_sha256:
        return True
    one, other = (float(manifest.metrics["test_macro_f1"]["value"]) for manifest in (ours, theirs))
    return replace(ours.training, trials=1) == replace(theirs.training, trials=1) and abs(one - other) <= 0.005


def _parse(argv: Sequence[str]) -> Arguments:
    first = argparse.ArgumentParser(prog=PROGRAM, add_help=False, usage=f"{PROGRAM} CONFIG [flags]")
    first.add_argument("file", type=Path, metavar="CONFIG")
    if not argv:
        print(f"usage: {PROGRAM} CONFIG [flags]", file=sys.stderr)
        raise SystemExit(2)
    if list(argv) in (["-h"], ["--help"]):
        base, flags = AdvisorTrainConfig(), ["--help"]
    else:
        base, flags = load(AdvisorTrainConfig, first.parse_args(argv[:1]).file), list(argv[1:])
    try:
        arguments = tyro.cli(
            Arguments,
            args=flags,
            default=Arguments(config=base),
            prog=f"{PROGRAM} CONFIG",
            description=_DESCRIPTION,
            registry=registry(),
        )
    except ValueError as exc:
        raise ConfigError(str(exc)) from None
    if arguments.update and not arguments.config.shipped:
        raise ConfigError("--update replaces the shipped checkpoint, and the config names none")
    return arguments
