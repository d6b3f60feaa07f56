"""Worker process of a traffic test: starts the ranks, measures, and writes events to the session and the supervisor.

`python -m kvdeck.engine.traffic.worker --session-dir DIR` reads `DIR/run.yaml`. SIGTERM cancels the test; so does EOF
on stdin, which means that the supervisor is gone.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from pathlib import Path

from kvdeck.engine.host import host_facts
from kvdeck.engine.io import plugins
from kvdeck.engine.io.exit import run_and_exit
from kvdeck.engine.io.loop import CancelledError
from kvdeck.engine.job_worker import Scribe, Stop, tell_end, write_error
from kvdeck.engine.ranks.board import Board
from kvdeck.engine.ranks.join import RankZero
from kvdeck.engine.traffic.job import TrafficTest, plan_of
from kvdeck.engine.traffic.needs import region_bytes, resolved
from kvdeck.engine.traffic.placement import memories
from kvdeck.engine.traffic.rank_seats import seat_ranks
from kvdeck.engine.traffic.rank_set import RankSet, Seated
from kvdeck.engine.traffic.spec import TrafficSpec, spec_in
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.model import events, records
from kvdeck.sessions.model.traffic import ProcessPlace
from kvdeck.sessions.store.owners import ENGINE_ENDED


def run(
    session: Path, scribe: Scribe, stop: Stop, joined: RankZero | None = None
) -> tuple[records.RunState, str | None]:
    """Run the session's test; return the final state and, if it was stopped, the reason.

    Args:
        joined: The other processes, if a launcher started them; otherwise the spec's peers are reached by ssh.

    Raises:
        KvdeckError: The spec is invalid, needs what this host hasn't, or a rank can't open its agent.
        RunFailedError: A rank is lost, or the session can't be written.
    """
    spec = resolved(spec_in(session))
    announce(spec, scribe)
    if not spec.patterns:
        plan(spec, [], 0, scribe)
        scribe.emit(events.TrafficEnded(time.monotonic_ns(), nothing_run(spec)))
        return "done", None
    regions = memories(spec.patterns, spec.ranks)
    if joined is None:  # `seat_ranks` checks what other hosts need
        region_bytes(spec, host_facts().memory_available_bytes)
    try:
        with contextlib.ExitStack() as opened:
            board: Board = Board() if joined is None else joined.board
            seated = seat_ranks(spec, board, opened, joined, stop.asked)
            plan(spec, seated, sum(region.size for region in regions), scribe)
            measured(spec, RankSet(board, spec.patterns, regions, seated, stop.asked), scribe, stop)
    except CancelledError:
        return "interrupted" if stop.reason == ENGINE_ENDED else "cancelled", stop.reason
    return "done", None


def measured(spec: TrafficSpec, ranks: RankSet, scribe: Scribe, stop: Stop) -> None:
    """Measure a test on ranks that are started, and end them; raises as `TrafficTest` does."""
    ranks.open()
    test = TrafficTest(spec, ranks, scribe.emit, stop.asked)
    test.prepare()
    test.measure()
    if spec.verify or spec.print_received:
        test.verify()
    ranks.close()


def announce(spec: TrafficSpec, scribe: Scribe) -> None:
    """Emit that the test has begun."""
    host = host_facts()
    scribe.emit(
        events.RunStarted(
            time.monotonic_ns(),
            time.time(),
            (),
            host=host.comparable(),
            nixl=plugins.nixl_version(),
            spec={"job": "traffic", **spec.to_mapping()},
        )
    )


def plan(spec: TrafficSpec, seated: list[Seated], region_bytes: int, scribe: Scribe) -> None:
    """Emit the test's patterns and processes."""
    iterations, warmup, isolation = spec.counts
    places = tuple(ProcessPlace(one.member.rank, one.host, one.ranks[0], one.ranks[-1]) for one in seated)
    plans = tuple(plan_of(number, pattern) for number, pattern in enumerate(spec.patterns))
    scribe.emit(
        events.TrafficPlanned(
            time.monotonic_ns(), spec.mode, plans, places, iterations, warmup, isolation, spec.verify, region_bytes
        )
    )


def nothing_run(spec: TrafficSpec) -> dict[str, object]:
    """Return upstream's result of a test without patterns."""
    return {"iterations_results": [[] for _ in range(spec.counts[0])], "metadata": {"iters": []}}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--session-dir", type=Path, required=True)
    measure(parser.parse_args().session_dir.resolve())


def measure(session: Path, joined: RankZero | None = None) -> None:
    """Run a session's spec, and write its events to the session and to stdout; arguments as for `run`."""
    scribe, stop = Scribe(session), Stop()
    state: records.RunState
    try:
        state, reason = run(session, scribe, stop, joined)
    except KvdeckError as error:
        state, reason = "failed", str(error)
    except OSError as error:
        state, reason = "failed", str(KvdeckError(*write_error(error, session)))
    tell_end(scribe, state, reason)


if __name__ == "__main__":
    run_and_exit(main)
