"""The loop learns, stops, resumes, and computes the same whichever way a batch is cut."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_files import alone, losses

from configs.load import ConfigError
from trainer import state
from trainer.config import LoopConfig, OptimConfig
from trainer.logs import read_log
from trainer.loop import STATE, Job, Trained, TrainingError, train

OPTIM = OptimConfig(warmup_steps=3, lr=0.02)
BATCH = 8


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network(dropout: float = 0.2) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 1))


def data(seed: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(BATCH, 4, generator=torch.Generator().manual_seed(seed))
    return x, x.sum(dim=1, keepdim=True)


def job(loop: LoopConfig, model: nn.Module | None = None, **changed: Any) -> Job:
    """Learn to add four numbers."""

    def loss(trained: nn.Module, step: int, part: int) -> Tensor:
        x, y = (half[part :: loop.accumulate] for half in data(step))
        return (trained(x) - y).square().sum() / BATCH

    def validate(trained: nn.Module) -> float:
        x, y = data(-1)
        return float((trained(x) - y).square().mean().detach())

    made = {"model": model or network(), "loss": loss, "validate": validate, "tokens": BATCH}
    return Job(**{**made, **changed})


def config(**changed: Any) -> LoopConfig:
    usual = {"steps": 40, "batch": BATCH, "eval_every_steps": 5, "log_every_steps": 3, "save_every_steps": 7}
    return LoopConfig(**{**usual, "patience": 0, **changed})


def run(
    folder: Path, loop: LoopConfig, given: Job | None = None, *, resume: bool = False, optim: OptimConfig = OPTIM
) -> tuple[Trained, list[dict[str, float]], dict[str, Tensor]]:
    made = given or job(loop)
    trained = train(made, loop, optim, alone(), folder, lambda step, words: None, resume=resume, events=False)
    return trained, losses(read_log(folder / "log.csv")), made.model.state_dict()


class Killed(Exception):  # noqa: N818 - it says what happened
    pass


def killed_at(loop: LoopConfig, step: int) -> Job:
    """A job that dies within a step, as a kill may do between any two lines."""
    whole = job(loop)

    def loss(trained: nn.Module, at: int, part: int) -> Tensor:
        if at == step:
            raise Killed
        return whole.loss(trained, at, part)

    return job(loop, loss=loss)


def test_it_learns_and_keeps_the_best_weights(tmp_path: Path) -> None:
    loop = config(steps=200)
    made = job(loop)
    trained, rows, _ = run(tmp_path, loop, made)
    judged = {row["step"]: row["validation_loss"] for row in rows if "validation_loss" in row}
    assert trained.steps == 200
    assert trained.best_loss == min(judged.values()) == judged[trained.best_step]
    assert trained.best_loss < 0.5 < judged[5]
    made.model.eval()
    assert made.validate(made.model) == trained.best_loss


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("step", [7, 8, 20, 40])
def test_a_killed_run_goes_on_to_the_same_losses_and_weights(tmp_path: Path, step: int, optimizer: str) -> None:
    loop, optim = config(), OptimConfig(warmup_steps=3, lr=0.02, optimizer=optimizer)
    whole, rows, weights = run(tmp_path / "whole", loop, optim=optim)
    with pytest.raises(Killed):
        run(tmp_path / "cut", loop, killed_at(loop, step), optim=optim)

    resumed, again, others = run(tmp_path / "cut", loop, resume=True, optim=optim)

    assert again == rows
    assert resumed == whole
    assert all(torch.equal(tensor, others[name]) for name, tensor in weights.items())


def test_resuming_without_a_state_begins_and_resuming_the_end_takes_no_step(tmp_path: Path) -> None:
    loop = config(save_every_steps=20)
    _, rows, _ = run(tmp_path, loop, resume=True)
    trained, again, _ = run(tmp_path, loop, killed_at(loop, 1), resume=True)  # any step would die
    assert again == rows
    assert trained.steps == 40


@pytest.mark.parametrize("other", [{"seed": 1}, {"steps": 41}, {"eval_every_steps": 4}])
def test_a_state_of_another_run_is_refused(tmp_path: Path, other: dict[str, int]) -> None:
    run(tmp_path, config())
    with pytest.raises(ConfigError, match="of a run with other data, processes or settings"):
        run(tmp_path, config(**other), resume=True)
    with pytest.raises(ConfigError, match="other data"):
        run(tmp_path, config(), job(config(), says={"data": "else"}), resume=True)


def test_how_often_one_saves_may_change_on_the_way(tmp_path: Path) -> None:
    run(tmp_path, config())
    trained, _, _ = run(tmp_path, config(save_every_steps=3), resume=True)
    assert trained.steps == 40


def test_it_stops_when_validation_no_longer_improves(tmp_path: Path) -> None:
    scores = iter([5.0, 3.0, 4.0, 3.0, 9.0, 1.0])
    loop = config(patience=3)
    trained, rows, _ = run(tmp_path, loop, job(loop, validate=lambda model: next(scores)))
    assert trained == Trained(best_step=10, best_loss=3.0, steps=25, stopped_early=True)
    assert [row["validation_loss"] for row in rows if "validation_loss" in row] == [5.0, 3.0, 4.0, 3.0, 9.0]


def test_accumulating_parts_is_the_same_as_one_batch(tmp_path: Path) -> None:
    for parts in (1, 4):
        loop = config(accumulate=parts)
        _, rows, weights = run(tmp_path / str(parts), loop, job(loop, network(dropout=0.0)))
        if parts == 1:
            first, expected = rows, weights
    assert [row["step"] for row in rows] == [row["step"] for row in first]
    for one, other in zip(rows, first, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_learns_nearly_the_same_and_resumes(tmp_path: Path, precision: str) -> None:
    full, _, _ = run(tmp_path / "fp32", config(steps=120))
    loop = config(steps=120, precision=precision)
    mixed, rows, weights = run(tmp_path / "whole", loop)
    assert mixed.best_loss == pytest.approx(full.best_loss, rel=0.5, abs=0.05)
    assert all(tensor.dtype == torch.float32 for tensor in weights.values())
    with pytest.raises(Killed):
        run(tmp_path / "cut", loop, killed_at(loop, 60))
    resumed, again, _ = run(tmp_path / "cut", loop, resume=True)
    assert again == rows
    assert resumed == mixed


def test_an_overflow_in_fp16_leaves_weights_alone_and_halves_the_scale(tmp_path: Path) -> None:
    loop = config(steps=8, precision="fp16", save_every_steps=8)
    whole = job(loop)

    def loss(trained: nn.Module, step: int, part: int) -> Tensor:
        # A finite loss with a gradient that, scaled, no float16 holds.
        return whole.loss(trained, step, part) * (1e30 if step == 8 else 1.0)

    run(tmp_path, loop, job(loop, loss=loss, validate=lambda model: 1.0))
    found = state.read(tmp_path / STATE)
    assert found is not None
    updates = {float(t) for name, t in found.tensors("optim").items() if name.endswith(".step")}
    (taken,) = updates
    halvings = 8 - taken  # the first scale may be too large as well
    assert 1 <= halvings < 8
    assert found.counters["scaler"]["scale"] == 65_536.0 / 2.0**halvings
    assert all(torch.isfinite(tensor).all() for tensor in found.tensors("model").values())


class _Overflow(torch.autograd.Function):
    """A weight as it is, whose gradient is no number."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        return weight.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return torch.full_like(gradient, float("nan"))


class _TwoParts(nn.Module):
    """A matrix that Muon moves, and a head that AdamW does; the gradient of one of them may be no number."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([nn.Linear(4, 4, bias=False)])
        self.head = nn.Linear(4, 1, bias=False)

    def forward(self, x: Tensor, broken: str = "") -> Tensor:
        inner, outer = (
            _Overflow.apply(weight) if name == broken else weight
            for name, weight in (("blocks", self.blocks[0].weight), ("head", self.head.weight))
        )
        return x @ inner.T @ outer.T


def _broken_at_3(loop: LoopConfig, part: str) -> Job:
    model = _TwoParts()

    def loss(trained: nn.Module, step: int, _: int) -> Tensor:
        x, y = data(step)
        return (trained(x, part if step == 3 else "") - y).square().mean()

    return job(loop, model, loss=loss)


@pytest.mark.parametrize("part", ["blocks", "head"])
def test_an_overflow_in_one_optimisers_part_moves_no_part(tmp_path: Path, part: str) -> None:
    loop = config(steps=6, precision="fp16", eval_every_steps=1)
    optim = OptimConfig(warmup_steps=1, optimizer="muon")
    _, rows, weights = run(tmp_path, loop, _broken_at_3(loop, part), optim=optim)
    judged = [row["validation_loss"] for row in rows if "validation_loss" in row]
    assert judged[2] == judged[1]
    assert judged[5] < judged[1]
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


def test_a_gradient_that_is_no_number_stops_with_its_step(tmp_path: Path) -> None:
    loop = config(steps=6)
    with pytest.raises(TrainingError, match="gradient at step 3 is nan"):
        run(tmp_path, loop, _broken_at_3(loop, "head"))


def test_a_loss_that_is_no_number_stops_with_its_step(tmp_path: Path) -> None:
    loop = config()
    whole = job(loop)

    def loss(trained: nn.Module, step: int, part: int) -> Tensor:
        return whole.loss(trained, step, part) * (float("nan") if step == 3 else 1.0)

    with pytest.raises(TrainingError, match="step 3 is nan"):
        run(tmp_path, loop, job(loop, loss=loss))


def test_gradients_are_clipped_and_their_norm_before_it_is_logged(tmp_path: Path) -> None:
    moments = []
    for clip in (1e6, 1e-3):
        optim = OptimConfig(warmup_steps=1, lr=1e-4, clip=clip)
        _, rows, _ = run(tmp_path / str(clip), config(steps=4, log_every_steps=1, save_every_steps=1), optim=optim)
        assert all(row["grad_norm"] > 0.1 for row in rows)
        found = state.read(tmp_path / str(clip) / STATE)
        assert found is not None
        means = [tensor for name, tensor in found.tensors("optim").items() if name.endswith(".exp_avg")]
        moments.append(float(torch.cat([mean.flatten() for mean in means]).norm()))
    assert moments[0] > 0.1
    assert moments[1] <= 1e-3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # within torch, on import of its compiler
def test_torch_compile_learns_the_same(tmp_path: Path) -> None:
    _, eager, _ = run(tmp_path / "eager", config(steps=6), job(config(), network(dropout=0.0)))
    loop = config(steps=6, compile=True)
    torch.compiler.reset()
    _, rows, weights = run(tmp_path / "compiled", loop, job(loop, network(dropout=0.0)))
    for one, other in zip(rows, eager, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    assert set(weights) == {"0.weight", "0.bias", "3.weight", "3.bias"}
