"""Optimisers and their schedule. The learning rate follows from the step alone, so there is nothing to restore."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from trainer.config import OptimConfig


def schedule(step: int, steps: int, config: OptimConfig) -> float:
    """The learning rate of an update as a share of its peak: a linear warm-up, then half a cosine down to the floor.

    Args:
        step: of the update, from 1.
        steps: of the whole run.

    Source: Loshchilov & Hutter, arXiv:1608.03983, eq. 5, without restarts.
    """
    if step <= config.warmup_steps:
        return step / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.lr_floor + (1.0 - config.lr_floor) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))


class Optimizers:
    """AdamW for all, or Muon for the matrices inside blocks and AdamW for embeddings, head and vectors.

    Source: Loshchilov & Hutter, arXiv:1711.05101 (AdamW); Jordan et al., "Muon", 2024, and Liu et al.,
    arXiv:2502.16982 (its scale, which makes an update as large as AdamW's).
    """

    def __init__(self, model: nn.Module, config: OptimConfig) -> None:
        self._config = config
        self._names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        inner = {p for name, p in model.named_parameters() if p.ndim == 2 and name.startswith("blocks.")}
        muon = inner if config.optimizer == "muon" else set()
        rest = [p for p in model.parameters() if p not in muon]
        self.all: list[torch.optim.Optimizer] = [_adamw(rest, config)]
        self._peaks = [config.lr]
        if muon:
            ordered = [p for p in model.parameters() if p in muon]
            self.all.append(
                torch.optim.Muon(
                    ordered, lr=config.muon_lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
                )
            )
            self._peaks.append(config.muon_lr)

    def set_rate(self, share: float) -> float:
        """Set every learning rate to a share of its peak; returns AdamW's."""
        for optimizer, peak in zip(self.all, self._peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * share
        return self._config.lr * share

    def zero_grad(self) -> None:
        for optimizer in self.all:
            optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """The state of every parameter, `<parameter>.<key>`; the schedule needs none."""
        found: dict[str, Tensor] = {}
        for optimizer in self.all:
            for parameter, state in optimizer.state.items():
                name = self._names[parameter]
                found |= {f"{name}.{key}": torch.as_tensor(value) for key, value in state.items()}
        return found

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Undo `tensors`. A parameter without state has not been updated yet."""
        for optimizer in self.all:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    start = f"{self._names[parameter]}."
                    state = {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
                    if state:  # AdamW counts its steps on the processor, wherever the weights are
                        optimizer.state[parameter] = {
                            key: value.clone() if key == "step" else value.to(parameter.device, copy=True)
                            for key, value in state.items()
                        }


def _adamw(parameters: Iterable[Tensor], config: OptimConfig) -> torch.optim.AdamW:
    listed = list(parameters)
    groups = [
        {"params": [p for p in listed if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in listed if p.ndim < 2], "weight_decay": 0.0},
    ]
    # One tensor after the other: the same bits whatever else torch may choose to fuse.
    return torch.optim.AdamW(
        [g for g in groups if g["params"]], lr=config.lr, betas=(config.beta1, config.beta2), foreach=False
    )
