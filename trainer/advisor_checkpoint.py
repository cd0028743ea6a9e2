"""A head as a checkpoint: what it is, what it has seen, and how good it was."""

from pathlib import Path
from typing import Any

import numpy as np

from configs.load import plain
from configs.version import code_version
from models.advisor.weights import KIND, HeadConfig
from models.checkpoint import Training, write
from trainer.advisor_config import AdvisorTrainConfig
from trainer.advisor_data import Labelled
from trainer.advisor_fit import Fitted

_BAR_S = 1.0  # headlines have no bars; the format wants a positive number


def write_head(
    out: Path,
    config: AdvisorTrainConfig,
    made: HeadConfig,
    head: Fitted,
    rows: Labelled,
    metrics: dict[str, dict[str, Any]],
    tried: int,
) -> str:
    """Write the checkpoint; returns its digest.

    Args:
        rows: that fitted it, or that something was chosen on.
        tried: settings that this run chose among.

    Raises:
        CheckpointError: it cannot be written.
    """
    training = Training(
        start=None,  # the rows bear no date
        end=config.end,
        symbols=(),
        bar_s=_BAR_S,
        embargo_bars=0,
        data_sha256=rows.digest(),
        licence=config.licence,
        trials=config.tried_before + tried,
        seed=config.seed,
    )
    return write(
        out,
        kind=KIND,
        config=plain(made),
        codec=None,
        training=training,
        metrics=metrics,
        tensors=_tensors(head),
        code=code_version(),
    )


def _tensors(head: Fitted) -> dict[str, Any]:
    found = {"model.ngrams": head.ngrams.astype(np.float16), "model.bias": head.bias.astype(np.float32)}
    for name in ("dense", "mean", "scale"):
        if (value := getattr(head, name)) is not None:
            found[f"model.{name}"] = value.astype(np.float32)
    return found
