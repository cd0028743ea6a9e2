"""Several processes that convert one language model at the same time, as test runners and two terminals do."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("gguf", reason="the extra 'llm' is not installed")
pytest.importorskip("tokenizers", reason="the extra 'llm' is not installed")

import torch
from text_files import llama, write_gguf

from models.gguf import load_text_model

ROOT = Path(__file__).parents[2]
READERS, ROUNDS = 2, 12
# Each waits until all are ready, then loads again and again; every second time it throws the converted file away, so
# that some convert while others read, and a file is replaced under its readers.
PROGRAM = """
import sys, torch
from pathlib import Path
from models.gguf import load_text_model
torch.set_num_threads(1)
path, cache, rounds, number = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
tokens = torch.tensor([[3, 99, 5, 7]])
print("ready", flush=True)
sys.stdin.readline()
for turn in range(rounds):
    if turn % 2 == number % 2:
        for file in cache.glob("*.safetensors"):
            file.unlink(missing_ok=True)
    text = load_text_model(path, torch.float32, cache=cache)
    with torch.no_grad():
        print(text.digest, text.plain.encode("shares"), text.model(tokens).sum().item(), flush=True)
"""


def test_processes_that_convert_at_the_same_time_all_get_the_model(tmp_path: Path) -> None:
    path, cache = write_gguf(tmp_path / "tiny.gguf", llama()), tmp_path / "cache"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(path), str(cache), str(ROUNDS), str(number)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(READERS)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        told = []
        for process in started:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in started:
            out, err = process.communicate(timeout=120)
            assert process.returncode == 0, err
            told += out.splitlines()
    finally:
        for process in started:
            process.kill()

    assert len(told) == READERS * ROUNDS
    assert len(set(told)) == 1
    found = load_text_model(path, torch.float32, cache=cache)
    assert told[0].startswith(found.digest)
    assert [file.name for file in cache.iterdir()] == [f"{found.digest}.f32.safetensors"]  # and no draft
