"""The advisor that counts words. It needs nothing, says little, and is what every other one has to beat."""

import hashlib
import re
from collections.abc import Sequence

from models.advisor.advice import LEARNT_NOTHING, Advice, Headline, each, judged


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Written for this project from plain market English.
RISING = _words(
    """
    accelerate accelerates advance advances approval approve approved approves attractive beat beating beats boom
    boost boosted boosts bounce bounces breakout bullish buyback climb climbed climbing climbs confident exceed
    exceeded exceeds expand expands expansion gain gained gaining gains grew grow growing grows growth higher hike
    hikes improve improved improvement improves improving increase increased increases inflow inflows jump jumped
    jumping jumps lifted lifts momentum optimism optimistic outperform outperformed outperforms positive profitable
    raise raised raises rallied rallies rally rallying rebound rebounded rebounds record recover recovered recovers
    recovery resilient rise rises rising rose skyrocket skyrockets soar soared soaring soars spike spiked spikes
    strength strengthen strengthens strong stronger surge surged surges surging top topped tops upbeat upgrade
    upgraded upgrades upside uptrend win wins
    """
)
FALLING = _words(
    """
    bankrupt bankruptcy bearish breach collapse collapsed collapses concern concerns contract contracts crash
    crashed crashes crisis cut cuts cutting decline declined declines declining default defaults delay delayed
    delays dip dipped dips disappoint disappointing disappoints downgrade downgraded downgrades downside downtrend
    drop dropped dropping drops fall fallen falling falls fear fears fell fraud hack hacked halt halted halts
    headwinds hit hurt hurts investigation lawsuit lawsuits layoffs lose loses losing loss losses lower miss missed
    misses negative outage outflow outflows plummet plummets plunge plunged plunges plunging pressure probe
    recession reject rejected rejects sank selloff shrink shrinks shutdown sink sinking sinks skid skids slash
    slashed slashes slid slide slides sliding slip slipped slips slow slowdown slowing slows slump slumped slumps
    struggle struggles suffer suffers theft tumble tumbled tumbles uncertainty underperform underperforms warn
    warned warning warns weak weaken weakened weakens weaker weakness worries worry worse
    """
)
NEGATIONS = _words("no not none neither never nobody nor without cannot hardly barely lacks lack fails failed unlikely")
REACH = 3  # words after a negation that it turns, within one clause

_WORDS_AND_STOPS = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|[.,;:!?]")
_NOBODY_SAYS = 0.25  # of a direction that no word speaks for, where one word counts 1


def counts(text: str) -> tuple[int, int]:
    """How many words of a text say falling, and how many rising.

    A rising word at most three words after a negation in the same clause says falling ("no longer bullish"); a negated
    falling word says nothing: no crash is not a rise.

    Source: negation of positive words only, within three words: Loughran & McDonald, "When Is a Liability Not a
        Liability?", Journal of Finance 66(1), 2011. The word lists are our own.
    """
    falling = rising = reach = 0
    for word in _WORDS_AND_STOPS.findall(text.lower()):
        if word in NEGATIONS or word.endswith(("n't", "n’t")):
            reach = REACH
            continue
        if word in RISING:
            rising += reach == 0
            falling += reach > 0
        elif word in FALLING:
            falling += reach == 0
        reach = reach - 1 if reach and word[0].isalpha() else 0
    return falling, rising


class Lexicon:
    """Counts words. Its probabilities are a rule of thumb, not calibrated.

    Args:
        threshold: of the probability of a direction; 0.5 takes one word without a contradiction.
    """

    backend = "lexicon"
    prompt_id = ""
    learnt_until = LEARNT_NOTHING
    model_id = "words-" + hashlib.sha256(" ".join((*sorted(RISING), "|", *sorted(FALLING))).encode()).hexdigest()[:12]

    def __init__(self, threshold: float = 0.5) -> None:
        if not 0.0 < threshold <= 1.0:
            raise ValueError(f"threshold must lie in (0, 1], was {threshold}")
        self._threshold = threshold

    def advise(self, batch: Sequence[Headline]) -> list[Advice]:
        return each(self, batch, self._judge)

    def close(self) -> None:
        """It holds nothing."""

    def _judge(self, headline: Headline, text: str) -> Advice:
        falling, rising = counts(text)
        return judged(self, headline, (_NOBODY_SAYS + falling, 1.0, _NOBODY_SAYS + rising), self._threshold)
