"""First embeddings that mean something: codes that say nearly the same start near each other, and so do hours.

A hundred codes and a week of hours are many for a year of bars. From noise, what was learned of one code says nothing
about its neighbour, and a small data set is memorised before it is understood.
"""

import numpy as np
import numpy.typing as npt
import torch

from models.fingpt import HOURS, FinGPT
from tokenizer.codec import Codec

Floats = npt.NDArray[np.float64]

# Roots of the mean square. Tokens say more than hours; both are large against a step of the optimiser, which moves
# single embeddings slowly then.
_TOKEN_SIZE, _HOUR_SIZE = 1.0, 0.5
_WEEK_SHARE = 0.5  # of the place in the week, against that in the day


def start_embeddings(model: FinGPT, codec: Codec, seed: int) -> None:
    """Set the embeddings of codes, and of hours where the model has them, from what they mean.

    Source: Rahimi & Recht, "Random features for large-scale kernel machines", NIPS 2007: the product of two embeddings
    is close to a Gaussian of the distance between what they mean.
    """
    rng = np.random.default_rng([seed, codec.codes])
    said = np.arcsinh(codec.code_moves)  # (V, F)
    said = (said - said.mean(axis=0)) / np.maximum(said.std(axis=0), 1e-6)
    width = model.config.width
    with torch.no_grad():
        model.embedding.weight.copy_(torch.from_numpy(_TOKEN_SIZE * _features(said, width, rng)))
        if model.hour_embedding is not None:
            model.hour_embedding.weight.copy_(torch.from_numpy(_HOUR_SIZE * _features(_clock(), width, rng)))


def _clock() -> Floats:
    """Where each hour of the week is on the circles of the day and of the week. (168, 4)"""
    day, week = 2.0 * np.pi * np.arange(HOURS) / 24.0, 2.0 * np.pi * np.arange(HOURS) / HOURS
    circles = [np.cos(day), np.sin(day), _WEEK_SHARE * np.cos(week), _WEEK_SHARE * np.sin(week)]
    return 2.0 * np.stack(circles, axis=1)


def _features(x: Floats, width: int, rng: np.random.Generator) -> Floats:
    """Random Fourier features of rows (N, F), (N, width), whose mean square is about one."""
    return np.sqrt(2.0) * np.cos(x @ rng.standard_normal((x.shape[1], width)) + rng.uniform(0.0, 2.0 * np.pi, width))
