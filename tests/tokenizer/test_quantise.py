import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenizer.fsq import FiniteScalarQuantiser
from tokenizer.quantise import GridRounding, Network, VectorRounding, parse_grid, perplexity
from tokenizer.vqvae import Autoencoder, VectorQuantiser, nearest_rows


def one_by_one(rounding: VectorRounding | GridRounding, z: np.ndarray) -> np.ndarray:
    return np.array([rounding.one(row.copy()) for row in z]).reshape(len(z), rounding.levels)


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 3), st.integers(1, 6))
@settings(max_examples=100, deadline=None)
def test_vector_rounding_finds_the_nearest_row_of_each_level(seed: int, codes: int, levels: int, dim: int) -> None:
    random = np.random.default_rng(seed)
    books, z = random.standard_normal((levels, codes, dim)), random.standard_normal((20, dim))

    found, _ = VectorRounding(books).all(z)

    left = z.copy()
    for level in range(levels):
        distance = np.square(left[:, None] - books[level]).sum(axis=2)
        chosen = distance[np.arange(20), found[:, level]]
        assert chosen == pytest.approx(distance.min(axis=1), rel=1e-9, abs=1e-9)
        left -= books[level][found[:, level]]
    assert VectorRounding(books).back(found) == pytest.approx(z - left)
    assert np.array_equal(found, one_by_one(VectorRounding(books), z))


def test_a_tie_goes_to_the_lower_code_and_is_marked_as_close() -> None:
    rounding = VectorRounding(np.array([[[1.0], [-1.0], [1.0]]]))

    codes, doubtful = rounding.all(np.array([[0.0], [1.0], [-1.0]]))

    assert codes[:, 0].tolist() == [0, 0, 1]
    assert doubtful.tolist() == [True, True, False]


def test_rows_beyond_one_block_are_rounded_too() -> None:
    z = np.linspace(-1.0, 1.0, 140_001)[:, None]

    codes, _ = VectorRounding(np.array([[[-1.0], [1.0]]])).all(z)

    assert codes[:, 0].tolist() == [0] * 70_001 + [1] * 70_000


@pytest.mark.parametrize("steps", [(8, 4, 4), (2,), (3, 5), (8, 5, 5, 5)])
def test_every_code_of_a_grid_is_its_own_and_comes_back(steps: tuple[int, ...]) -> None:
    rounding = GridRounding(steps)
    sweep = np.linspace(-6.0, 6.0, 300)[:, None]
    firsts = [np.unique(GridRounding((step,)).all(sweep)[0], return_index=True)[1] for step in steps]
    assert [len(first) for first in firsts] == list(steps)
    z = np.array(list(product(*(sweep[first, 0] for first in firsts))))

    codes, _ = rounding.all(z)

    assert set(codes[:, 0].tolist()) == set(range(math.prod(steps)))
    points = rounding.back(np.arange(math.prod(steps))[:, None])
    assert len(np.unique(points, axis=0)) == math.prod(steps)
    assert np.abs(points).max() == 1.0
    assert np.array_equal(codes[:500], one_by_one(rounding, z[:500]))


def test_the_grid_while_fitted_is_the_grid_at_run_time() -> None:
    steps = (8, 5, 2)
    z = np.random.default_rng(1).normal(0.0, 1.5, (5_000, 3))

    fitted = FiniteScalarQuantiser(steps)(torch.from_numpy(z).float(), 1)

    codes, _ = GridRounding(steps).all(z.astype(np.float32).astype(np.float64))
    assert (fitted.codes.numpy() == codes).mean() > 0.999  # float32 may fall to the other side of a border
    assert fitted.z.numpy() == pytest.approx(GridRounding(steps).back(fitted.codes.numpy()), abs=1e-6)


def test_gradients_pass_a_grid_and_a_codebook() -> None:
    book = VectorQuantiser(codes=4, dim=3, levels=2, commitment=0.25, decay=0.9, revive_below=0.1)
    book.prepare(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), torch.Generator().manual_seed(0))
    for quantiser in (FiniteScalarQuantiser((4, 4, 4)), book):
        z = torch.randn(10, 3, generator=torch.Generator().manual_seed(1), requires_grad=True)
        found = quantiser(z, 1)
        found.z.sum().backward()
        assert z.grad is not None
        assert (z.grad != 0.0).all()


def test_a_codebook_follows_the_mean_of_what_chose_it() -> None:
    book = VectorQuantiser(codes=2, dim=1, levels=1, commitment=0.25, decay=0.5, revive_below=0.0)
    generator = torch.Generator().manual_seed(0)
    book.prepare(torch.tensor([[0.0], [10.0]]), generator)
    z = torch.tensor([[1.0], [1.0], [11.0], [11.0]])

    for _ in range(30):
        book.follow(z, book(z, 1).codes, generator)

    assert sorted(book.books[0, :, 0].tolist()) == pytest.approx([1.0, 11.0], rel=1e-6)


def test_a_code_out_of_use_is_moved_to_what_is_told_badly() -> None:
    book = VectorQuantiser(codes=3, dim=1, levels=1, commitment=0.25, decay=0.5, revive_below=0.1)
    generator = torch.Generator().manual_seed(0)
    book.prepare(torch.tensor([[0.0], [0.0], [1e6]]), generator)
    assert book.books.max() == 1e6
    z = torch.tensor([[-1.0], [1.0], [0.0], [0.0]])

    revived = sum(book.follow(z, book(z, 1).codes, generator) for _ in range(60))

    assert revived > 0
    assert book.books.abs().max() <= 1.0


def test_without_revival_a_code_out_of_use_stays_there() -> None:
    book = VectorQuantiser(codes=2, dim=1, levels=1, commitment=0.25, decay=0.5, revive_below=0.0)
    generator = torch.Generator().manual_seed(0)
    book.prepare(torch.tensor([[0.0], [1e6]]), generator)
    z = torch.zeros(4, 1)

    revived = sum(book.follow(z, book(z, 1).codes, generator) for _ in range(60))

    assert revived == 0
    assert book.books.max() == 1e6


def test_fewer_levels_tell_by_the_first_ones_alone() -> None:
    book = VectorQuantiser(codes=4, dim=2, levels=2, commitment=0.25, decay=0.9, revive_below=0.1)
    z = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    book.prepare(z, torch.Generator().manual_seed(0))

    one, two = book(z, 1), book(z, 2)

    assert torch.equal(one.codes, two.codes)
    assert torch.allclose(one.z, book.books[0][one.codes[:, 0]], atol=1e-6)
    assert (two.z - z).square().mean() < (one.z - z).square().mean()


def test_nearest_rows_are_those_of_the_run_time() -> None:
    generator = torch.Generator().manual_seed(0)
    x, book = torch.randn(20_000, 4, generator=generator), torch.randn(16, 4, generator=generator)

    codes, doubtful = VectorRounding(book.double().numpy()[None]).all(x.double().numpy())

    same = nearest_rows(x, book).numpy() == codes[:, 0]
    assert same.mean() > 0.999
    assert doubtful.mean() < 0.001


def test_a_network_is_the_torch_modules() -> None:
    torch.manual_seed(0)
    model = Autoencoder(4, 8, 3, FiniteScalarQuantiser((4, 4, 4)))
    layers = [model.encoder[0], model.encoder[2]]
    network = Network(
        [layer.weight.detach().double().numpy() for layer in layers],
        [layer.bias.detach().double().numpy() for layer in layers],
    )
    x = np.random.default_rng(0).standard_normal((10, 4))

    wanted = model.encoder(torch.from_numpy(x).float()).detach().numpy()

    assert network.all(x) == pytest.approx(wanted, abs=1e-6)
    assert np.array([network.one(row) for row in x]) == pytest.approx(network.all(x), abs=1e-12)


def test_perplexity_counts_codes_that_are_used_alike() -> None:
    assert perplexity(np.array([5, 5, 5, 5])) == pytest.approx(4.0)
    assert perplexity(np.array([7, 0, 0])) == pytest.approx(1.0)
    assert perplexity(np.zeros(3)) == 0.0
    assert perplexity(np.array([1, 3])) == pytest.approx(2 ** (0.25 * 2 + 0.75 * math.log2(4 / 3)))


@pytest.mark.parametrize("text", ["", "8x", "8x1", "x", "8,4", "-8x4", "8x2000", "8 x 4", "٨x4", "2x" * 16 + "2"])
def test_a_grid_of_other_words_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="grid"):
        parse_grid(text)
