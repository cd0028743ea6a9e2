"""Bars to discrete tokens and back: features, the quantisers, the codec, and the analysis of a vocabulary."""
