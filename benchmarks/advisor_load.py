"""What one advisor costs that is alone in its process: seconds to make it, and memory when it has answered.

A backend that needs no PyTorch is measured without it. `convert` makes the converted file of the language model.

    python -m benchmarks.advisor_load NAME [--dtype fp32] [--model FILE] [--gpt CHECKPOINT] < HEADLINES
"""

import argparse
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from models.advisor.advice import Headline
from models.advisor.backends import make

ROOT = Path(__file__).parent.parent
BATCH = 32  # headlines that are answered, one by one
CONTESTANTS = {  # title -> name, dtype, package that it needs
    "lexicon": ("lexicon", "fp32", ""),
    "head": ("head", "fp32", ""),
    "gpt, fp32": ("gpt", "fp32", ""),
    "gpt, bf16": ("gpt", "bf16", ""),
    "score, fp32": ("score", "fp32", ""),
    "generate, fp32": ("generate", "fp32", ""),
    "transformers, fp32": ("transformers", "fp32", "transformers"),
    "llama.cpp, Q4_1": ("llama.cpp", "fp32", "llama_cpp"),
}

Texts = Sequence[str]


@dataclass(frozen=True, slots=True)
class Weight:
    """Seconds, and bytes: before anything was made, when all was answered, and at the most."""

    load_s: float
    before: int
    rss: int
    peak: int

    def line(self, title: str) -> str:
        before, rss, peak = (size / 2**20 for size in (self.before, self.rss, self.peak))
        return f"| {title} | {self.load_s:.2f} | {before:.0f} | {rss:.0f} | {peak:.0f} |"


def weights(model: Path, gpt: Path, texts: Texts) -> Iterator[tuple[str, Weight]]:
    """All that are there, and the first conversion of the file."""
    for title, (name, dtype, package) in CONTESTANTS.items():
        if not package or importlib.util.find_spec(package):
            yield title, _spawned(name, dtype, model, gpt, texts)
    for dtype in ("fp32", "bf16"):
        with tempfile.TemporaryDirectory() as cache:
            converted = _spawned("convert", dtype, model, gpt, texts, {"XDG_CACHE_HOME": cache})
            yield f"first conversion of the file, {dtype}", converted


def _spawned(name: str, dtype: str, model: Path, gpt: Path, texts: Texts, more: dict[str, str] | None = None) -> Weight:
    command = [sys.executable, "-m", "benchmarks.advisor_load", name, "--dtype", dtype]
    command += ["--model", str(model), "--gpt", str(gpt)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(more or {})}
    given = "\n".join(texts[:BATCH])
    done = subprocess.run(
        command, env=environment, cwd=ROOT, input=given, stdout=subprocess.PIPE, text=True, check=True
    )
    return Weight(**json.loads(done.stdout.splitlines()[-1]))


# --- in the process of its own ----------------------------------------------------------------------------------------


def _made(name: str, dtype: str, model: Path, gpt: Path) -> Callable[[Texts], object]:
    """Makes a contestant; gives what reads texts."""
    if name == "convert":
        from models.advisor.reader import open_model

        open_model(model, dtype)
        return lambda texts: None
    if name == "transformers":
        return _transformers(model)
    if name == "llama.cpp":
        return _llama_cpp(model)
    advisor = make(name, model=str(model), checkpoint=str(gpt) if name == "gpt" else "", dtype=dtype)
    count = 1 if name == "generate" else BATCH
    return lambda texts: [advisor.advise([Headline(text=text)]) for text in texts[:count]]


def _transformers(model: Path) -> Callable[[Texts], object]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    made = AutoModelForCausalLM.from_pretrained(model.parent, gguf_file=model.name, dtype=torch.float32)
    made.train(False)
    words = AutoTokenizer.from_pretrained(model.parent, gguf_file=model.name)

    @torch.inference_mode()
    def read(texts: Texts) -> None:
        for text in texts:
            made(**words(text, return_tensors="pt"))

    return read


def _llama_cpp(model: Path) -> Callable[[Texts], object]:
    from llama_cpp import Llama

    made = Llama(str(model), n_ctx=512, n_threads=1, n_threads_batch=1, verbose=False)

    def read(texts: Texts) -> None:
        for text in texts:
            made.reset()
            made.eval(made.tokenize(text.encode(), add_bos=False))

    return read


def _peak() -> int:
    """Bytes that the process ever had at once."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--dtype", default="fp32")
    parser.add_argument("--model", type=Path, default=Path())
    parser.add_argument("--gpt", type=Path, default=Path())
    arguments = parser.parse_args()
    texts = sys.stdin.read().splitlines()
    for module in {  # importing takes seconds, and is none of making it
        "transformers": ("transformers",),
        "llama.cpp": ("llama_cpp",),
        "convert": ("models.advisor.reader",),
    }.get(arguments.name, (f"models.advisor.{arguments.name}",)):
        importlib.import_module(module)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    before = psutil.Process().memory_info().rss
    began = time.perf_counter()
    work = _made(arguments.name, arguments.dtype, arguments.model, arguments.gpt)
    load_s = time.perf_counter() - began
    work(texts)
    found: dict[str, Any] = {"load_s": load_s, "before": before, "rss": psutil.Process().memory_info().rss}
    print(json.dumps({**found, "peak": _peak()}))


if __name__ == "__main__":
    main()
