"""The kinds of file and message that kvdeck reads, and how it reads and prints each."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import socket
import threading
from collections.abc import Callable
from functools import partial

import orjson

from kvdeck.app.cli.progress import Progress
from kvdeck.app.cli.run import asked_spec
from kvdeck.app.config import Config, load
from kvdeck.app.text.monitor_report import monitor_lines
from kvdeck.app.tui import ui_state
from kvdeck.app.tui.app import Deck
from kvdeck.app.tui.bandwidth import BandwidthReader
from kvdeck.app.tui.current_plan import KEPT, planned
from kvdeck.app.tui.modes.monitor.settings import recalled
from kvdeck.app.tui.modes.plan.form import PlanForm, plan_in
from kvdeck.app.tui.modes.run.form import remembered
from kvdeck.app.tui.requests import Requests
from kvdeck.engine.client.client import Client, EngineGone
from kvdeck.engine.client.run_log import entry_of
from kvdeck.engine.daemon import recovery, run_queue, runtime
from kvdeck.engine.daemon.server import EngineConfig, Server
from kvdeck.engine.daemon.stream import RunStream, to_line
from kvdeck.engine.protocol import EventMessage, SampleMessage, WatchSample, decode
from kvdeck.engine.tasks import TaskGroup
from kvdeck.engine.telemetry.checks import check
from kvdeck.engine.telemetry.recording import TelemetrySession
from kvdeck.engine.telemetry.sample import from_mapping, take, to_mapping
from kvdeck.engine.telemetry.source import SourceGone
from kvdeck.engine.telemetry.sources.prometheus import Endpoint
from kvdeck.engine.telemetry.tracker import Track
from kvdeck.sessions.analysis import histograms
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.model.encoding import encode_line
from kvdeck.sessions.model.run_state import RunState, advance
from kvdeck.sessions.store.event_log import FileLog, read_lines
from kvdeck.sessions.store.store import Store

from . import seeds
from .seeds import COUNTED, OPEN, OTHER, RUN, SEEN
from .trial import Broken, Kind, World, command

EVERY_NTH_DECK = 400
"""One trial in so many opens the deck itself, which takes a second."""


def _any(*ways: Callable[[World], object]) -> Callable[[World], None]:
    def read(world: World) -> None:
        world.rng.choice(ways)(world)

    return read


def _verb(*arguments: str) -> Callable[[World], object]:
    return lambda world: command(*(argument.replace("ROOT", str(world.root)) for argument in arguments))


def _export(name: str, form: str) -> Callable[[World], object]:
    return _verb("session", "export", "--session", name, form, "ROOT/tmp/out")


def _verbs_of(name: str) -> list[Callable[[World], object]]:
    """Every way to print a session of kvdeck's."""
    return [_verb("report", name), _verb("report", name, "--json"), *_session_verbs_of(name)]


def _session_verbs_of(name: str) -> list[Callable[[World], object]]:
    """Every way to print a session, Dynamo's too."""
    return [
        _verb("session", "status", "-s", name),
        *(_verb("session", "report", "-s", name, "-f", form) for form in ("text", "json", "csv")),
        *(_export(name, form) for form in ("kvdeck", "csv", "json", "markdown")),
    ]


def _listed(*arguments: str) -> Callable[[World], object]:
    """A list, which no odd session takes down."""

    def read(_: World) -> None:
        try:
            command(*arguments)
        except KvdeckError as error:
            raise Broken(f"the list ended: {error}") from error

    return read


LISTS = (
    _listed("sessions"),
    _listed("sessions", "--json"),
    _listed("session", "list"),
    _listed("session", "list", "x"),
)
COMPARED = tuple(
    _verb("session", "compare", RUN, OTHER, *more)
    for more in ((), ("--json",), ("--markdown",), ("--fail-on-regression", "5"), (OPEN,))
)


# --- runs ---


def _read_samples(world: World) -> None:
    """As the report, the deck and the engine's clients read a run's lines."""
    store = Store(world.home)
    path = store.samples_path(OPEN if world.rng.random() < 0.5 else RUN)
    state, progress, feed = RunState(RUN), Progress(RUN), RunStream(RUN, path)
    with contextlib.redirect_stderr(io.StringIO()):
        for seq, raw in read_lines(path):
            encoded = to_line(RUN, seq, raw).encode(0)
            feed.push([raw])
            if not encoded:
                continue
            with contextlib.suppress(ValueError):  # as the engine's client does
                message = decode(encoded)
                if isinstance(message, (EventMessage, SampleMessage)):
                    state = advance(state, entry_of(message))
        for entry in FileLog(path).follow():
            progress.take(entry)
        orjson.dumps(feed.run.fraction)
    histograms.histograms(store.read(RUN), path)


def _rebuilt(world: World) -> None:
    store = Store(world.home)
    (store.folder(RUN) / "session.json").unlink()
    store.rebuild(RUN)


def _recovered(world: World) -> None:
    recovery.recover(Store(world.home), 0.0)
    command("sessions")


def _measured(world: World) -> None:
    BandwidthReader(Store(world.home)).read("x")  # type: ignore[arg-type]


# --- recordings ---


def _replayed(world: World) -> None:
    recording = TelemetrySession.open(world.home, SEEN)
    for moment in recording.moments():
        monitor_lines(moment, 100)
        to_mapping(moment)
    for share in (0.0, 0.3, 0.9, 1.5):
        recording.at(recording.begin + share * (recording.end - recording.begin))


# --- settings ---


def _specified(name: str, world: World) -> None:
    values = {**dict.fromkeys(("quick", "thorough"), False)}
    spec = asked_spec(str(world.root / name), values)
    spec.to_yaml(), spec.geometry, spec.topology
    for span in (spec.sweep_block_sizes, spec.sweep_batches):
        if span is not None:
            span.values()


def _remembered(world: World) -> None:
    found = ui_state.recall()
    settings = recalled(found.get("monitor"))
    settings.faster(1).to_memory()
    planned(found)
    remembered(found.get("run"))
    with contextlib.suppress(KvdeckError):
        if isinstance(found.get(KEPT), dict):
            plan_in(found[KEPT], "the deck's stored settings", PlanForm()).plan()
    if world.rng.randrange(EVERY_NTH_DECK) == 0:
        asyncio.run(_opened(Deck(requests=Requests(live=False), config=load(), memory=found)))
    ui_state.keep(found)


def _configured(world: World) -> None:
    found = load()
    if not isinstance(found, Config) or any("\n" in problem for problem in found.problems):
        raise Broken(f"problems in several lines: {found.problems}")
    command("config")
    command("sessions")
    if world.rng.randrange(EVERY_NTH_DECK) == 0:
        asyncio.run(_opened(Deck(requests=Requests(live=False), config=found, memory={})))


async def _opened(deck: Deck) -> None:
    async with deck.run_test(size=(100, 30)) as pilot:
        for key in "123459":
            await pilot.press(key)
        await pilot.pause()
    if deck.return_code:
        raise Broken(f"the deck ended with {deck.return_code}")


# --- expositions and the engine's socket ---


def _exposed(world: World) -> None:
    """Two answers of an address: a whole one, and the mutated one; both ways round."""
    for path in sorted((world.root / "tmp").glob("*.prom")):
        endpoint, track = Endpoint("http://127.0.0.1:1/metrics"), Track("http://127.0.0.1:1/metrics", "prometheus")
        texts = [seeds.expositions()[f"tmp/{path.name}"], path.read_bytes()]
        for number, data in enumerate(texts if world.rng.random() < 0.5 else [*reversed(texts), texts[0]]):
            now = (number + 1) * 1_000_000_000
            try:
                track.took(endpoint._reading(data.decode("utf-8", "replace")), now)
            except SourceGone as error:
                track.failed(str(error), now)
        moment = take([(track, 1.0)], now, wall=seeds.BEGIN)
        check(moment)
        monitor_lines(moment, 100)
        if from_mapping(orjson.loads(orjson.dumps(to_mapping(moment)))).t != moment.t:
            raise Broken("a moment does not come back as it was")


def _commanded(world: World) -> None:
    asyncio.run(_served(world))


async def _served(world: World) -> None:
    """A client's lines at the engine's own server, whose queue stands still: nothing is started."""
    failed = _Errors()
    logger = logging.getLogger("kvdeck.engine")
    logger.addHandler(failed)
    server = Server(EngineConfig(world.home, world.root / "rt", ("true",)), Store(world.home))
    ours, theirs = socket.socketpair()
    stack = contextlib.AsyncExitStack()
    try:
        reader, writer = await asyncio.open_unix_connection(sock=theirs, limit=8 << 20)
        group = server._clients = await stack.enter_async_context(TaskGroup())
        server._jobs.start(group)
        server._jobs._orders[run_queue.StartWorker] = lambda _: None
        server._recordings.start(group)
        server._accept(reader, writer)
        (serving,) = server._connections.values()
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(ours, (world.root / "tmp/commands.jsonl").read_bytes() + b"\n")
        await loop.sock_sendall(ours, b'{"v":1,"type":"status","id":77777}\n')
        data = b""
        with contextlib.suppress(asyncio.TimeoutError, OSError):
            while b'"id":77777' not in data and b"too long" not in data:
                more = await asyncio.wait_for(loop.sock_recv(ours, 1 << 18), 5)
                if not more:
                    break
                data += more
        ours.close()
        await asyncio.wait_for(serving, 5)
    finally:
        logger.removeHandler(failed)
        server._recordings.watching.close()
        ours.close()
        await asyncio.wait_for(stack.aclose(), 5)
    if failed.lines:
        raise Broken(f"the engine's log: {failed.lines[0]}")
    if b'"id":77777' not in data and b"too long" not in data:
        raise Broken("the engine answered no more")


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        frame = f" at {error.__traceback__.tb_lineno}" if error is not None and error.__traceback__ else ""
        self.lines.append(f"{record.getMessage()}: {type(error).__name__}: {error}{frame}")


def _answered(world: World) -> None:
    """The engine's lines at a client of it, folded as the deck folds them."""
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    with ours:
        sending = _sending(ours, (world.root / "tmp/answers.jsonl").read_bytes())
        try:
            client = Client(theirs, timeout=1.0)
            state = RunState(RUN)
            for message in client.messages(1.0):
                if isinstance(message, (EventMessage, SampleMessage)):
                    state = advance(state, entry_of(message))
                elif isinstance(message, WatchSample):
                    monitor_lines(from_mapping(message.snapshot), 100)
                else:
                    encode_line(message)
            client.close()
        except EngineGone:
            pass
        finally:
            theirs.close()
            sending.join(5)


def _sending(to: socket.socket, data: bytes) -> threading.Thread:
    def send() -> None:
        with contextlib.suppress(OSError):
            to.sendall(data)
            to.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


def _model_verb(world: World) -> None:
    name = world.rng.choice([name for name in seeds.models() if "model_config" not in name])
    config = f"{world.root}/tmp/run.model_config.yaml"
    verb = world.rng.choice(("plan", "kvcache", "iosize"))
    sized = world.rng.choice((("--model_config", config), ("--isl", "1000", "--tp", "2")))
    if verb == "iosize" and sized[0] != "--model_config":
        sized = ("--model_config", config)
    form = ("--format", world.rng.choice(("text", "json", "csv")))
    compat = ("--compat", "kvbench") if world.rng.random() < 0.3 and name.isupper() else ()
    command(verb, "--model", f"{world.root}/{name}", *sized, *form, *compat)


def _imported_verb(world: World) -> None:
    name = world.rng.choice(list(seeds.imported()))
    path = f"{world.root}/{name}"
    way = world.rng.randrange(5)
    if way == 0:
        command("session", "import", path)
        command("sessions")
    elif way == 1:
        command("session", "compare", path, f"{world.root}/{world.rng.choice(list(seeds.imported()))}")
    elif way == 2:
        form = world.rng.choice(("kvdeck", "csv", "json", "markdown"))
        command("session", "export", "--session", path, form, f"{world.root}/tmp/out")
    else:
        command("session", "report", "-s", path, "-f", world.rng.choice(("text", "text", "json", "csv")))


def _ends(*ends: str) -> Callable[[str], bool]:
    return lambda name: name.endswith(ends)


def _is_of(*names: str, end: str = "") -> Callable[[str], bool]:
    return lambda name: any(f"/{session}/" in name for session in names) and name.endswith(end)


def _owned(name: str) -> bool:
    """What an engine that recovers a run writes anew."""
    return name.endswith(("session.json", "samples.jsonl")) or "/active/" in name


RUNS = (*_verbs_of(RUN), *_verbs_of(OPEN))
KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "session.json",
            seeds.sessions,
            _any(*LISTS, *RUNS, *_verbs_of(COUNTED), *_verbs_of(SEEN), *COMPARED, _measured),
            _ends("session.json"),
        ),
        Kind("results", seeds.sessions, _any(*RUNS, *COMPARED, _measured), _is_of(RUN, OTHER, end="session.json")),
        Kind(
            "run.yaml",
            seeds.sessions,
            _any(_rebuilt, *_verbs_of(OPEN), partial(_specified, f"home/sessions/{RUN}/run.yaml")),
            _is_of(RUN, OPEN, end="run.yaml"),
            frozenset({f"home/sessions/{RUN}/session.json"}),
        ),
        Kind(
            "samples",
            seeds.sessions,
            _any(_read_samples, _read_samples, *_verbs_of(OPEN), *COMPARED, *LISTS),
            _is_of(RUN, OPEN, end="samples.jsonl"),
        ),
        Kind("active", seeds.owners, _recovered, rewrites=frozenset(filter(_owned, seeds.owners()))),
        Kind(
            "recording",
            seeds.sessions,
            _any(
                *(*_verbs_of(SEEN), *LISTS, _replayed, _replayed),
                _verb("session", "compare", SEEN, SEEN),
                _verb("monitor", "--replay", SEEN, "--json"),
                _export(SEEN, "jsonl"),
            ),
            _is_of(SEEN),
        ),
        Kind(
            "tallies",
            seeds.sessions,
            _any(*_verbs_of(COUNTED), *LISTS, _verb("session", "compare", COUNTED, COUNTED)),
            _is_of(COUNTED),
        ),
        Kind("index", seeds.index, _any(*LISTS), _ends(".index"), frozenset({"home/sessions.index"})),
        Kind("deck.json", seeds.memory, _remembered, rewrites=frozenset({"home/deck.json"})),
        Kind("config.yaml", seeds.settings, _configured),
        Kind("spec", seeds.specs, _any(*(partial(_specified, name) for name in seeds.specs()))),
        Kind("model", seeds.models, _model_verb),
        Kind("import", seeds.imported, _imported_verb),
        Kind(
            "dynamo",
            seeds.dynamos,
            _any(
                *(*LISTS, *_session_verbs_of("one"), *_session_verbs_of("three")),
                *(_verb("session", "status"), _verb("session", "report"), _verb("session", "compare", "one", "two")),
            ),
        ),
        Kind("exposition", seeds.expositions, _exposed),
        Kind("engine.json", seeds.engine_record, lambda world: runtime.read_record(world.root / "rt")),
        Kind("commands", seeds.commands, _commanded, _ends("commands.jsonl")),
        Kind("answers", seeds.answers, _answered),
    )
}
