"""One adapter at the edge of a graph: recorded where the run is, replayed where a recording is, made only to run."""

from collections.abc import Callable
from typing import Any

from feeds.loop import LoopAdapter
from feeds.record import Inputs, ReplayedInputs


class Tap:
    """An adapter whose outputs are inputs of the graph.

    Args:
        name: first part of the name of each recorded stream.
        make: makes the adapter; called once, while the graph is built, and never in a replay.
        inputs: records what comes in, or replays it.
    """

    def __init__(self, name: str, make: Callable[[], LoopAdapter], inputs: Inputs) -> None:
        self._name, self._make, self._inputs = name, make, inputs
        self._adapter: LoopAdapter | None = None

    def edge(self, output: str, kind: type) -> Any:
        """The ticks of one output, or what was recorded of them."""
        return self._inputs.edge(f"{self._name}-{output}", kind, lambda: self._running().edge(output))

    def send(self, port: str, edge: Any) -> None:
        """Hand the ticks of `edge` to the adapter; in a replay there is nobody to hear them."""
        if not isinstance(self._inputs, ReplayedInputs):
            self._running().send(port, edge)

    def _running(self) -> LoopAdapter:
        self._adapter = self._adapter or self._make()
        return self._adapter
