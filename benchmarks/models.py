"""How long does FinGPT take for one token, and how fast does it learn? One thread, all contestants in turn in one run.

    recompute   FinGPT over the last 256 tokens, without a cache
    plain       a GPT in plain PyTorch of the same size, its cache grown by torch.cat (benchmarks/plain_gpt.py)
    eager       FinGPT's step on its ring buffer: the default of the engine
    onnx        the same step through ONNX Runtime, fp32
    onnx-w8     the same with 8-bit matrices

The context is full and the ring has wrapped. What the exported forms lose is measured on real tokens: hourly BTC-USD of
2019, which the shipped checkpoint has not seen. It runs as a module, since this file is called like a package:

    python -m benchmarks.models [--rounds 10] [--checkpoint checkpoints/demo] [--large CHECKPOINT]
"""

import argparse
import gc
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.plain_gpt import PlainGPT
from feeds.files import Source
from models.checkpoint import read_manifest
from models.export import FORMS, Decoder, exported
from models.fingpt import FinGPT
from models.fingpt_config import FinGPTConfig
from tokenizer.codec import Codec
from trainer.data import TokenSeries, load_bars, nanoseconds, tokenize

SHIPPED = FinGPTConfig(layers=4, width=128, heads=4, kv_heads=4, hours=True, symbols=("BTC-USD", "EUR-USD"))
LARGE = FinGPTConfig()
BATCHES = (10, 64)
TRAIN_ROWS = 8  # sequences of a context a step
EAGER_MS_MAX = {"shipped": 1.2, "19M": 7.0}
FASTEST_MS_MAX = {"shipped": 0.5, "19M": 3.0}
BATCH_RATIO_MAX = 16.0  # 64 symbols over one, eager both
TEST_START = datetime(2019, 1, 1)
BARS = Source(path="feeds/sample/btc_usd_1h_2017-2019.parquet", symbol="BTC-USD", time_zone="UTC", bar="1h")
RESULTS = Path(__file__).parent / "results"


@dataclass(slots=True)
class Timed:
    """One contestant and its times."""

    name: str
    work: Callable[[], object]
    calls: int  # a round
    wall_ms: list[list[float]] = field(default_factory=list)  # by round
    cpu_ms: list[float] = field(default_factory=list)

    def round(self) -> None:
        for _ in range(max(1, self.calls // 20)):  # what the others have left in the caches is not its own
            self.work()
        wall = []
        for _ in range(self.calls):
            cpu, began = time.thread_time(), time.perf_counter()
            self.work()
            wall.append((time.perf_counter() - began) * 1e3)
            self.cpu_ms.append((time.thread_time() - cpu) * 1e3)
        self.wall_ms.append(wall)

    @property
    def p50(self) -> float:
        """Median of the medians of the rounds."""
        return float(np.median([np.median(wall) for wall in self.wall_ms]))

    @property
    def spread(self) -> tuple[float, float]:
        """Least and greatest median of a round."""
        medians = [float(np.median(wall)) for wall in self.wall_ms]
        return min(medians), max(medians)

    @property
    def p99(self) -> float:
        return float(np.quantile(np.concatenate(self.wall_ms), 0.99))

    @property
    def cpu_p50(self) -> float:
        return float(np.median(self.cpu_ms))


def drawn(config: FinGPTConfig) -> FinGPT:
    """A FinGPT in which every matrix does something: the untrained one has zeros where its blocks join."""
    torch.manual_seed(1)
    model = FinGPT(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0.0, weight.shape[-1] ** -0.5)
    return model


def tokens_of(config: FinGPTConfig, rows: int, count: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Random tokens (rows, count), and the hours and symbols that the model asks for."""
    source = torch.Generator().manual_seed(2)
    tokens = torch.randint(0, config.vocabulary, (rows, count), generator=source)
    hours = torch.randint(0, 168, (rows, count), generator=source) if config.hours else None
    return tokens, hours, torch.ones(rows, dtype=torch.int64) if config.symbols else None


# --- decoding ---------------------------------------------------------------------------------------------------------


def stepping(decoder: Decoder, batch: int) -> Callable[[], object]:
    """One more token for each of `batch` sequences, again and again, after the ring has wrapped."""
    config = decoder.config
    tokens, hours, symbols = tokens_of(config, batch, config.context)
    cache, slots = decoder.new_cache(batch), tuple(range(batch))
    more = 40  # beyond the context: the ring has wrapped
    for slot in slots:
        symbol = None if symbols is None else symbols[slot]
        hour = None if hours is None else hours[slot].repeat(2)[: config.context + more]
        decoder.prefill(tokens[slot].repeat(2)[: config.context + more], hour, symbol, cache, slot)
    at = 0

    def work() -> object:
        nonlocal at
        at = (at + 1) % config.context
        return decoder.step(tokens[:, at], None if hours is None else hours[:, at], symbols, cache, slots)

    return work


def recomputing(model: FinGPT) -> Callable[[], object]:
    tokens, hours, symbols = tokens_of(model.config, 1, model.config.context)

    @torch.inference_mode()
    def work() -> object:
        return model(tokens, hours, symbols)[:, -1]

    return work


def plainly(config: FinGPTConfig) -> Callable[[], object]:
    model = PlainGPT(config).eval()
    tokens, _, _ = tokens_of(config, 1, config.context)
    with torch.inference_mode():
        _, cache = model(tokens)
    at = 0

    @torch.inference_mode()
    def work() -> object:
        nonlocal at, cache
        at = (at + 1) % config.context
        logits, cache = model(tokens[:, at : at + 1], cache)
        return logits

    return work


def decode_contest(name: str, config: FinGPTConfig, rounds: int) -> dict[str, Timed]:
    """All forms of one size, and the eager form in batches, in turn."""
    model = drawn(config)
    calls = 150 if name == "shipped" else 30
    contest = {
        "recompute": Timed("recompute, no cache", recomputing(model), max(3, calls // 10)),
        "plain": Timed("plain PyTorch GPT, torch.cat", plainly(config), calls),
    }
    for form in FORMS:
        contest[form] = Timed(form, stepping(exported(model, form), 1), calls)
    for batch in BATCHES:
        contest[f"eager {batch}"] = Timed(f"eager, {batch} symbols", stepping(model, batch), max(3, calls // batch))
    for number in range(rounds):
        for timed in contest.values():
            gc.collect()
            timed.round()
        print(f"{name}, round {number + 1} of {rounds}: eager {contest['eager'].p50:.3f} ms", flush=True)
    return contest


# --- training ---------------------------------------------------------------------------------------------------------


def learning(model: torch.nn.Module, config: FinGPTConfig) -> Callable[[], object]:
    """One step of AdamW on 8 sequences of a context, fp32."""
    tokens, hours, symbols = tokens_of(config, TRAIN_ROWS, config.context + 1)
    given = (tokens[:, :-1],) if isinstance(model, PlainGPT) else (tokens[:, :-1], _cut(hours), symbols)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    model.train()

    def work() -> object:
        out = model(*given)
        logits = out[0] if isinstance(out, tuple) else out
        loss = functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss

    return work


def _cut(hours: Tensor | None) -> Tensor | None:
    return None if hours is None else hours[:, :-1]


def train_contest(rounds: int) -> dict[str, Timed]:
    contest = {}
    for name, config in (("shipped", SHIPPED), ("19M", LARGE)):
        calls = 3 if name == "shipped" else 1
        contest[f"FinGPT, {name}"] = Timed("", learning(drawn(config), config), calls)
        contest[f"plain PyTorch GPT, {name}"] = Timed("", learning(PlainGPT(config), config), calls)
    for number in range(rounds):
        for timed in contest.values():
            timed.round()
        print(f"training, round {number + 1} of {rounds}", flush=True)
    return contest


# --- loss in bits -----------------------------------------------------------------------------------------------------


def unseen(folder: Path, count: int) -> TokenSeries:
    """Tokens of BTC-USD after TEST_START, by the checkpoint's own codec; the first context of them is warm-up."""
    series = tokenize(load_bars([BARS]), Codec.load(folder))[0]
    if series.time is None or read_manifest(folder).overlap(TEST_START, datetime(2020, 1, 1)):
        raise SystemExit(f"want a checkpoint that has not seen {TEST_START:%Y}, was {folder}")
    first = int(np.searchsorted(series.time, nanoseconds(TEST_START)))
    part = slice(first, first + count)
    hours = None if series.hours is None else series.hours[part]
    return TokenSeries(symbol=series.symbol, tokens=series.tokens[part], time=series.time[part], hours=hours)


def bits_of(decoder: Decoder, series: TokenSeries) -> np.ndarray:
    """Bits of each token after the first context, one step at a time."""
    config = decoder.config
    cache, symbol = decoder.new_cache(1), torch.tensor([decoder.symbol_index(series.symbol)])
    found = []
    tokens = torch.from_numpy(np.ascontiguousarray(series.tokens))
    hours = None if series.hours is None else torch.from_numpy(np.ascontiguousarray(series.hours))
    for i in range(len(tokens) - 1):
        hour = hours[i : i + 1] if hours is not None and config.hours else None
        logits = decoder.step(tokens[i : i + 1], hour, symbol if config.symbols else None, cache, (0,))
        if i + 1 >= config.context:
            found.append(-torch.log_softmax(logits[0].double(), dim=-1)[tokens[i + 1]].item() / math.log(2.0))
    return np.array(found)


def loss_table(folders: dict[str, Path | None], count: int) -> Iterator[str]:
    """The loss of each form in bits a token where there is a checkpoint, the error of the logits in any case."""
    yield from ("| model | form | bits a token | over eager | logits, relative error |", "|---|---|---|---|---|")
    for (name, folder), config in zip(folders.items(), (SHIPPED, LARGE), strict=True):
        model = drawn(config) if folder is None else FinGPT.load(folder)
        base = None if folder is None else bits_of(model, series := unseen(folder, count))
        for form in FORMS:
            decoder = exported(model, form)
            error = logits_error(model, decoder)
            if base is None:
                yield f"| {name}, drawn weights | {form} | | | {error:.1e} |"
                continue
            bits = bits_of(decoder, series)
            extra = bits - base
            interval = 1.96 * extra.std(ddof=1) / math.sqrt(len(extra))
            yield f"| {name} | {form} | {bits.mean():.4f} | {extra.mean():+.5f} ± {interval:.5f} | {error:.1e} |"


def logits_error(model: FinGPT, decoder: Decoder, count: int = 300) -> float:
    """Root mean square of the difference to the model's logits over that of the logits, on random tokens."""
    tokens, hours, symbols = tokens_of(model.config, 1, count)
    caches = (model.new_cache(1), decoder.new_cache(1))
    off = size = 0.0
    for i in range(count):
        hour = None if hours is None else hours[:, i]
        wanted, found = (
            one.step(tokens[:, i], hour, symbols, cache, (0,)).double()
            for one, cache in zip((model, decoder), caches, strict=True)
        )
        off += (found - wanted).square().sum().item()
        size += wanted.square().sum().item()
    return math.sqrt(off / size)


# --- report -----------------------------------------------------------------------------------------------------------


def decode_table(contests: dict[str, dict[str, Timed]]) -> Iterator[str]:
    for name, contest in contests.items():
        config = SHIPPED if name == "shipped" else LARGE
        eager = contest["eager"].p50
        yield from (
            f"## One token, {name}: {config.layers} layers, {config.width} wide, {config.heads} heads",
            "",
            "| | p50 ms | least to greatest round | p99 ms | CPU p50 ms | over eager |",
            "|---|---|---|---|---|---|",
        )
        for timed in contest.values():
            low, high = timed.spread
            yield (
                f"| {timed.name} | {timed.p50:.3f} | {low:.3f} to {high:.3f} | {timed.p99:.3f} | "
                f"{timed.cpu_p50:.3f} | {timed.p50 / eager:.2f} |"
            )
        yield ""


def train_table(contest: dict[str, Timed]) -> Iterator[str]:
    tokens = TRAIN_ROWS * LARGE.context
    yield from ("| | tokens a second | by round | tokens a CPU second |", "|---|---|---|---|")
    for name, timed in contest.items():
        low, high = (tokens / ms * 1e3 for ms in reversed(timed.spread))
        cpu = tokens / timed.cpu_p50 * 1e3
        yield f"| {name} | {tokens / timed.p50 * 1e3:,.0f} | {low:,.0f} to {high:,.0f} | {cpu:,.0f} |"


@dataclass(frozen=True, slots=True)
class Aim:
    what: str
    wall: float  # decides
    cpu: float
    most: float

    @property
    def verdict(self) -> str:
        return "kept" if self.wall <= self.most else "**missed**"


def aims(contests: dict[str, dict[str, Timed]]) -> list[Aim]:
    found = []
    for name, contest in contests.items():
        eager, many = contest["eager"], contest["eager 64"]
        fastest = min((contest[form] for form in FORMS), key=lambda timed: timed.p50)
        label = f"{name}, fastest form ({fastest.name}), p50 ms"
        ratio = (many.p50 / eager.p50, many.cpu_p50 / eager.cpu_p50)
        found += [
            Aim(f"{name}, eager, p50 ms", eager.p50, eager.cpu_p50, EAGER_MS_MAX[name]),
            Aim(label, fastest.p50, fastest.cpu_p50, FASTEST_MS_MAX[name]),
            Aim(f"{name}, 64 symbols over one, eager", *ratio, BATCH_RATIO_MAX),
        ]
    return found


def report(
    arguments: argparse.Namespace,
    contests: dict[str, dict[str, Timed]],
    training: dict[str, Timed],
    losses: list[str],
    load: float,
) -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "onnx", "onnxruntime"))
    lines = [
        "# FinGPT: time of a token, speed of training",
        "",
        f"`python -m benchmarks.models --rounds {arguments.rounds}`, {datetime.now(UTC):%Y-%m-%d},",
        f"{os.cpu_count()} cores ({processor()}), no GPU, Python {platform.python_version()}, {packages}.",
        "One thread; batch 1 unless said otherwise; context 256, full, the ring wrapped; contestants take turns, round",
        "after round. *p50*: median of the rounds' medians; *CPU*: time of the thread, which other work on the machine",
        f"moves less. Load average before the first round: {load:.1f}.",
        "",
        *decode_table(contests),
        "## Against what was wanted",
        "",
        "| | measured | of CPU time | at most | |",
        "|---|---|---|---|---|",
        *(f"| {aim.what} | {aim.wall:.3f} | {aim.cpu:.3f} | {aim.most} | {aim.verdict} |" for aim in aims(contests)),
        "",
        f"## Training: AdamW, fp32, {TRAIN_ROWS} sequences of {LARGE.context} tokens a step",
        "",
        *train_table(training),
        "",
        "## What an exported form loses",
        "",
        f"{arguments.tokens:,} tokens of hourly BTC-USD from {TEST_START:%Y-%m-%d} on, a step each, the first 256 left",
        "out. The difference to eager is taken token by token; its 95 % interval treats them as independent. Weights",
        "are drawn at random where there is no checkpoint, and only the logits are compared.",
        "",
        *losses,
    ]
    return "\n".join(lines) + "\n"


def processor() -> str:
    try:
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    except OSError:
        names = []
    return names[0].partition(":")[2].strip() if names else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=4_000, help="for the loss of the exported forms")
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/demo"), help="of the shipped size")
    parser.add_argument("--large", type=Path, default=None, help="a checkpoint of the large size")
    parser.add_argument("--out", type=Path, default=RESULTS / "models.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    contests = {
        "shipped": decode_contest("shipped", SHIPPED, arguments.rounds),
        "19M": decode_contest("19M", LARGE, arguments.rounds),
    }
    training = train_contest(max(3, arguments.rounds // 3))
    shipped = arguments.checkpoint if (arguments.checkpoint / "manifest.json").exists() else None
    losses = list(loss_table({"shipped": shipped, "19M": arguments.large}, arguments.tokens))
    text = report(arguments, contests, training, losses, load)
    print(text)
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(text)
    if missed := [aim.what for aim in aims(contests) if aim.wall > aim.most]:
        raise SystemExit(f"slower than wanted: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
