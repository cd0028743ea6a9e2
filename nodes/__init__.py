"""Stateful csp nodes, one concern a file."""
