"""A signal from headlines by counting words: the baseline that a language-model advisor has to beat."""

import math
import re
from dataclasses import dataclass

import csp
from csp import ts

from feeds.events import NewsItem
from nodes.events import Signal


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Written for this project from plain market English, before any headline was scored with them.
BULLISH = _words(
    """
    accumulate accumulates advance advances approval approve approved approves beat beats boost boosted boosts
    breakout bullish buyback climb climbed climbs confident expand expands expansion gain gained gains grow
    growing grows growth high highs improve improved improves improving increase increased increases inflow
    inflows jump jumped jumps momentum optimism optimistic outperform outperforms profit profitable profits
    raise raised raises rallied rallies rally rebound rebounded rebounds record recover recovered recovers
    recovery resilient rise rises rising rose soar soared soars strength strengthen strengthens strong
    stronger support surge surged surges top tops upbeat upgrade upgraded upgrades uptrend
    """
)
BEARISH = _words(
    """
    ban bankruptcy bans bearish breach collapse collapsed collapses concern concerns crash crashed crashes cut
    cuts decline declined declines declining default defaults delay delayed delays downgrade downgraded
    downgrades downtrend drop dropped drops fall fallen falling falls fear fears fell fraud hack hacked halt
    halted halts investigation lawsuit lawsuits lose loses losing loss losses low lower lows miss missed
    misses outage outflow outflows plunge plunged plunges pressure probe recession reject rejected rejects
    risk risks sank sell selloff shutdown sink sinks slide slides slow slowdown slowed slowing slump slumps
    theft tumble tumbled tumbles uncertainty underperform underperforms warn warned warning warns weak weaken
    weakened weakens weakness worries worry worse
    """
)
NEGATIONS = _words("no not none neither never nobody nor without cannot hardly barely lacks lack fails failed")
NEGATION_REACH = 3  # words after a negation that it turns, within one clause

_WORDS_AND_STOPS = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|[.,;:!?]")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewsSignalConfig:
    """How much a headline's words may count."""

    confidence: float = 0.2  # of news about the symbol; low, because words are weak evidence
    market_wide_factor: float = 0.5  # on the confidence, for news about no one symbol
    horizon_s: float = 6 * 3600.0  # time constant of the signal's decay

    def __post_init__(self) -> None:
        for name in ("confidence", "market_wide_factor"):
            fraction = getattr(self, name)
            if not 0.0 <= fraction <= 1.0:
                raise ValueError(f"{name} must lie in [0, 1], was {fraction}")
        if not 0.0 < self.horizon_s < math.inf:
            raise ValueError(f"horizon_s must be positive and finite, was {self.horizon_s}")


def keyword_score(text: str) -> float:
    """(bullish - bearish) / (bullish + bearish) words in `text`; 0.0 without any.

    A bullish word at most three words after a negation in the same clause counts as bearish ("no longer bullish"); a
    negated bearish word counts as nothing, because "no crash" is not a rise.

    Source: negation of positive words only, within three words: Loughran & McDonald, "When Is a Liability Not a
        Liability?", Journal of Finance 66(1), 2011. The word lists are our own.
    """
    bullish = bearish = 0
    reach = 0  # how many more words the last negation turns
    for word in _WORDS_AND_STOPS.findall(text.lower()):
        if word in NEGATIONS or word.endswith(("n't", "n’t")):
            reach = NEGATION_REACH
            continue
        if word in BULLISH:
            bullish += reach == 0
            bearish += reach > 0
        elif word in BEARISH:
            bearish += reach == 0
        reach = reach - 1 if reach and word[0].isalpha() else 0
    return (bullish - bearish) / (bullish + bearish) if bullish + bearish else 0.0


@csp.node
def news_signal(news: ts[NewsItem], symbol: str, config: NewsSignalConfig) -> ts[Signal]:
    """Score headlines by counting words. A baseline, to be replaced by a language-model advisor.

    Counting words is weak: it knows neither who a sentence is about, nor what was expected, nor irony, nor that most
    news is already in the price. Of 9,543 labelled finance headlines (Twitter Financial News Sentiment, training part)
    it takes sides on 29 %, and is right on 55 % of those; over all it agrees with the label on 70 %, where "neutral"
    every time agrees on 65 %. Hence the low default confidence. It costs microseconds, needs no model, and shows what
    a better reader is worth.

    Args:
        news: items about any symbol; those about `symbol`, and those about no one symbol (""), count.
        symbol: which symbol's signal.

    Ticks:
        On each item that counts and scores other than zero, source "news". An item about the market as a whole has
        its confidence scaled by `market_wide_factor`.

    Source: `keyword_score`.
    """
    if csp.ticked(news):
        if news.symbol == symbol or news.symbol == "":
            score = keyword_score(f"{news.headline}. {getattr(news, 'body', '')}")
            if score != 0.0:
                return Signal(
                    symbol=symbol,
                    source="news",
                    score=score,
                    confidence=config.confidence * (1.0 if news.symbol else config.market_wide_factor),
                    horizon_s=config.horizon_s,
                    asof=csp.now(),
                )
