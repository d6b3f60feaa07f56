"""Worker process of one run: measures, and writes each event to the session's samples and to the supervisor.

`python -m kvdeck.engine.transfer.worker --session-dir DIR` reads `DIR/run.yaml`. SIGTERM cancels the run; so does
EOF on stdin, which means that the supervisor is gone.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kvdeck.engine.host import host_facts
from kvdeck.engine.host.environment import deciding_variables
from kvdeck.engine.host.folder import default_folder
from kvdeck.engine.host.nics import nics
from kvdeck.engine.io import capability, hang, plugins
from kvdeck.engine.io.exit import run_and_exit
from kvdeck.engine.io.loop import CancelledError
from kvdeck.engine.job_worker import Scribe, Stop, tell_end, write_error
from kvdeck.engine.ranks.board import Board
from kvdeck.engine.ranks.join import RankZero
from kvdeck.engine.ranks.outpost import greeting
from kvdeck.engine.ranks.peer import PeerHost, check_apart, differences
from kvdeck.engine.ranks.ssh import open_ssh
from kvdeck.engine.spec import RunSpec, spec_from_yaml
from kvdeck.engine.transfer.path_settings import kept_paths, tune_paths
from kvdeck.engine.transfer.peer_gpus import check_path
from kvdeck.engine.transfer.run import execute
from kvdeck.engine.transfer.trials import DEFAULT_BACKENDS, Room, StandIn, Trial, plan_trials, room_of, share_time
from kvdeck.sessions.errors import KvdeckError, UnavailableError
from kvdeck.sessions.model import events, records
from kvdeck.sessions.store.owners import ENGINE_ENDED

MARKER = ".kvdeck-scratch"
"""File that marks a scratch folder as made by kvdeck, so that it may be removed."""


def make_scratch(session: Path, spec: RunSpec) -> Path:
    """Create the run's scratch folder for test files; its path is saved in scratch.txt before it is created.

    Raises:
        KvdeckError: The folder can't be created.
        UnavailableError: No default folder is writable.
    """
    base = Path(spec.folder) if spec.folder else default_folder()
    scratch = base / f"kvdeck-{session.name}-{os.getpid()}"
    (session / "scratch.txt").write_text(f"{scratch}\n")
    try:
        scratch.mkdir(mode=0o700)
        (scratch / MARKER).touch()
    except OSError as error:
        raise KvdeckError(
            f"can't write test files in {base}: {error.strerror}", "give another folder with --folder"
        ) from error
    return scratch


def remove_scratch(session: Path, scratch: Path) -> None:
    """Remove the scratch folder, if it holds the marker, and the session's scratch.txt."""
    if (scratch / MARKER).exists():
        shutil.rmtree(scratch, ignore_errors=True)
    (session / "scratch.txt").unlink(missing_ok=True)


def run(
    session: Path, scribe: Scribe, stop: Stop, joined: RankZero | None = None
) -> tuple[records.RunState, str | None]:
    """Run the session's spec: plan, tune, measure; return the final state and, if it was stopped, the reason.

    Args:
        joined: The other ranks, if they were started by a launcher; otherwise the spec's peers are reached by ssh.

    Raises:
        KvdeckError: The spec is invalid, or no scratch folder can be created.
        RunFailedError: A rank is lost, or the session can't be written.
    """
    spec = spec_from_yaml(session / "run.yaml")
    # The default is the current folder, which is the engine's.
    os.environ.setdefault("CUFILE_LOGFILE_PATH", str(session / "cufile.log"))
    scratch = make_scratch(session, spec)
    with contextlib.ExitStack() as opened:
        opened.callback(remove_scratch, session, scratch)
        peers = open_peers(spec, scribe, opened, joined, stop.asked) if spec.peer else ()
        room = room_of(host_facts(scratch), peers)
        stand_ins = find_stand_ins(spec, scratch)
        trials = announce(spec, plan_trials(spec, room, None, stand_ins), room, scratch, scribe)
        paths = dict.fromkeys(trial.path for trial in trials if can_run(trial, room, scratch))
        tuned: dict[str, RunSpec] = {}
        if spec.tune:
            tuned = tune_paths(spec, paths, room, scratch, session, scribe.emit, stop.asked)
        elif spec.tuned:
            tuned = kept_paths(spec, paths, room.host.hostname, session.parent.parent, scribe.emit)
        if tuned:
            trials = announce(spec, plan_trials(spec, room, tuned, stand_ins), room, scratch, scribe)
        planned = tuple((tuned.get(trial.path, spec), trial) for trial in trials)
        state = execute(planned, room, str(scratch), scribe.emit, stop.asked)
    if state == "cancelled" and stop.reason == ENGINE_ENDED:
        state = "interrupted"
    return state, stop.reason if state in ("cancelled", "interrupted") else None


def announce(spec: RunSpec, trials: tuple[Trial, ...], room: Room, scratch: Path, scribe: Scribe) -> tuple[Trial, ...]:
    """Divide the time between the trials, emit RunStarted with all steps, and return the trials.

    Called before the first measurement, and again if tuning changed the trials.
    """
    trials = share_time(spec, trials, lambda trial: can_run(trial, room, scratch))
    steps = tuple(step for trial in trials for step in trial.steps)
    scribe.emit(
        events.RunStarted(
            time.monotonic_ns(),
            time.time(),
            steps,
            host=room.host.comparable() | peer_facts(room.peers),
            nixl=plugins.nixl_version(),
            spec=spec.to_mapping(),
        )
    )
    return trials


def open_peers(
    spec: RunSpec,
    scribe: Scribe,
    opened: contextlib.ExitStack,
    joined: RankZero | None,
    cancelled: Callable[[], bool],
) -> tuple[PeerHost, ...]:
    """Start this run's other half on each peer, and say how the hosts differ; `opened` ends them.

    Those of ranks that `joined` are running already.

    Raises:
        CancelledError: The run was cancelled before all were there.
        KvdeckError: A peer can't be reached, or has no kvdeck of this version.
    """
    environment = link_environment(spec.peer_timeout)
    # UCX reads its variables as it is loaded. At this level it says which transports it takes; no call returns them.
    for name, value in (environment | {"UCX_LOG_LEVEL": "info"}).items():
        os.environ.setdefault(name, value)
    here = greeting()
    board = Board() if joined is None else joined.board
    opened.callback(board.leave)
    peers: list[PeerHost] = []
    for number, host in enumerate((spec.peer or ()) if joined is None else joined.hosts):
        if joined is None:
            peer = open_ssh(board, host, f"peer{number}", spec.peer_command, spec.peer_timeout, cancelled)
        else:
            peer = joined.peer(number, host, spec.peer_timeout, cancelled)
        opened.callback(peer.close)
        peers.append(peer)
        if joined is None:  # a launcher may put several ranks on a host; what they measure is then suspect
            check_apart(here, [(one.label, one.greeting) for one in peers])
        peer.begin(environment)
        for text in differences(here, peer.greeting, host):
            scribe.emit(events.Logged(time.monotonic_ns(), "warning", text))
    limits = ", ".join(f"{name}={os.environ[name]}" for name in environment)
    scribe.emit(events.Logged(time.monotonic_ns(), "info", f"between hosts: {limits}"))
    return tuple(peers)


def link_environment(timeout: float) -> dict[str, str]:
    """Return UCX's own limits between hosts; without them it never tells of a link that is down.

    Args:
        timeout: Seconds after which the run gives up.
    """
    return {
        "UCX_TCP_USER_TIMEOUT": f"{timeout:g}s",
        "UCX_TCP_SYN_CNT": "2",  # 7 s for a peer that doesn't answer, not 134 s
        "UCX_KEEPALIVE_INTERVAL": f"{max(1.0, timeout / 6):g}s",
    }


def peer_facts(peers: tuple[PeerHost, ...]) -> dict[str, Any]:
    """Return the peers' facts for the session, and this host's interfaces; nothing for a run on one host."""
    if not peers:
        return {}
    shown = ("host", "kvdeck", "python", "nixl", "ucx", "nics", "environment")
    return {
        "environment": deciding_variables(),
        "nics": [dataclasses.asdict(nic) for nic in nics()],
        "peers": [{"peer": peer.label, **{name: peer.greeting[name] for name in shown}} for peer in peers],
    }


def find_stand_ins(spec: RunSpec, scratch: Path) -> dict[str, StandIn]:
    """Return a staged backend for each path whose default (GDS) can't run, if staging through host memory can.

    A path also gets one if cuFile would use host memory itself (compatibility mode): NIXL's GDS plugin never
    completed a request of 16 × 2 MiB in that mode (NIXL 1.5.1, cuFile 1.15, H100).
    """
    found: dict[str, StandIn] = {}
    for path, backend in DEFAULT_BACKENDS.items():
        staged = f"{plugins.STAGED}POSIX"
        if backend != "GDS" or spec.backend is not None or path not in spec.moved:
            continue
        try:
            capability.check(path, backend, scratch)
            refusal = capability.limit_of_files(backend, scratch)
        except UnavailableError as error:
            refusal = error
        if refusal is not None:
            with contextlib.suppress(UnavailableError):
                capability.check(path, staged, scratch)
                found[path] = StandIn(staged, f"staged through host memory, because {refusal.what}")
    return found


def can_run(trial: Trial, room: Room, scratch: Path) -> bool:
    """True if the trial's path can run with its backend and API, on all hosts."""
    try:
        check_path(trial, room, scratch)
    except UnavailableError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--session-dir", type=Path, required=True)
    measure(parser.parse_args().session_dir.resolve())


def measure(session: Path, joined: RankZero | None = None) -> None:
    """Run a session's spec, and write its events to the session and to stdout; arguments as for `run`."""
    scribe, stop = Scribe(session), Stop()
    hang.start(lambda what: tell_end(scribe, "failed", str(KvdeckError(what, "try another --backend; see engine.log"))))
    try:
        state, reason = run(session, scribe, stop, joined)
    except CancelledError:  # before the first step
        state, reason = ("interrupted" if stop.reason == ENGINE_ENDED else "cancelled"), stop.reason
    except KvdeckError as error:
        state, reason = "failed", str(error)
    except OSError as error:
        state, reason = "failed", str(KvdeckError(*write_error(error, session)))
    tell_end(scribe, state, reason)


if __name__ == "__main__":
    run_and_exit(main)
