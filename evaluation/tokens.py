"""`python -m evaluation.tokens CHECKPOINT --data FILE`: how well a model foretells the next token."""

import sys

from evaluation.command import leave_on_interrupt, main

PROGRAM = "python -m evaluation.tokens"
ABOUT = "Judge how well a checkpoint foretells the next token, beside unigram and bigram, on bars after its training."

if __name__ == "__main__":
    leave_on_interrupt(PROGRAM)
    sys.exit(main(sys.argv[1:], program=PROGRAM, about=ABOUT, returns=False))
