"""Adapters that bring market, news and macro events into the graph."""
