"""Wiring only: it reads like the diagram in the README."""
