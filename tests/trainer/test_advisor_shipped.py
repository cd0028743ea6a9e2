"""The heads that ship: they load, say what they have seen, and read what anyone would read the same way."""

from datetime import datetime
from pathlib import Path

import pytest

from configs.load import load
from models.advisor.advice import BUY_SIGNAL, HOLD, SELL_SIGNAL, Advisor, Headline
from models.advisor.backends import GPT_SHIPPED, installed_model
from models.advisor.head import SHIPPED, Head
from models.advisor.weights import load as load_head
from models.checkpoint import WEIGHTS, read_manifest
from trainer.advisor_config import AdvisorTrainConfig

ROOT = Path(__file__).parents[2]
OBVIOUS = {
    BUY_SIGNAL: (
        "Acme shares jump after earnings beat expectations",
        "Acme stock rallies to a record high on strong demand",
        "Analysts raise Acme price target, upgrade to buy",
    ),
    SELL_SIGNAL: (
        "Acme shares plunge after profit warning",
        "Acme stock falls sharply as sales miss estimates",
        "Acme cut to sell at Goldman on weak outlook",
    ),
    HOLD: (
        "Acme to present at an investor conference on Tuesday",
        "Acme names a new member of its board of directors",
        "Here is the agenda of the annual meeting of Acme",
    ),
}


def judge(advisor: Advisor) -> dict[str, list[str]]:
    """What it says of each obvious headline, by what it should."""
    return {
        want: [advice.action for advice in advisor.advise([Headline(text=text) for text in texts])]
        for want, texts in OBVIOUS.items()
    }


@pytest.mark.parametrize(
    ("folder", "kind", "end"),
    [(SHIPPED, "head", datetime(2022, 9, 30)), (GPT_SHIPPED, "gpt", datetime(2024, 11, 30))],
)
def test_a_shipped_head_is_small_and_says_what_it_may_know(folder: Path, kind: str, end: datetime) -> None:
    weights, manifest = load_head(folder, kind)
    config = load(AdvisorTrainConfig, ROOT / "configs" / "train" / f"advisor_{kind}.toml")

    assert manifest.training.end == config.end
    assert manifest.training.end.date() == end.date()
    assert manifest.training.start is None
    assert not manifest.overlap(datetime(end.year, end.month + 1, 1), datetime(2090, 1, 1))
    assert manifest.training.licence == config.licence
    assert manifest.training.trials > config.tried_before
    assert weights.config.ngrams == config.ngrams
    assert (folder / WEIGHTS).stat().st_size < 1_200_000
    assert (ROOT / config.shipped) == folder


@pytest.mark.parametrize("folder", [SHIPPED, GPT_SHIPPED])
def test_a_shipped_head_is_better_than_saying_nothing_and_than_counting_words(folder: Path) -> None:
    figures = read_manifest(folder).metrics
    for name in ("test_macro_f1", "test_precision_of_emitted"):
        low, _ = figures[name]["interval_95"]
        assert low > max(figures[name]["baselines"].values())


def test_the_shipped_head_reads_what_is_obvious() -> None:
    assert judge(Head()) == {want: [want] * len(texts) for want, texts in OBVIOUS.items()}


def test_the_shipped_head_over_the_language_model_reads_what_is_obvious() -> None:
    model = installed_model()
    if model is None:
        pytest.skip("the language model is not installed: make setup-llm")
    from models.advisor.gpt import Gpt

    assert judge(Gpt(model, GPT_SHIPPED)) == {want: [want] * len(texts) for want, texts in OBVIOUS.items()}
