"""A live run, and its replay: the same graph, from the same inputs, compared byte for byte."""

import gc
import platform
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import csp

from brokers.opening import Opening
from configs.load import ConfigError, build, listed, plain
from configs.version import code_version
from feeds.errors import DataError
from feeds.instruments import Instrument
from feeds.record import Inputs, Recorder, RecordingInputs, ReplayedInputs
from feeds.recording import Comparison, check_unchanged, compare, complete_before, read_manifest, write_manifest
from graphs.checks import load_plugin
from graphs.forecasting import checkpoints, digest_now, digests
from graphs.live import OUTCOMES, Ends, LivePlan, System, live_graph
from graphs.live_config import LiveConfig
from graphs.live_outcome import LiveOutcome
from graphs.live_plan import Prepared, trading_of
from graphs.trading import trading_system

_GRAPH = 2  # of what the manifest says beside the format of the streams
_FAR = datetime(2200, 1, 1)  # a live run ends when it is stopped
_PACKAGES = ("csp", "numpy", "pyarrow", "ccxt", "pandas", "pandas-market-calendars", "torch")


class Stop(Protocol):
    """How a person stops a run."""

    running: bool

    def edge(self) -> Any:
        """Ticks with the first request."""


def claim(folder: Path) -> None:
    """Make the folder of a recording.

    Raises:
        ConfigError: it cannot be made, or something is in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = sorted(path.name for path in folder.iterdir())
    except OSError as exc:
        raise ConfigError(f"the folder {folder} cannot take a recording: {exc.strerror}") from None
    if there:
        raise ConfigError(f"the folder {folder} must be new or empty, it holds {listed(there, 3)}")


def run(
    ready: Prepared, stop: Stop, *, record: Path | None, show: bool, system: System = trading_system
) -> LiveOutcome:
    """Run until it is stopped; everything that comes in and goes out is recorded, where that is wanted.

    Args:
        system: what trades; see `live_graph`.

    Raises:
        ConfigError: the graph cannot be wired.
        RecordingError: the recording cannot be written.
    """
    plan = ready.plan
    recorder = None if record is None else Recorder(record)
    inputs = Inputs() if recorder is None else RecordingInputs(recorder)
    journal = "" if ready.journal is None else plan.config.journal
    ends = Ends(inputs=inputs, stop=stop.edge, warm=ready.warm, recorder=recorder, journal=journal, show=show)
    window = {"starttime": plan.start, "endtime": _FAR}
    graph = csp.build_graph(live_graph, plan, ends, system, **window)
    kept = manifest(plan)
    if record is not None:
        write_manifest(record, kept)
    # Half a million objects of the libraries and the graph stay to the end: a collection that looks at them all stops
    # both threads for 170 ms.
    gc.collect()
    gc.freeze()
    stop.running = True
    try:
        csp.run(graph, realtime=True, **window)
    except KeyboardInterrupt:
        ends.outcome.at_once = True
    finally:
        stop.running = False
        gc.unfreeze()
    if record is not None and recorder is not None:
        ended = "stop" if ends.outcome.settled is not None else "at once"
        write_manifest(record, kept | {"ended": ended, "end_ns": recorder.last_ns, "counts": recorder.counts})
    return ends.outcome


def replay(
    root: Path, out: Path, *, show: bool = False, system: System = trading_system, changed: bool = False
) -> Comparison:
    """Run the graph of a recording again, from its inputs alone, and compare what comes out.

    A run that was killed is compared strictly before the last instant up to which all of its streams are complete.

    Args:
        root: of the recording.
        out: where the replay is recorded in turn.
        system: what traded in it; the recording does not know, and tells only by being another.
        changed: its inputs may be others than were recorded.

    Raises:
        DataError: it is no recording, is damaged or was changed, or was made by another version.
        ConfigError: its config cannot be wired, such as a plugin that is not there.
        RecordingError: `out` cannot be written.
    """
    kept = read_manifest(root)
    plan = plan_of(kept, root)
    if not changed:
        check_unchanged(root, "inputs")
    claim(out)
    before_ns = complete_before(root)
    end_ns = int(kept["end_ns"]) if before_ns is None else before_ns
    inputs = ReplayedInputs(root, before_ns)
    recorder = Recorder(out)
    ends = Ends(inputs=inputs, stop=_never_made, recorder=recorder, show=show)
    window = {"starttime": plan.start, "endtime": _after(end_ns)}
    graph = csp.build_graph(live_graph, plan, ends, system, **window)
    unused = inputs.unused()
    if unused:
        raise DataError(f"{root} holds inputs that this graph does not have: {', '.join(unused)}")
    write_manifest(out, manifest(plan) | {"replay_of": str(kept["run_id"])})
    csp.run(graph, **window)
    return compare(root, out, [f"outputs/{name}" for name in OUTCOMES], before_ns)


def manifest(plan: LivePlan) -> dict[str, Any]:
    """What a replay needs to know beside the streams. It holds no secret: configs name where those are."""
    return {
        "graph": _GRAPH,
        "run_id": plan.run_id,
        "start": plan.start.isoformat(),
        "config": plain(plan.config),
        "instruments": [plain(instrument) for instrument in plan.trading.instruments],
        "opening": None if plan.opening is None else plan.opening.to_json(),
        "halted": plan.halted,
        "duration_s": plan.duration_s,
        "dry_run": plan.dry_run,
        "checkpoints": digests(plan.config.forecast, checkpoints(plan.config.forecast)),
        "code": code_version(),
        "packages": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
    }


def other_versions(root: Path) -> str:
    """What a recording was made with, where other versions run now; "" where they are the same.

    Raises:
        DataError: it is no recording.
    """
    kept = read_manifest(root)
    packages, now = kept.get("packages", {}), {"python": platform.python_version()}
    now |= {name: version(name) for name in _PACKAGES if name in packages}
    pairs = [("code", kept.get("code"), code_version()), *((name, packages.get(name), now[name]) for name in now)]
    # The answers of a model are in the recording; its tokenizer runs again, and must be the one that it had.
    pairs += [(f"checkpoint {name}", was, digest_now(name)) for name, was in kept.get("checkpoints", {}).items()]
    return ", ".join(f"{name} {was}, now {runs}" for name, was, runs in pairs if was not in (None, runs))


def plan_of(kept: dict[str, Any], root: Path) -> LivePlan:
    """The plan of a recorded run, out of its manifest.

    Raises:
        DataError: the manifest is of another format, or does not hold what it should.
        ConfigError: a plugin cannot be loaded.
    """
    if kept.get("graph") != _GRAPH:
        raise DataError(f"{root} was recorded by another version: want graph {_GRAPH}, was {kept.get('graph')!r}")
    try:
        config = build(LiveConfig, kept["config"])
        instruments = tuple(build(Instrument, values) for values in kept["instruments"])
        opening = None if kept["opening"] is None else Opening.from_json(kept["opening"])
        start, duration = datetime.fromisoformat(kept["start"]), kept["duration_s"]
        trading = trading_of(config, instruments)
        return LivePlan(
            config=config,
            trading=trading,
            run_id=str(kept["run_id"]),
            start=start,
            opening=opening,
            plugins={s.name: tuple(load_plugin(name) for name in s.signals.plugins) for s in trading.strategies},
            halted=bool(kept["halted"]),
            duration_s=duration,
            dry_run=bool(kept["dry_run"]),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise DataError(f"the manifest of {root} does not hold what a replay needs: {exc!r}") from None


def _never_made() -> Any:
    raise ConfigError("a replay hears nobody: the request to stop comes from the recording")


def _after(ns: int) -> datetime:
    """The first microsecond that is not before `ns`."""
    return datetime.fromtimestamp(0, UTC).replace(tzinfo=None) + timedelta(microseconds=-(-ns // 1000))
