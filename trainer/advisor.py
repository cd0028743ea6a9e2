"""`python -m trainer advisor CONFIG`: a head on labelled headlines, from a file to a checkpoint."""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from configs.flags import registry
from configs.load import ConfigError, load
from configs.outputs import check_writable
from models.advisor.weights import HeadConfig, Reading
from models.checkpoint import MANIFEST
from trainer import shipped
from trainer.advisor_checkpoint import write_head
from trainer.advisor_config import AdvisorTrainConfig
from trainer.advisor_data import Labelled, load_labelled, load_sentences, parted
from trainer.advisor_figures import accuracy, figures, lines_of, macro_f1
from trainer.advisor_fit import (
    Calibration,
    Design,
    Floats,
    Ints,
    calibration,
    chances,
    fit,
    log_loss,
    ngram_matrix,
    out_of_fold,
)
from trainer.advisor_fit import threshold as threshold_of
from trainer.advisor_parts import Readings
from trainer.logs import progress

PROGRAM = "python -m trainer advisor"

# tyro does not wrap it: one line a paragraph, none longer than a terminal is wide.
_DESCRIPTION = """\
Fit an advisor's head on labelled headlines; every key of the config is a flag, flags win.

Rows that are alike stay together. Strength, layer and threshold are chosen by cross-validation;
a part of the rows is held out, and nothing is chosen on it. Of kind tune the language model
itself is trained, and one fold says when to stop.

Exit codes: 0 done, 1 the result is not that of the shipped checkpoint,
2 bad usage, config or data, 130 interrupted.
"""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What the user typed, over the config file."""

    resume: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help_behavior_hint="")] = False
    """of kind tune: go on from the state that a killed run left, or begin where there is none"""
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
    calibration: Calibration = field(default_factory=Calibration)


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
    if os.environ.get("RANK", "0") == "0":  # of the processes of a tuning, one tries and writes
        shipped.refuse_occupied(out)
        check_writable(out / MANIFEST)
        shipped.check_shipped(config.shipped, replacing=arguments.update)
    rows = load_labelled(config.data, config.alike)
    if config.kind == "tune":
        from trainer.advisor_tune import tune  # here: it brings torch

        lines = tune(config, rows, out, resume=arguments.resume, quiet=arguments.quiet)
        if not lines:
            return 0  # another process than the first
    else:
        lines = train(config, rows, out, quiet=arguments.quiet)
    if not arguments.quiet:
        print("\n".join(lines), flush=True)
    return shipped.beside(out, config.shipped, replacing=arguments.update)


def train(config: AdvisorTrainConfig, rows: Labelled, out: Path, *, quiet: bool) -> list[str]:
    """Choose, fit, calibrate, judge, and write the checkpoint; returns lines for a person."""
    fold, test = parted(rows.groups, config.test_fraction, config.folds, config.seed)
    kept = np.flatnonzero(fold >= 0)
    elsewhere = load_sentences(config.elsewhere, config.alike) if config.elsewhere else None
    ngrams = ngram_matrix(rows.texts, config.ngrams)
    readings = _readings(config, rows.texts, [int(layer) for layer in config.reading.layers], quiet=quiet)
    best, logits, tried = _choose(config, ngrams, readings, rows, kept, fold, quiet=quiet)
    threshold = threshold_of(
        chances(best.calibration.of(logits)), rows.labels[kept], config.precision, config.emitted_min
    )
    design = _design(ngrams, readings, best.layer)
    head = fit(design.at(kept), rows.labels[kept], best.strength, share=best.share, steps=config.steps)
    head = head.calibrated(best.calibration)
    found = figures(chances(head.logits(design.at(test))), rows.at(test), threshold, config.seed, "test")
    if elsewhere:
        there = _readings(config, elsewhere.texts, [best.layer] if best.layer else [], quiet=quiet)
        other = _design(ngram_matrix(elsewhere.texts, config.ngrams), there, best.layer)
        found |= figures(chances(head.logits(other)), elsewhere, threshold, config.seed, "elsewhere")
    found |= _chosen_on(best.calibration.of(logits), rows.labels[kept])
    reading = None
    if best.layer is not None:
        reading = Reading(model=readings.name, digest=readings.digest, layer=best.layer, share=best.share)
    made = HeadConfig(advisor=config.kind, threshold=threshold, ngrams=config.ngrams, reading=reading)
    digest = write_head(out, config, made, head, rows.at(kept), found, tried)
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
            by = calibration(logits, labels, offsets=config.offsets)
            loss = log_loss(by.of(logits), labels)
            if best is None or loss < best.loss:
                best = Trial(strength=strength, loss=loss, layer=layer, share=share, calibration=by)
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


def _lines(best: Trial, threshold: float, kept: int, test: int, found: dict[str, dict[str, Any]]) -> list[str]:
    of = "" if best.layer is None else f", layer {best.layer}, share {best.share:g}"
    lines = [
        (
            f"{kept} rows to train, {test} held out; strength {best.strength:g}{of}, "
            f"temperature {best.calibration.temperature:.2f}, threshold {threshold:.3f}"
        )
    ]
    return [*lines, *lines_of(found)]


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
    if arguments.resume and arguments.config.kind != "tune":
        raise ConfigError(f"--resume is of kind tune: a head is fitted whole, was kind {arguments.config.kind}")
    if arguments.config.shipped and arguments.config.kind == "tune":
        raise ConfigError("want no shipped checkpoint for kind tune: its weights are too large to ship")
    return arguments
