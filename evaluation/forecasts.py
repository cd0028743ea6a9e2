"""`python -m evaluation.forecasts CHECKPOINT --data FILE`: how well a model foretells the next return."""

import sys

from evaluation.command import leave_on_interrupt, main

PROGRAM = "python -m evaluation.forecasts"
ABOUT = (
    "Judge a checkpoint's forecasts of returns beside volatility models, and its tokens beside unigram and bigram, on "
    "bars after its training."
)

if __name__ == "__main__":
    leave_on_interrupt(PROGRAM)
    sys.exit(main(sys.argv[1:], program=PROGRAM, about=ABOUT, returns=True))
