"""The processes that train together, as torchrun starts them; one where it does not."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from configs.load import ConfigError
from trainer.config import LoopConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """This process among all."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def total(self, values: list[float]) -> list[float]:
        """The sum over all processes of each value, in double precision."""
        if self.size == 1:
            return values
        summed = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(summed)
        return [float(value) for value in summed.tolist()]

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def world(config: LoopConfig) -> Iterator[World]:
    """Join the processes that torchrun started, and leave them at the end.

    Raises:
        ConfigError: the device is not there, or the batch cannot be shared out evenly.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available() if config.device == "auto" else config.device == "cuda"
    if cuda and not torch.cuda.is_available():
        raise ConfigError("loop.device is cuda, and torch sees no such device; want cpu or auto")
    if config.batch % (size * config.accumulate):
        raise ConfigError(
            f"loop.batch must be a multiple of processes times accumulate ({size} x {config.accumulate}),"
            f" was {config.batch}"
        )
    if config.threads:
        torch.set_num_threads(config.threads)
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if size == 1:
        yield World(rank=0, size=1, device=device)
        return
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield World(rank=rank, size=size, device=device)
    finally:
        dist.destroy_process_group()
