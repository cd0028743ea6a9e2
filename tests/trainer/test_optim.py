"""The schedule rises and falls as it says; optimisers come back from their tensors."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from models.fingpt import FinGPT
from models.fingpt_config import FinGPTConfig
from trainer.config import OptimConfig
from trainer.optim import Optimizers, schedule

SMALL = FinGPTConfig(vocabulary=8, context=8, layers=1, width=8, heads=2, kv_heads=1, hours=True)


def test_the_schedule_at_points_that_can_be_worked_out_by_hand() -> None:
    config = OptimConfig(warmup_steps=10, lr_floor=0.2)
    assert schedule(1, 110, config) == pytest.approx(0.1)
    assert schedule(10, 110, config) == 1.0
    assert schedule(60, 110, config) == pytest.approx(0.6)  # half way: (1 + 0.2) / 2
    assert schedule(110, 110, config) == pytest.approx(0.2)
    assert schedule(35, 110, config) == pytest.approx(0.2 + 0.8 * 0.5 * (1.0 + math.cos(math.pi / 4)))


@given(st.integers(0, 50), st.integers(1, 500), st.floats(0.0, 1.0))
def test_the_rate_rises_then_falls_and_stays_above_the_floor(warmup: int, more: int, floor: float) -> None:
    config = OptimConfig(warmup_steps=warmup, lr_floor=floor)
    steps = warmup + more
    rates = [schedule(step, steps, config) for step in range(1, steps + 1)]
    assert all(0.0 < rate <= 1.0 or floor == 0.0 for rate in rates)
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert rates[-1] == pytest.approx(floor)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_restored_optimisers_take_the_same_next_step(optimizer: str) -> None:
    torch.manual_seed(0)
    config = OptimConfig(optimizer=optimizer)
    model = FinGPT(SMALL)
    first = Optimizers(model, config)
    step(model, first, 1)

    twin = copy.deepcopy(model)
    second = Optimizers(twin, config)
    second.restore({name: tensor.clone() for name, tensor in first.tensors().items()})
    step(model, first, 2)
    step(twin, second, 2)

    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)


def test_muon_moves_the_matrices_of_blocks_and_adamw_the_rest() -> None:
    model = FinGPT(SMALL)
    adamw, muon = Optimizers(model, OptimConfig(optimizer="muon")).all
    moved = {id(p) for group in muon.param_groups for p in group["params"]}
    named = {name for name, p in model.named_parameters() if id(p) in moved}
    assert named == {name for name, _ in model.named_parameters() if name.startswith("blocks.")}
    rest = {id(p) for group in adamw.param_groups for p in group["params"]}
    assert len(rest) + len(moved) == len(list(model.parameters()))


def test_vectors_do_not_decay() -> None:
    model = nn.Linear(3, 2)
    (adamw,) = Optimizers(model, OptimConfig(weight_decay=0.3)).all
    decays = {id(p): group["weight_decay"] for group in adamw.param_groups for p in group["params"]}
    assert decays == {id(model.weight): 0.3, id(model.bias): 0.0}


def test_the_rate_is_set_as_a_share_of_each_peak() -> None:
    made = Optimizers(FinGPT(SMALL), OptimConfig(optimizer="muon", lr=0.1, muon_lr=0.4))
    assert made.set_rate(0.5) == 0.05
    assert [group["lr"] for optimizer in made.all for group in optimizer.param_groups] == [0.05, 0.2]


def step(model: FinGPT, optimizers: Optimizers, seed: int) -> None:
    """One update on random tokens."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(8, (4, 8), generator=generator)
    optimizers.zero_grad()
    optimizers.set_rate(0.7)
    model(tokens, tokens).square().mean().backward()
    for optimizer in optimizers.all:
        optimizer.step()
