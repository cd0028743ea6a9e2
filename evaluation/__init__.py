"""Pure functions on arrays: what a figure in a report means."""
