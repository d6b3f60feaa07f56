"""Progress of the followed run: a bar, an estimate, and the current step or how the run ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvdeck.app.tui.modes.run.steps import backend_text
from kvdeck.app.tui.widgets.lines import Lines, Row, Span, cell
from kvdeck.sessions.model.peers import host_names, peers_of
from kvdeck.sessions.model.records import PATHS
from kvdeck.sessions.units import clock_text, count_text, done_text, short_layout_name, size_text

if TYPE_CHECKING:
    from kvdeck.app.tui.app import Deck
    from kvdeck.app.tui.state import Doctor, EngineState
    from kvdeck.sessions.model.run_state import RunState

_TONES = {"queued": "dim", "running": "run", "done": "ok", "failed": "bad", "crashed": "bad"}


_MODE_OFFERS = (("plan", "1", "plan a model"), ("monitor", "3", "monitor an engine"))


def host_text(doctor: Doctor) -> str:
    """Return in one line what this host can run."""
    if doctor.error:
        return f"The doctor could not check this host: {doctor.error}"
    if not doctor.paths:
        return "Checking the paths of this host …" if doctor.looking else "No run is in progress."
    best = [row for path in PATHS if (row := doctor.best(path)) is not None]
    ready = [row.path for row in best if row.state != "unavailable"]
    rest = len(best) - len(ready)
    if not ready:
        return "No path can run on this host yet · press 9 for reasons and fixes"
    said = "All paths" if not rest else ", ".join(ready) if len(ready) < 4 else f"{len(ready)} paths"
    return f"Ready here: {said}{f'; {rest} are not (9 shows why)' if rest else ''}"


class ProgressPane(Lines):
    """Two lines above the live panes."""

    app: Deck
    engine: EngineState | None = None
    picked: int | None = None

    def apply(self, engine: EngineState, picked: int | None = None) -> None:
        """Show the state's run, or why there is none; for a picked step, its reason."""
        self.engine, self.picked = engine, picked
        self.redraw()

    def rows(self, width: int, height: int) -> list[Row]:
        engine = self.engine
        run = None if engine is None else engine.run
        lost = engine is not None and engine.connection == "lost"
        trouble: Row = (cell(f" ✗ {engine.detail} · retrying" if lost and engine else "", width, "bad"),)
        if run is None:
            return [(cell(f" {host_text(self.app.doctor)}", width),), trouble if lost else self._offers(width)]
        bar_width = max(10, min(40, width - 66))
        filled = round(run.fraction * bar_width)
        ahead = f"{clock_text(run.eta_s)} to go" if run.state == "running" and run.eta_s is not None else ""
        first: list[Span] = [
            cell(f" {run.session}", min(26, width - bar_width - 40), "title"),
            cell(f" {run.state}", 13, _TONES.get(run.state, "warn")),
            ("█" * filled, _TONES.get(run.state, "warn")),
            ("░" * (bar_width - filled), "rule"),
            (f" {done_text(run.fraction):>5} ", ""),
            (f"{clock_text(run.elapsed_s):>6} ", "dim"),
            (f"{ahead:>13}", ""),
        ]
        return [tuple(first), trouble if lost else (cell(f" {self._below(run)}", width, self._tone(run)),)]

    def _offers(self, width: int) -> Row:
        """Return the first actions for a new user, with their keys; modes that aren't available are left out."""
        offers = [("a", "run the quick A/B")]
        offers += [(key, said) for mode, key, said in _MODE_OFFERS if mode in self.app.MODES]
        spans = [span for key, said in offers for span in ((f" {key}", "key"), (f" {said}  ", "dim"))]
        used = sum(len(text) for text, _ in spans)
        rest = "· runs continue when the deck is closed"
        return (*spans, cell(rest if used + len(rest) <= width else "", max(1, width - used), "dim"))

    def _tone(self, run: RunState) -> str:
        return {"failed": "bad", "crashed": "bad", "cancelled": "warn", "interrupted": "warn"}.get(run.state, "dim")

    def _below(self, run: RunState) -> str:
        chosen = None if self.picked is None else run.step(self.picked)
        if chosen is not None and chosen.result is not None and chosen.result.reason:
            return f"{chosen.plan.path} {short_layout_name(chosen.plan.layout)} {chosen.state}: {chosen.result.reason}"
        if run.state == "queued":
            runs = () if self.engine is None else self.engine.runs
            place = next((info.position for info in runs if info.session == run.session), None)
            return f"queued{'' if place is None else f', position {place}'} · x cancels"
        if run.state == "running":
            return _doing(run)
        failed = next((s.result.reason for s in run.steps if s.state == "failed" and s.result and s.result.reason), "")
        said = " · ".join(
            part
            for part in (
                run.reason or failed,
                "" if run.reason and run.signal and run.signal in run.reason else run.signal or "",
            )
            if part
        )
        if run.state == "done" and not said:
            ran = " · ".join(filter(None, (_hosts(run), _ran(run))))
            return f"{ran} · saved · 4 opens the sessions" if ran else f"saved as session {run.session} · 4 opens them"
        return f"{said or run.state} · measured results are saved"


def _ran(run: RunState) -> str:
    """Return block size and batch if all steps share them, else ""; a sweep's table shows them better."""
    plans = [step.plan for step in run.steps]
    if len({(plan.block_bytes, plan.batch) for plan in plans}) != 1:
        return ""
    return f"blocks of {size_text(plans[0].block_bytes)}, {count_text(plans[0].batch)} per request"


def _hosts(run: RunState) -> str:
    """Return the hosts of a run between hosts, such as `hostA → hostB`; empty for a run on one."""
    return host_names(run.host) if peers_of(run.host) else ""


def _doing(run: RunState) -> str:
    step = None if run.current is None else run.step(run.current)
    if step is None:
        return "preparing memory and files"
    plan = step.plan
    between = f"{hosts} · " if (hosts := _hosts(run)) else ""
    return (
        f"{between}{plan.path} · {backend_text(step)} · blocks of {size_text(plan.block_bytes)}, "
        f"{count_text(plan.batch)} per request, {count_text(plan.blocks)} in the working set"
    )
