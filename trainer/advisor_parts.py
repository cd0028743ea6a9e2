"""What the parts of an advisor's training hand to each other."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """Of a language model, by layer, (N, D) each; without layers where a head has none."""

    name: str
    digest: str
    layers: dict[int, npt.NDArray[np.float64]]
