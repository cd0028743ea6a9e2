"""`python -m models.write MODEL`: go on with a text, printed as it comes."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

PROGRAM = "python -m models.write"

_DTYPES = ("fp32", "bf16", "fp16")
_CONTROL = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
# tyro does not wrap it: one line a paragraph, none longer than a terminal is wide.
_DESCRIPTION = """\
Go on with a text, and print it as it comes.

MODEL is a checkpoint of python -m trainer gpt, a GGUF file, a folder of safetensors
(Llama or GPT-2), or a ckpt.pt of nanoGPT with --tokenizer.

Exit codes: 0 done, 2 bad usage or model, 130 interrupted.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteConfig:
    """What is written."""

    prompt: str = "\n"  # the text to go on from
    tokens: int = 200  # that are drawn, at most
    temperature: float = 0.8  # below 1: surer than the model is; 0: always the most probable token
    top_k: int = 0  # draw among this many most probable tokens; 0 is all
    top_p: float = 1.0  # draw among the fewest most probable tokens that hold this much probability
    seed: int = 0  # of the draws
    chat: bool = False  # the prompt is a message to answer, in the form of the model's chat template
    tokenizer: str = ""  # tokenizer.json or meta.json, in place of what the model brings
    dtype: str = "fp32"  # fp32, bf16, fp16: of weights and computing; bf16 is slow without instructions for it
    threads: int = 1  # of the processor; more are faster for models from 100 million parameters on

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError("prompt must have a character at least, was ''")
        for name, low, high in (("tokens", 1, 1_000_000), ("seed", 0, 2**63), ("threads", 1, 1_024)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must lie in [{low}, {high}], was {getattr(self, name)}")
        if self.dtype not in _DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}, was {self.dtype!r}")
        # As `models.sampling.Sampling`, before the model is loaded.
        if not 0.0 <= self.temperature < math.inf or self.top_k < 0 or not 0.0 < self.top_p <= 1.0:
            raise ValueError(
                "want temperature finite and at least 0, top_k at least 0 and top_p in (0, 1],"
                f" was {self.temperature}, {self.top_k} and {self.top_p}"
            )


def run(model: Path, config: WriteConfig) -> None:
    """Load the model and print what it writes.

    Raises:
        CheckpointError: there is no sound model.
        TextError: it cannot go on from this prompt.
    """
    import torch  # here: flags do not wait for it

    from models.sampling import Sampling
    from models.writer import load_writer, write

    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    torch.set_num_threads(config.threads)  # of loading as well
    writer = load_writer(model, dtypes[config.dtype], tokenizer=config.tokenizer)
    sampling = Sampling(temperature=config.temperature, top_k=config.top_k, top_p=config.top_p)
    start: str | list[int] = config.prompt
    if config.chat:
        start = writer.answer([{"role": "user", "content": config.prompt}])
    pieces = write(writer, start, config.tokens, sampling=sampling, seed=config.seed, threads=config.threads)
    first = next(pieces, "")  # before the prompt is shown: perhaps it cannot be gone on from
    if not config.chat:
        _show(config.prompt)
    _show(first)
    for piece in pieces:
        _show(piece)
    print(flush=True)


def _show(text: str) -> None:
    """At once, and without what would steer a terminal."""
    print(text.translate(_CONTROL), end="", flush=True)


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code.

    Raises:
        SystemExit: on --help, with 0; on a wrong flag, with 2.
    """
    import tyro

    from configs.command import run_command
    from configs.flags import registry
    from models.checkpoint import CheckpointError

    @dataclass(frozen=True)
    class Command:
        model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
        """checkpoint, GGUF file, folder of safetensors or ckpt.pt of nanoGPT"""
        config: Annotated[WriteConfig, tyro.conf.arg(name="")]

    def work() -> int:
        asked = tyro.cli(Command, args=list(argv), prog=PROGRAM, description=_DESCRIPTION, registry=registry())
        run(asked.model, asked.config)
        return 0

    return run_command(PROGRAM, work, (CheckpointError, ValueError))


if __name__ == "__main__":
    from configs.command import leave_on_interrupt

    leave_on_interrupt(PROGRAM)
    sys.exit(main(sys.argv[1:]))
