"""One line of text per event of a run, as the progress on stderr and the deck's log show it."""

from __future__ import annotations

from kvdeck.sessions.model.events import (
    Compared,
    Event,
    Logged,
    PatternBegun,
    PatternVerified,
    RunStarted,
    SettingTuned,
    StepFinished,
    TrafficPlanned,
    TrafficPrepared,
)
from kvdeck.sessions.model.records import StepPlan, StepResult
from kvdeck.sessions.model.traffic import TRAFFIC
from kvdeck.sessions.text.run_report import disturbance_text, tuned_text, verdict_text
from kvdeck.sessions.units import interval_text, layout_name, many, shape_text


def plan_text(step: StepPlan | StepResult) -> str:
    """Return a step's name: path, layout, block size and batch."""
    return f"{step.path} {layout_name(step.layout)} {shape_text(step.block_bytes, step.batch)}"


def event_text(event: Event) -> str | None:
    """Return an event as one line, or None if progress doesn't show it."""
    if isinstance(event, RunStarted):
        if event.spec.get("job") == TRAFFIC:
            return None
        paths = ", ".join(dict.fromkeys(step.path for step in event.steps))
        return f"{many(len(event.steps), 'step')} on {paths or 'no path'}"
    if isinstance(event, StepFinished):
        return _result_text(event.result)
    if isinstance(event, SettingTuned):
        words = " · kept" if event.chosen else ""
        return f"{event.path} {event.setting}={event.value}: {tuned_text(event)}{words}"
    if isinstance(event, TrafficPlanned):
        ranks = event.patterns[0].ranks if event.patterns else 0
        return f"{many(len(event.patterns), 'pattern')} between {many(ranks, 'rank')}"
    if isinstance(event, TrafficPrepared):
        return f"prepared {many(event.patterns, 'pattern')}, {many(event.descriptors, 'descriptor')}"
    if isinstance(event, PatternBegun):
        return f"pattern {event.pattern} alone" if event.phase == "alone" else None
    if isinstance(event, PatternVerified):
        verified = f"{many(len(event.wrong), 'cell')} with wrong bytes" if event.wrong else "every byte is right"
        return f"pattern {event.pattern}: {verified}"
    if isinstance(event, Logged):
        return event.text if event.level == "info" else f"{event.level}: {event.text}"
    return None


def log_text(event: StepFinished | Compared | SettingTuned | Logged) -> str:
    """Return an event as a line of a log that shows its level apart."""
    if isinstance(event, Logged):
        return event.text
    if isinstance(event, Compared):
        return f"{event.comparison.path}: {verdict_text(event.comparison)}"
    return event_text(event) or ""


def _result_text(result: StepResult) -> str:
    if result.status == "unavailable":
        return f"{result.path}: unavailable: {result.reason}"
    text = plan_text(result)
    if result.gb_per_s is not None:
        text += f": {interval_text(result.gb_per_s)} GB/s"
    if disturbed := disturbance_text(result):
        text += f" · {disturbed}"
    if result.status != "ok":
        text += f": {result.status}" + (f": {result.reason}" if result.reason else "")
    return text + (": the received bytes differ" if result.verified is False else "")
