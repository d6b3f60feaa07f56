"""Mode 3: transfers between the KV-cache tiers, live or from the past, with their sources and cross-checks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal

from kvdeck.app.tui.connection import TelemetryRequest
from kvdeck.app.tui.current_plan import planned
from kvdeck.app.tui.messages import PastSampled, RecordingsSeen, ReplayAsked, TelemetrySampled
from kvdeck.app.tui.modes.base import OPENING, SHORT, DeckScreen
from kvdeck.app.tui.modes.monitor import dialogs
from kvdeck.app.tui.modes.monitor.alerts import Thresholds
from kvdeck.app.tui.modes.monitor.history import flow_key
from kvdeck.app.tui.modes.monitor.keys import KEYS
from kvdeck.app.tui.modes.monitor.panes.cache import Reuse
from kvdeck.app.tui.modes.monitor.panes.chart import FlowChart
from kvdeck.app.tui.modes.monitor.panes.engines import Engines
from kvdeck.app.tui.modes.monitor.panes.flows import Paths, Pinned
from kvdeck.app.tui.modes.monitor.panes.header import MonitorBar, state_of
from kvdeck.app.tui.modes.monitor.panes.host import Host
from kvdeck.app.tui.modes.monitor.panes.panel import Panel
from kvdeck.app.tui.modes.monitor.panes.service import ServedEngines
from kvdeck.app.tui.modes.monitor.panes.status import AnnotationLog, Checks, Sources
from kvdeck.app.tui.modes.monitor.panes.strip import TimeStrip
from kvdeck.app.tui.modes.monitor.panes.tiers import Tiers
from kvdeck.app.tui.modes.monitor.panes.tiles import Tiles
from kvdeck.app.tui.modes.monitor.player import PLAY_S, Player
from kvdeck.app.tui.modes.monitor.settings import Settings, recalled
from kvdeck.app.tui.modes.monitor.source_chooser import SourceChooser
from kvdeck.app.tui.modes.monitor.timeline import LARGE_STEP_S, Timeline
from kvdeck.app.tui.source_search import FoundSource, FoundSources
from kvdeck.app.tui.widgets.lines import Lines
from kvdeck.engine.protocol import RecordingState
from kvdeck.engine.telemetry.limits import ServiceLimits
from kvdeck.engine.telemetry.sample import Snapshot as Sample
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.units import exact_size_text

if TYPE_CHECKING:
    from textual.message import Message
    from textual.timer import Timer

    from kvdeck.app.tui.state import EngineState

LINGER_S = 60.0
"""Seconds that samples are received after leaving the Monitor; with an alert set, until the deck ends."""
OVERDUE_S, OVERDUE_PERIODS = 3.0, 2.5
"""Age of the newest sample from which it is shown: the larger of these seconds and sampling periods."""
RETRY_S = 0.25
WATCH = "watch"
"""Group of the workers that change the subscription."""
VIEWS = ("checks", "engines", "served", "paths", "reuse", "host", "sources", "pinned", "strip", "log")
"""The panes below the tiers, as `v` goes through them."""
DETAILS = ("engines", "served", "paths", "reuse", "sources")
"""Panes of which one is shown where there is no room for all."""
ZOOMED = ("chart", "tiers", *VIEWS)
ROOMY = (170, 50)
"""Columns and rows from which every pane has a place."""
READ, READ_S = frozenset({"engines", "served", "reuse", "host", "sources", "strip"}), 0.9
"""Panes of text and tables, and the seconds between their redraws; the others are drawn with every sample."""
ASKING = "Reading the sources for the first time …"
LOOKING = "Searching this host for sources …"


class MonitorScreen(DeckScreen):
    """The Monitor. Once sources are selected, the engine samples as long as the deck is open.

    The deck receives the samples while the Monitor is in front, and for `LINGER_S` after; those that it misses then
    come from the engine when it is in front again.
    """

    CSS_PATH = "monitor.tcss"
    BINDINGS: ClassVar[list[BindingType]] = KEYS
    PANES: ClassVar = {
        name: {"host": "this host", "strip": "time line", "checks": "health"}.get(name, name) for name in VIEWS
    }

    def __init__(self) -> None:
        super().__init__()
        self.settings = Settings()
        self.timeline = Timeline(Thresholds())
        self.recording: RecordingState | None = None
        self.found: tuple[FoundSource, ...] = ()
        self._searched = False
        """Whether a search of this host has ended, in the dialog of the first visit too."""
        self.zoomed: str | None = None
        self._watching: TelemetryRequest | None = None
        self._linger: Timer | None = None
        self._waits = self._asked = self._built = self._replays = False
        self._panes: list[Panel | Paths | Pinned] | None = None
        self.pictured = 0.0
        self._read = 0.0
        self.player = Player(self)

    def body(self) -> ComposeResult:
        yield MonitorBar(id="bar")
        yield Tiles(id="tiles")
        yield Tiers(id="tiers")
        yield FlowChart(id="chart")
        yield Engines(id="engines")
        with Horizontal(id="detail"):
            yield ServedEngines(id="served")
            yield Paths(id="paths")
            yield Reuse(id="reuse")
        with Horizontal(id="health"):
            yield Checks(id="checks")
            yield Host(id="host")
            yield Sources(id="sources")
        yield TimeStrip(id="strip")
        with Horizontal(id="bottom"):
            yield AnnotationLog(id="log")
            yield Pinned(id="pinned")

    def on_mount(self) -> None:
        self.settings = recalled(self.app.memory.get("monitor"))
        if self.app.config.block_bytes:
            self.settings = replace(self.settings, block_bytes=self.app.config.block_bytes, block_from="as configured")
        self.timeline.thresholds = Thresholds(self.settings.thresholds)
        self._show_alert_problems()
        self.query_one(Tiers).focus()
        self._clock = self.set_interval(PLAY_S, self.player.play, pause=True)
        self._ages = self.set_interval(1.0, self._show_age)
        super().on_mount()
        self._arrange()

    def on_resize(self) -> None:
        if self.ready:
            self._arrange()

    @property
    def ready(self) -> bool:
        # Cached: called several times per sample, and never false again once true.
        self._built = self._built or super().ready
        return self._built

    # --- watching ---

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        if self._linger is not None:
            self._linger.stop()
        if not self._asked:
            self._asked = True
            if self.settings.sources is None:
                self.call_after_refresh(self._ask_first)
            else:
                self.ask(lambda: self._find_sources(), "sources", exclusive=True)
        self._watch()

    def on_screen_suspend(self) -> None:
        self._asked = False
        if self.app.current_mode != "monitor" and not self.timeline.thresholds.set_:
            self._linger = self.set_timer(LINGER_S, self._be_quiet)

    def _be_quiet(self) -> None:
        """Let the engine sample, but receive no samples."""
        if self._watching is not None and not self._watching.quiet:
            quiet = self._watching = replace(self._watching, quiet=True)
            self.ask(lambda: self.app.requests.watch(quiet, self._post_here), WATCH)

    def _stop(self) -> None:
        if self._watching is not None:
            self._watching = None
            self.ask(lambda: self.app.requests.watch(None, self._post_here), WATCH)

    def _post_here(self, message: Message) -> None:
        if self.is_running:
            self.post_message(message)

    def wanted(self) -> TelemetryRequest | None:
        """Return the sampling request for the engine; None if no source is selected."""
        sources = self.settings.sources
        if not sources:
            return None
        settings = self.settings
        config = self.app.config
        return TelemetryRequest(
            sources,
            settings.hz,
            settings.block_bytes,
            settings.pins,
            config.stuck_s,
            tuple(sorted(config.limits.items())),
        )

    def _watch(self) -> None:
        """Start sampling, or restart it if the sampling request has changed."""
        wanted = self.wanted()
        if wanted is None:
            self._stop()
        elif wanted != self._watching and self.app.requests.live:
            self._watching = wanted
            self.ask(lambda: self.app.requests.watch(wanted, self._post_here), WATCH)

    def change(self, settings: Settings) -> None:
        """Apply and save new settings, and restart sampling if they need it."""
        self.settings = settings
        self.app.memory["monitor"] = settings.to_memory()
        self._watch()
        self._arrange()
        self.draw()

    @on(TelemetrySampled)
    def note_sample(self, message: TelemetrySampled) -> None:
        if message.error:
            self.timeline.error = message.error
        else:
            for crossing in self.timeline.note(message.sample, self.settings.pins, message.packed):
                self.annotate_recording(crossing.text, "threshold", crossing.t)
                if crossing.told:
                    self.notify(crossing.text, title="alert", severity="warning", markup=False)
            self._show_alert_problems()
        self._paint(tick=True)

    def _show_alert_problems(self) -> None:
        problems, self.timeline.thresholds.problems = self.timeline.thresholds.problems, []
        for problem in problems:
            self.notify(problem, title="alert", severity="warning", markup=False)

    @on(PastSampled)
    def note_past(self, message: PastSampled) -> None:
        self.timeline.note_past(message.sample, self.settings.pins, message.packed, whole=not message.left)
        if not message.left:
            self.timeline.error = ""
            self._paint()

    def age(self) -> float | None:
        """Return the age in seconds of the newest sample, if it is older than it should be."""
        age = self.timeline.age_s(time.monotonic_ns())
        return None if age is None or age < max(OVERDUE_S, OVERDUE_PERIODS / self.settings.hz) else age

    def _show_age(self) -> None:
        """Redraw the status line while no sample comes, so that it shows the age of the newest."""
        if self.app.current_mode == "monitor" and self.ready and not self.app.paused and self.age() is not None:
            bar = self.query_one(MonitorBar)
            bar.apply(state_of(self), bar.moment)

    @on(RecordingsSeen)
    def note_recordings(self, message: RecordingsSeen) -> None:
        before = self.recording
        going = [state for state in message.recordings if state.state in ("queued", "running")]
        self.recording = going[-1] if going else None
        if before is not None and self.recording is None:
            ended = next((state for state in message.recordings if state.name == before.name), before)
            self.notify(f"{ended.name} saved: {ended.reason or 'o or 4 opens it'}", markup=False)
        self.refresh_bindings()
        self._paint()

    def session_shown(self) -> str:
        replay = self.timeline.replay
        return replay.recording.name if replay is not None else "" if self.recording is None else self.recording.name

    # --- painting ---

    def apply(self, engine: EngineState) -> None:
        super().apply(engine)
        if self.app.paused:
            self._say(self.query_one(MonitorBar).moment)
        self._paint()

    def _paint(self, tick: bool = False) -> None:
        """Draw unless the display is frozen or hidden; a slow terminal is drawn to `RETRY_S` later."""
        if self.app.paused or not self.ready or self.app.current_mode != "monitor":
            return
        if self.app.frames.may_paint():
            if self.draw(tick):
                self.app.frames.has_painted()
        elif not self._waits:
            self._waits = True
            self.set_timer(RETRY_S, self._paint_again)

    def _paint_again(self) -> None:
        self._waits = False
        self._paint()

    def draw(self, tick: bool = False) -> bool:
        """Draw the panes; return True if any pane changed.

        Args:
            tick: Only a new sample arrived: panes in `READ` are then drawn at most once per `READ_S`.
        """
        if not self.ready:
            return False
        tiles = self.query_one(Tiles)
        panes = [self.query_one(MonitorBar), tiles, *self.panes]
        before = sum(pane.changes for pane in panes)
        looking = self.settings.sources is None and not self.found and not self._searched
        waits = ASKING if self.settings.sources else LOOKING if looking else ""
        view = replace(
            self.timeline.view(self.settings.pins, waits if self.app.requests.live else ""),
            kv_limit=self.app.config.limits.get("kv_usage", ServiceLimits().kv_usage),
        )
        self.pictured = view.now
        self._say(view.moment)
        all_of_them = not tick or not 0 <= view.now - self._read < READ_S
        if all_of_them:
            self._read = view.now
        if not tiles.has_class("-away"):
            tiles.apply(view)
        for pane in self.panes:
            if not pane.has_class("-away") and (all_of_them or pane.id not in READ or pane.id == self.zoomed):
                pane.apply(view)
        return sum(pane.changes for pane in panes) != before

    def _say(self, moment: Sample) -> None:
        """Draw the status line above the panes."""
        self.query_one(MonitorBar).apply(state_of(self), moment)

    @property
    def panes(self) -> list[Panel | Paths | Pinned]:
        if self._panes is None:
            self._panes = [self.query_one(f"#{name}") for name in ("tiers", "chart", *VIEWS)]  # type: ignore[misc]
        return self._panes

    def _arrange(self) -> None:
        """Show the panes that fit, or only the zoomed one."""
        one = self.size.width < 110 or self.size.height < SHORT
        roomy = self.size.width >= ROOMY[0] and self.size.height >= ROOMY[1]
        self.set_class(one, "-one")
        self.set_class(roomy and not one, "-roomy")
        self.set_class(self.zoomed is not None, "-zoomed")
        here = self.settings.pane
        if one:
            shown = {"tiers", here if here in VIEWS else "checks"}
        elif roomy:
            shown = {"tiers", *VIEWS} - (set() if self.settings.pins else {"pinned"})
        else:
            shown = {"tiers", "checks", "strip", "log", here if here in DETAILS else "engines"}
            shown.add("host" if here != "sources" else here)
            shown.add("engines" if here == "sources" else "checks")
            if self.settings.pins:
                shown.add("pinned")
        if self.zoomed is not None:
            shown = {self.zoomed}
        for pane in self.panes:
            pane.set_class(pane.id not in shown, "-away")
        self.query_one(Tiles).set_class(self.zoomed is not None, "-away")
        for side in ("detail", "health", "bottom"):
            panes = self.query_one(f"#{side}").query(Lines)
            self.query_one(f"#{side}").set_class(all(pane.has_class("-away") for pane in panes), "-away")
        if self.focused is None or self.focused.has_class("-away"):
            self.query_one(f"#{self.zoomed or 'tiers'}").focus()
        self.refresh_bindings()
        self.draw()

    # --- keys: view and time ---

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        timeline, replaying = self.timeline, self.timeline.replay is not None
        if action == "live":
            return replaying or timeline.shown is not None
        if action == "view":
            return self.zoomed is not None or not self.has_class("-roomy")
        if action == "record":
            return not self.app.readonly and not replaying
        return not replaying if action in ("annotate", "sources") else True

    def action_zoom(self) -> None:
        focused = None if self.focused is None else self.focused.id
        here = focused if focused in VIEWS else "tiers"
        tiers = self.query_one(Tiers)
        if self.zoomed is not None:
            back = "tiers" if self.zoomed == "chart" else self.zoomed
            self.zoomed = None
            self._arrange()
            self.query_one(f"#{back}").focus()
            return
        if here == "tiers" and (flow := tiers.under_cursor) is not None:
            here = "chart"
            self.query_one(FlowChart).chosen = flow_key(flow)
        self.zoomed = here
        self._arrange()

    def action_view(self) -> None:
        if self.zoomed is not None:
            self.zoomed = ZOOMED[(ZOOMED.index(self.zoomed) + 1) % len(ZOOMED)]
            self.query_one(f"#{self.zoomed}").remove_class("-away")
            self._arrange()
            self.query_one(f"#{self.zoomed}").focus()
        else:
            views = VIEWS if self.has_class("-one") else DETAILS
            shown = self.settings.pane if self.settings.pane in views else "checks" if views is VIEWS else "engines"
            self.change(replace(self.settings, pane=views[(views.index(shown) + 1) % len(views)]))

    def action_back(self) -> None:
        if self.zoomed is not None:
            self.action_zoom()
        else:
            self.action_live()

    def action_step(self, by: int) -> None:
        self._seek(float(by))

    def action_leap(self, by: int) -> None:
        replay = self.timeline.replay
        self._seek(by * (LARGE_STEP_S if replay is None else replay.large_step))

    def action_seek_begin(self) -> None:
        self._seek(float("-inf"))

    def action_seek_end(self) -> None:
        self._seek(float("inf"))

    def _seek(self, seconds: float) -> None:
        replay = self.timeline.replay
        if replay is not None:
            self.player.step(seconds)
            return
        self.timeline.step(seconds)
        self.refresh_bindings()
        self.draw()

    def action_live(self) -> None:
        self._replays = False
        self.timeline.live()
        self._clock.pause()
        self.refresh_bindings()
        self._watch()
        self.draw()

    def action_faster(self, by: int) -> None:
        if self.timeline.replay is not None:
            self.timeline.replay.faster(by)
            self.draw()
        else:
            self.change(self.settings.faster(by))

    # --- a recording ---

    def action_open(self) -> None:
        self.ask(lambda: self._choose_recording(), OPENING, exclusive=True)

    async def _choose_recording(self) -> None:
        from kvdeck.app.tui.dialogs.picker import Choice, Picker

        rows = await self.app.requests.list_sessions()
        choices = [Choice(row.name, row.state) for row in rows if row.kind == "telemetry"]

        def taken(name: str | None) -> None:
            if name is not None:
                self.post_message(ReplayAsked(name))

        self.app.push_screen(Picker("Recording:", choices, "no recording yet · R starts one"), taken)

    async def on_replay_asked(self, message: ReplayAsked) -> None:
        self._replays = True
        if isinstance(self.app.screen, SourceChooser):  # opened by itself, and a recording needs no sources
            await self.app.pop_screen()
        try:
            await self.player.open(message.name)
        except KvdeckError as error:
            self._replays = False
            self.notify(str(error), severity="error", markup=False)
        else:
            self._clock.resume()
        self.refresh_bindings()
        self.draw()

    # --- annotations, alerts, pinned series ---

    def action_annotate(self) -> None:
        dialogs.annotate(self)

    def annotate_recording(self, text: str, kind: str, t: float) -> None:
        """Add the annotation at Unix time `t` to the running recording, if any; does nothing if read-only."""
        if self.recording is not None and not self.app.readonly:
            name = self.recording.name
            self.app.command(lambda: self.app.requests.annotate(name, text, kind, t))

    def action_threshold(self) -> None:
        dialogs.threshold(self)

    def action_series(self) -> None:
        dialogs.series(self)

    def action_unpin(self) -> None:
        under = self.query_one(Pinned).under_cursor
        if under is not None:
            self.change(replace(self.settings, pins=tuple(pin for pin in self.settings.pins if pin != under.name)))

    # --- sources, blocks, recording ---

    async def _find_sources(self) -> None:
        with contextlib.suppress(KvdeckError):  # the source dialog searches again, and shows why it fails
            self.found = (await self.app.requests.find_sources(lambda _: None)).sources
        self.draw()

    def note_found(self, found: FoundSources) -> None:
        """Store what the source dialog's search has found so far."""
        self.found = found.sources
        if found.done and not self._searched:
            self._searched = True
            self.draw()

    def _ask_first(self) -> None:
        """Open the source dialog, whose search shows what it finds at once."""
        asks = self.settings.sources is None and not self._replays and self.timeline.replay is None
        if asks and self.app.current_mode == "monitor" and self.is_current:
            dialogs.sources(self)

    def action_sources(self) -> None:
        dialogs.sources(self)

    def action_block(self) -> None:
        dialogs.block(self)

    def set_block(self, size: float | None, said: str) -> None:
        """Set the block size in bytes (None: unknown) and its provenance `said`."""
        self.change(replace(self.settings, block_bytes=size, block_from=said if size else ""))

    def pane_commands(self) -> Iterator[tuple[str, str, Callable[[], None]]]:
        yield from super().pane_commands()
        if (plan := planned(self.app.memory)) is not None:
            size, said = plan.block_bytes, f"from the plan {plan.title}"
            yield (
                "monitor: copy the block size from the plan",
                f"{exact_size_text(size)}, {said}",
                lambda: self.set_block(size, said),
            )

    def action_record(self) -> None:
        dialogs.record(self)
