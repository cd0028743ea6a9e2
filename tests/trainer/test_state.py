"""A state file is one safetensors file: whole or not there, and no code in it."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from configs.load import ConfigError
from trainer import state
from trainer.errors import TrainingError


def test_what_was_saved_comes_back_bit_by_bit(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state.safetensors"
    shared = torch.randn(3, 2)
    model = {"a.weight": shared, "twin": shared, "view": torch.arange(6.0).view(2, 3).t()}
    state.save(path, {"loss": 0.1 + 0.2, "none": None}, model=model, optim={"a.weight.step": torch.tensor(7.0)})

    found = state.read(path)

    assert found is not None
    assert found.counters["loss"] == 0.1 + 0.2
    assert found.counters["none"] is None
    assert found.tensors("optim")["a.weight.step"].item() == 7.0
    for name, tensor in model.items():
        assert torch.equal(found.tensors("model")[name], tensor)


def test_no_file_is_no_state(tmp_path: Path) -> None:
    assert state.read(tmp_path / "state.safetensors") is None


def test_saving_again_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    for step in (1, 2):
        state.save(path, {"step": step}, model={"w": torch.full((2,), float(step))})
    found = state.read(path)
    assert found is not None
    assert found.counters["step"] == 2
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_save_that_died_half_way_leaves_the_earlier_state(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    state.save(path, {"step": 1}, model={"w": torch.ones(2)})
    path.with_name(f"{path.name}.partial").write_bytes(b"half")
    found = state.read(path)
    assert found is not None
    assert found.counters["step"] == 1


def test_a_number_that_json_has_not_is_refused_before_anything_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    state.save(path, {"loss": 1.0}, model={"w": torch.ones(2)})
    with pytest.raises(ValueError, match="JSON compliant"):
        state.save(path, {"loss": math.nan}, model={"w": torch.zeros(2)})
    found = state.read(path)
    assert found is not None
    assert torch.equal(found.tensors("model")["w"], torch.ones(2))


def test_a_state_that_cannot_be_written_is_said_and_leaves_the_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    state.save(path, {"step": 1}, model={"w": torch.ones(2)})
    path.with_name(f"{path.name}.partial").mkdir()
    with pytest.raises(TrainingError, match=r"cannot be written to .*partial"):
        state.save(path, {"step": 2}, model={"w": torch.zeros(2)})
    found = state.read(path)
    assert found is not None
    assert found.counters["step"] == 1


@pytest.mark.parametrize("metadata", [None, {"counters": "[]"}, {"counters": "{"}, {"counters": '{"format": 2}'}])
def test_another_safetensors_file_is_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "state.safetensors"
    save_file({"w": torch.ones(2)}, path, metadata=metadata)
    with pytest.raises(ConfigError, match="not a state to resume from"):
        state.read(path)


def test_a_pickle_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    torch.save({"w": torch.ones(2)}, path)
    with pytest.raises(ConfigError, match="not a state to resume from"):
        state.read(path)


@given(cut=st.integers(0, 400))
def test_a_truncated_state_is_refused(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "state.safetensors"
    state.save(path, {"step": 1}, model={"w": torch.ones(20)})
    whole = path.read_bytes()
    path.write_bytes(whole[: min(cut, len(whole) - 1)])
    with pytest.raises(ConfigError, match="not a state to resume from"):
        state.read(path)


def test_counters_are_json_in_the_header(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    state.save(path, {"step": 3}, model={"w": torch.ones(2)})
    size = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + size])
    assert json.loads(header["__metadata__"]["counters"]) == {"format": state.FORMAT, "step": 3}
