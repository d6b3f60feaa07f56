"""What is killed, when and how, and what must hold after it; one function per kind of victim."""

from __future__ import annotations

import contextlib
import itertools
import os
import pty
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import orjson

from kvdeck.sessions.model.records import FINAL_STATES
from tests.support.programs.metrics_server import metrics_server, says

from .world import PATIENCE_S, Broken, World, wait_until

SMALL = ("run", "--path", "HostToHost", "--batch", "4", "--blocks", "64")
"""Few blocks: the bytes of the whole working set are verified after a run, block for block."""
SHORT = (*SMALL, "--block-size", "4096", "--iterations", "5")
LONG = (*SMALL, "--block-size", "64K", "--seconds", "2")
REAL_TIME = 35
SIGNALS = (
    signal.SIGKILL, signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM, signal.SIGINT, signal.SIGHUP,
    REAL_TIME,
)  # fmt: skip
COUNTING = """
import sys, time
from kvdeck.sessions.recorder import TransferCounter
from pathlib import Path
recorder = TransferCounter(Path(sys.argv[1]))
while True:
    recorder.record("DeviceToHost", "FullyContiguous", 2048, 1, 2e-5, 1)
    time.sleep(0.001)
"""
ENGINE_RECORDS = """
import sys
from kvdeck.engine.client.client import Client
with Client.connect() as client:
    client.record("telemetry", hz=10, sources=(sys.argv[1],))
"""
NIXLBENCH = """#!/bin/sh
sleep 600 &
echo "Block Size (B)      Batch Size     B/W (GB/Sec)   Avg Lat. (us)"
if [ -n "$KVDECK_KILLS_QUICK" ]; then sleep 0.5; kill %1; exit 3; fi
wait
"""


def kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def lines(path: Path) -> bytes:
    """The whole lines that are in a file now."""
    try:
        data = path.read_bytes()
    except OSError:
        return b""
    return data[: data.rfind(b"\n") + 1]


def ended(world: World, name: str) -> bool:
    state = world.sessions().get(name)
    return state is None or state in FINAL_STATES


def settle(world: World, name: str) -> None:
    """Wait for a session's end, and attach to it, which ends too."""
    wait_until(lambda: ended(world, name), PATIENCE_S, f"{name} stays {world.sessions().get(name)}")
    if name in world.sessions():
        world.call("attach", name)


def next_run(world: World) -> None:
    """A run started now must be done.

    Raises:
        Broken: It is not.
    """
    done = world.call(*SHORT, "--session", "next", timeout=60)
    if done.returncode or world.sessions().get("next") != "done":
        raise Broken(f"the next run is {world.sessions().get('next')}: {done.stderr.strip()[-500:]}")


def same_beginning(before: bytes, path: Path) -> None:
    """What was in a log must still be in it.

    Raises:
        Broken: It is not.
    """
    if path.parent.exists() and not path.read_bytes().startswith(before):
        raise Broken(f"{path.name} lost lines that had been written")


def kill_run(world: World, chance: random.Random) -> str:
    """A worker or a rank, while the run is followed and another one waits."""
    follower = world.kvdeck(*LONG, "--session", "first", output=world.root / "out")
    wait_until(lambda: world.engine_pid() is not None, PATIENCE_S, "no engine starts")
    time.sleep(chance.uniform(0.0, 4.0))
    engine = world.engine_pid()
    victims = world.below(engine) if engine else []
    number = chance.choice(SIGNALS)
    log = world.home / "sessions/first/samples.jsonl"
    before = lines(log)
    victim = chance.choice(victims) if victims else None
    told = f"signal {number} to {'a child of the engine' if victim else 'nobody'}"
    if victim:
        kill(victim, number)
    wait_until(lambda: follower.poll() is not None, 30.0, f"{told}: the follower has not ended")
    settle(world, "first")
    same_beginning(before, log)
    next_run(world)
    return told


def kill_engine(world: World, chance: random.Random) -> str:
    """The engine while it starts, runs, or ends; sometimes it is only stopped, so that it hangs."""
    follower = world.kvdeck(*LONG, "--session", "first", output=world.root / "out")
    log = world.home / "sessions/first/samples.jsonl"
    wait_until(lambda: world.engine_pid() is not None, PATIENCE_S, "no engine starts")
    time.sleep(chance.uniform(0.0, 4.0))
    number = chance.choice((*SIGNALS, signal.SIGSTOP))
    before, engine = lines(log), world.engine_pid()
    if engine:
        kill(engine, number)
    if number == signal.SIGSTOP:
        stopped = world.call("engine", "stop", "--force")
        if stopped.returncode:
            raise Broken(f"a stopped engine is not ended: {stopped.stderr.strip()}")
    wait_until(lambda: follower.poll() is not None, 30.0, f"signal {number}: the follower has not ended")
    settle(world, "first")
    same_beginning(before, log)
    next_run(world)
    return f"signal {number} to the engine"


def kill_deck(world: World, chance: random.Random) -> str:
    """A deck, or its terminal, while a run goes on: the run is not the deck's to take along."""
    started = world.call(*LONG, "--session", "first", "--detach")
    if started.returncode:
        raise Broken(f"--detach ends with {started.returncode}: {started.stderr}")
    master, slave = pty.openpty()
    deck = world.start(
        sys.executable, "-m", "kvdeck.app.cli.main", stdin=slave, stdout=slave, stderr=slave,
        env={**world.environment, "TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(slave)
    reader = threading.Thread(target=drain, args=(master,), daemon=True)
    reader.start()
    try:
        time.sleep(chance.uniform(0.0, 2.0))
        for key in chance.choices(("1", "2", "3", "4", "9", "?", "\x1b", "d", "x"), k=chance.randrange(4)):
            os.write(master, key.encode())
            time.sleep(chance.uniform(0.0, 0.3))
        number = chance.choice(SIGNALS)
        kill(deck.pid, number)
        if number in (signal.SIGINT, REAL_TIME, signal.SIGHUP):
            time.sleep(0.2)
            kill(deck.pid, signal.SIGTERM)
        wait_until(lambda: deck.poll() is not None, 10.0, f"signal {number}: the deck lives on")
    finally:
        deck.kill()
        deck.wait()
        reader.join()
        os.close(master)
    settle(world, "first")
    if world.sessions().get("first") not in ("done", "cancelled", None):
        raise Broken(f"signal {number} to the deck: its run is {world.sessions().get('first')}")
    next_run(world)
    return f"signal {number} to the deck"


def drain(master: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(master, 65536):
            pass


@contextlib.contextmanager
def growing() -> Iterator[str]:
    """The address of an exporter whose counter grows with each answer."""
    count = itertools.count()

    def answer(request: BaseHTTPRequestHandler) -> None:
        text = f"# TYPE kvbm_offload_blocks_d2h counter\nkvbm_offload_blocks_d2h {next(count)}\n"
        says(text)(request)

    with metrics_server({"/metrics": answer}) as server:
        yield server.url("/metrics")


def kill_telemetry(world: World, chance: random.Random) -> str:
    """`kvdeck monitor --record`, from its first instant on."""
    with growing() as address:
        output = world.root / "out"
        recorder = world.kvdeck(
            "monitor", "--json", "--record", "telemetry", "--hz", "10", "--source", address, output=output
        )
        if chance.random() < 0.5:
            with contextlib.suppress(Broken):
                wait_until(lambda: (world.home / "sessions/telemetry").exists(), 5.0, "")
            time.sleep(chance.uniform(0.0, 0.2))
        else:
            time.sleep(chance.uniform(0.0, 3.0))
        number = chance.choice(SIGNALS)
        kill(recorder.pid, number)
        if number == signal.SIGHUP:
            kill(recorder.pid, signal.SIGTERM)
        wait_until(lambda: recorder.poll() is not None, 10.0, f"signal {number}: the recorder lives on")
    printed = [line for line in lines(output).splitlines() if line.startswith(b"{")]
    settle(world, "telemetry")
    if printed:
        replayed = world.call("monitor", "--replay", "telemetry", "--json").stdout.splitlines()
        if len(replayed) < len(printed):
            raise Broken(f"signal {number}: {len(printed)} moments were printed, {len(replayed)} are kept")
    return f"signal {number} to the recorder, {len(printed)} moments printed"


def kill_engine_telemetry(world: World, chance: random.Random) -> str:
    """The engine that records, or the child that samples for it."""
    with growing() as address:
        asking = world.start(sys.executable, "-c", ENGINE_RECORDS, address, output=world.root / "out")
        wait_until(lambda: world.engine_pid() is not None, PATIENCE_S, "no engine starts")
        time.sleep(chance.uniform(0.0, 2.0))
        engine = world.engine_pid()
        children = world.below(engine) if engine else []
        victim = chance.choice(children) if children and chance.random() < 0.5 else engine
        number = chance.choice(SIGNALS)
        if victim:
            kill(victim, number)
        wait_until(lambda: asking.poll() is not None, PATIENCE_S, "who asked for the recording has not ended")
        time.sleep(0.3)
        if world.sessions().get("telemetry") not in (None, *FINAL_STATES):
            world.call("cancel", "telemetry")
    settle(world, "telemetry")
    who = "nobody" if victim is None else "the engine" if victim == engine else "its sampler"
    return f"signal {number} to {who}"


def kill_trace(world: World, chance: random.Random) -> str:
    """A program that counts, or the `kvdeck` that started it."""
    folder = world.home / "sessions/trace"
    tracer = world.kvdeck(
        "trace", "trace", "--", sys.executable, "-c", COUNTING, str(folder), output=world.root / "out"
    )
    time.sleep(chance.uniform(0.0, 3.0))
    counted = transfers(world)
    family = [tracer.pid, *world.below(tracer.pid)]
    victim, number = chance.choice(family), chance.choice(SIGNALS)
    kill(victim, number)
    with contextlib.suppress(Broken):
        wait_until(lambda: tracer.poll() is not None, 2.0, "")
    for each in (*world.below(tracer.pid), tracer.pid):
        kill(each, signal.SIGKILL)
    for each in world.living():
        kill(each, signal.SIGKILL)
    wait_until(lambda: not world.living(), 5.0, "the program lives on")
    # its zombie, if it has one, stays until this process takes its status: that must not keep the session alive
    wait_until(lambda: ended(world, "trace"), 15.0, f"the trace stays {world.sessions().get('trace')}")
    if transfers(world) < counted:
        raise Broken(f"signal {number}: {counted} transfers were shown, {transfers(world)} are kept")
    return f"signal {number} to {'kvdeck' if victim == tracer.pid else 'the program'}, {counted} transfers shown"


def transfers(world: World) -> int:
    row = world.rows().get("trace")
    return row.transfers if row is not None else 0


def kill_external(world: World, chance: random.Random) -> str:
    """`profile --exec nixlbench`, whose nixlbench has a child of its own: nothing of it may live on."""
    folder = world.root / "bin"
    folder.mkdir()
    (folder / "nixlbench").write_text(NIXLBENCH)
    (folder / "nixlbench").chmod(0o755)
    environment = {**world.environment, "PATH": f"{folder}:{os.environ['PATH']}"}
    profile = world.kvdeck(
        "profile", "--model", "qwen3-0.6b", "--isl", "64", "--page_size", "16", "--exec", "nixlbench",
        "--backend", "posix", "--session", "theirs",
        output=world.root / "out", env=environment,
    )  # fmt: skip
    if chance.random() < 0.5:
        with contextlib.suppress(Broken):
            wait_until(lambda: "nixlbench" in " ".join(world.living().values()), 5.0, "")
    time.sleep(chance.uniform(0.0, 1.5))
    number, twice = chance.choice(SIGNALS), chance.random() < 0.3
    kill(profile.pid, number)
    if twice:
        time.sleep(chance.uniform(0.0, 0.1))
        kill(profile.pid, number)
    wait_until(lambda: profile.poll() is not None, 10.0, f"signal {number}: `profile --exec` lives on")
    wait_until(lambda: not world.living(), 5.0, f"signal {number}: still runs: {world.living()}")
    settle(world, "theirs")
    state, want = world.sessions().get("theirs"), {signal.SIGHUP: 129, signal.SIGTERM: 143, signal.SIGINT: 130}
    text = (world.root / "out").read_text(errors="replace")
    if number in want and state is not None and "cancelled" in text and profile.returncode != want[number]:
        raise Broken(f"signal {number}: exit {profile.returncode}, not {want[number]}: {text[-300:]}")
    return f"signal {number}{' twice' if twice else ''} to `profile --exec`: {state}"


def kill_edit(world: World, chance: random.Random) -> str:
    """Verbs that change a session's file: the old or the new state is there, and no other session is touched."""
    for name in ("mine", "other"):
        folder = world.home / "sessions" / name
        folder.mkdir(parents=True, mode=0o700)
        session = {"name": name, "state": "done", "created": 1.0, "tags": ["a"], "note": "before"}
        (folder / "session.json").write_bytes(orjson.dumps(session))
    other = (world.home / "sessions/other/session.json").read_bytes()
    arguments = chance.choice(
        [("rename", "mine", "yours"), ("tag", "mine", "b"), ("note", "mine", "after"), ("delete", "mine", "--yes")]
    )
    editor = world.kvdeck("session", *arguments, output=world.root / "out")
    time.sleep(chance.uniform(0.1, 0.6))
    kill(editor.pid, signal.SIGKILL)
    editor.wait()
    if (world.home / "sessions/other/session.json").read_bytes() != other:
        raise Broken(f"`session {' '.join(arguments)}` changed another session")
    there = set(world.sessions()) - {"other"}
    allowed: dict[str, tuple[set[str], ...]] = {
        "rename": ({"mine"}, {"yours"}), "delete": ({"mine"}, set()), "tag": ({"mine"},), "note": ({"mine"},),
    }  # fmt: skip
    if there not in allowed[arguments[0]]:
        raise Broken(f"`session {' '.join(arguments)}` killed: there is {sorted(there)}")
    for name in there:
        tagged = world.call("session", "tag", name, "late")
        if tagged.returncode:
            raise Broken(f"{name} can't be tagged after a kill: {tagged.stderr.strip()}")
    if (world.home / "sessions/other/session.json").read_bytes() != other:
        raise Broken("tagging after the kill changed another session")
    return f"`session {arguments[0]}` killed"


TRIALS: dict[str, Callable[[World, random.Random], str]] = {
    "run": kill_run,
    "engine": kill_engine,
    "deck": kill_deck,
    "telemetry": kill_telemetry,
    "engine-telemetry": kill_engine_telemetry,
    "trace": kill_trace,
    "external": kill_external,
    "edit": kill_edit,
}


def attempt(kind: str, seed: int) -> tuple[str, list[str]]:
    """One kill of that kind.

    Returns:
        What was done, and what did not hold; nothing where all is well.
    """
    world, broken, what = World(), [], kind
    try:
        what = TRIALS[kind](world, random.Random(f"{kind} {seed}"))
    except Broken as error:
        broken.append(str(error))
    broken += world.close()
    return what, broken
