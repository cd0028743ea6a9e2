"""The tokenizer while it is being fitted: encoder, quantiser and decoder as torch modules.

A fitted one runs without torch, in `tokenizer.codec`.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own habit

_REVIVE_EVERY = 20  # steps; a code gets that long to find its place
_KMEANS_ROUNDS = 10
_ROWS = 16_384  # of a distance table at once


@dataclass(frozen=True, slots=True)
class Quantised:
    """What a quantiser makes of a batch."""

    z: Tensor  # (N, D) what the decoder sees; gradients pass straight through to the encoder
    codes: Tensor  # (N, L) int64
    loss: Tensor  # () commitment


class Quantiser(Protocol):
    """Latent vectors to codes, with a gradient."""

    def __call__(self, z: Tensor, levels: int) -> Quantised: ...

    def prepare(self, z: Tensor, generator: torch.Generator) -> None:
        """Once before the first step: look at the latent vectors of a sample, (N, D)."""
        ...

    def follow(self, z: Tensor, codes: Tensor, generator: torch.Generator) -> int:
        """After a step: learn from its latent vectors and codes what gradients do not teach; codes revived."""
        ...


class Autoencoder(nn.Module):
    """Encoder and decoder of one hidden layer each, around a quantiser.

    Args:
        features: numbers of a row, F.
        hidden: width.
        latent: numbers between the two, D.
        quantiser: a module.
    """

    def __init__(self, features: int, hidden: int, latent: int, quantiser: Quantiser) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, latent))
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, features))
        self.quantiser = quantiser

    def forward(self, x: Tensor, levels: int) -> tuple[Tensor, Tensor, Quantised]:
        """(N, F) -> the rows told by the first `levels` codes (N, F), latent vectors (N, D), and their codes."""
        z = self.encoder(x)  # (N, D)
        quantised = self.quantiser(z, levels)
        return self.decoder(quantised.z), z.detach(), quantised


class VectorQuantiser(nn.Module):
    """Codebooks that follow the latent vectors they stand for, level after level on what is left.

    A code is the running mean of the vectors that chose it, not a thing of gradients, under which codes easily fall
    out of use. k-means on the first vectors puts them where the data is, and one that is hardly used moves to a vector
    that is told badly.

    Args:
        codes: K, of each level.
        dim: D.
        levels: L.
        commitment: weight of the loss that draws the encoder to its code.
        decay: of the running means, a step.
        revive_below: share of the mean use under which a code is moved.

    Source: van den Oord et al., arXiv:1711.00937, section 3.2 and appendix A.1 (running means, commitment); Dhariwal et
    al., arXiv:2005.00341 (random restarts); Zeghidour et al., arXiv:2107.03312, section III-C (k-means, levels).
    """

    books: Tensor
    sums: Tensor
    counts: Tensor

    def __init__(
        self, *, codes: int, dim: int, levels: int, commitment: float, decay: float, revive_below: float
    ) -> None:
        super().__init__()
        self.commitment, self.decay, self.revive_below = commitment, decay, revive_below
        self.steps = 0
        self.register_buffer("books", torch.zeros(levels, codes, dim))
        self.register_buffer("sums", torch.zeros(levels, codes, dim))
        self.register_buffer("counts", torch.ones(levels, codes))

    def forward(self, z: Tensor, levels: int) -> Quantised:
        """(N, D) -> the sum of the nearest rows of the first `levels` books; codes of all levels."""
        left = z.detach()  # (N, D)
        told, chosen = torch.zeros_like(left), []
        partial = told
        for level, book in enumerate(self.books):
            nearest = nearest_rows(left, book)  # (N,)
            chosen.append(nearest)
            told = told + book[nearest]
            left = left - book[nearest]
            if level < levels:
                partial = told
        loss = self.commitment * F.mse_loss(z, partial)
        return Quantised(z + (partial - z).detach(), torch.stack(chosen, dim=1), loss)

    @torch.no_grad()
    def prepare(self, z: Tensor, generator: torch.Generator) -> None:
        """k-means on a sample, (N, D), level after level; N >= K."""
        left = z
        for level in range(len(self.books)):
            book = _kmeans(left, self.books.shape[1], generator)
            nearest = nearest_rows(left, book)
            self.books[level] = book
            self.counts[level] = torch.bincount(nearest, minlength=len(book)) / len(z) * len(book)
            self.sums[level] = book * self.counts[level][:, None]
            left = left - book[nearest]

    @torch.no_grad()
    def follow(self, z: Tensor, codes: Tensor, generator: torch.Generator) -> int:
        """Move the books towards the vectors that chose them; counts are in units of the mean use."""
        self.steps += 1
        left, revived = z, 0
        for level, book in enumerate(self.books):
            nearest = codes[:, level]  # (N,)
            used = torch.bincount(nearest, minlength=len(book)) * (len(book) / len(z))  # (K,)
            total = torch.zeros_like(book).index_add_(0, nearest, left) * (len(book) / len(z))  # (K, D)
            before = book.clone()
            self.counts[level].lerp_(used.to(book.dtype), 1.0 - self.decay)
            self.sums[level].lerp_(total, 1.0 - self.decay)
            seen = self.counts[level] > 1e-6  # (K,) a code out of use stays where it is
            self.books[level][seen] = self.sums[level][seen] / self.counts[level][seen][:, None]
            if self.steps % _REVIVE_EVERY == 0:
                revived += self._revive(level, left, before[nearest], generator)
            left = left - before[nearest]
        return revived

    def _revive(self, level: int, left: Tensor, told: Tensor, generator: torch.Generator) -> int:
        """Put codes out of use on vectors of the batch, those told badly more likely."""
        dead = torch.nonzero(self.counts[level] < self.revive_below)[:, 0]  # (R,)
        error = (left - told).square().sum(dim=1)  # (N,)
        count = min(len(dead), int((error > 0.0).sum()))
        if count == 0:
            return 0
        dead = dead[:count]
        rows = torch.multinomial(error, count, replacement=False, generator=generator)
        self.books[level][dead] = left[rows]
        self.counts[level][dead] = start = max(self.revive_below, 0.1)  # else it is dead again before it was ever used
        self.sums[level][dead] = left[rows] * start
        return count


def nearest_rows(x: Tensor, book: Tensor) -> Tensor:
    """The nearest row of `book` (K, D) for each row of `x` (N, D), squared Euclidean; ties to the lower. (N,) int64"""
    half = 0.5 * book.square().sum(dim=1)  # (K,)
    return torch.cat([(half - part @ book.T).argmin(dim=1) for part in torch.split(x, _ROWS)])


def _kmeans(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Centres of `count` clusters of (N, D). An empty one is put on the row that is farthest from its centre."""
    book = x[torch.randperm(len(x), generator=generator)[:count]].clone()  # (K, D)
    for _ in range(_KMEANS_ROUNDS):
        nearest = nearest_rows(x, book)  # (N,)
        used = torch.bincount(nearest, minlength=count)  # (K,)
        total = torch.zeros_like(book).index_add_(0, nearest, x)  # (K, D)
        error = (x - book[nearest]).square().sum(dim=1)  # (N,)
        book = total / used.clamp(min=1)[:, None]
        empty = torch.nonzero(used == 0)[:, 0]
        book[empty] = x[error.topk(len(empty)).indices]
    return book
