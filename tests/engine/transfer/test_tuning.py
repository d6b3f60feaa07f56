"""Tuning: what is taken, what is left alone, and that chance takes nothing."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kvdeck.engine.host.machine import host_facts
from kvdeck.engine.spec import RunSpec
from kvdeck.engine.transfer import tuning
from kvdeck.engine.transfer.trials import Room, room_of
from kvdeck.sessions.model import events


@pytest.fixture(scope="module")
def room() -> Room:
    return room_of(host_facts(Path.cwd()))


class Host:
    """A host on which a setting's time is known, and an opening's luck is not."""

    def __init__(self, seconds: Callable[[RunSpec], float], luck: float, seed: int) -> None:
        self.seconds, self.luck, self.source, self.heats = seconds, luck, random.Random(seed), 0

    def heat(self, now: RunSpec, then: RunSpec, number: int, *_: Any) -> float:
        self.heats += 1
        lucks = [self.source.gauss(0, self.luck) for _ in range(2)]
        return math.log(self.seconds(then) / self.seconds(now)) + lucks[0] - lucks[1]


def tuned(
    monkeypatch: pytest.MonkeyPatch, room: Room, host: Host, path: str = "HostToHost"
) -> tuple[RunSpec, list[events.SettingTuned]]:
    said: list[events.Event] = []
    monkeypatch.setattr(tuning, "heat", host.heat)
    best = tuning.tune(RunSpec(), path, room, "", said.append, lambda: False)
    return best, [event for event in said if isinstance(event, events.SettingTuned)]


@pytest.mark.parametrize("luck", [0.01, 0.1, 0.6])
def test_settings_without_effect_are_left_alone(monkeypatch: pytest.MonkeyPatch, room: Room, luck: float) -> None:
    """Though an opening's luck is worth a factor of two."""
    taken = 0
    for seed in range(200):
        _, said = tuned(monkeypatch, room, Host(lambda _: 1.0, luck, seed))
        taken += any(event.chosen for event in said)
    assert taken <= 10


def test_a_race_of_a_setting_against_itself_is_no_verdict(monkeypatch: pytest.MonkeyPatch, room: Room) -> None:
    host, won = Host(lambda _: 1.0, 0.6, 1), 0
    monkeypatch.setattr(tuning, "heat", host.heat)
    for _ in range(1000):
        ratio = tuning.race(RunSpec(), RunSpec(), room, "", lambda: False)
        won += not ratio.low <= 1 <= ratio.high
    assert won <= 60


def test_what_is_faster_is_taken_and_what_was_taken_decides_the_next(
    monkeypatch: pytest.MonkeyPatch, room: Room
) -> None:
    """Depth helps only while UCX guards against a dead peer: once that is off, it isn't taken."""

    def seconds(spec: RunSpec) -> float:
        guarded = spec.error_handling != "none"
        return (1.0 if guarded else 0.4) * (0.7 if guarded and spec.pipeline_depth > 1 else 1.0)

    best, said = tuned(monkeypatch, room, Host(seconds, 0.03, 3))
    assert best.error_handling == "none"
    assert best.pipeline_depth == 1
    assert [event.setting for event in said if event.chosen] == ["error_handling"]
    (depth,) = [event for event in said if event.setting == "pipeline_depth"]
    assert depth.ratio > 0.9, "against the new best, not the first one"


def test_of_several_values_of_a_setting_the_fastest_is_taken(monkeypatch: pytest.MonkeyPatch, room: Room) -> None:
    seconds = {None: 1.0, "URING": 0.8, "POSIXAIO": 0.5}
    best, said = tuned(monkeypatch, room, Host(lambda spec: seconds[spec.api], 0.02, 4), "HostToDisk")
    assert best.api == "POSIXAIO"
    assert [event.value for event in said if event.chosen] == ["POSIXAIO"]
    assert "URING" in {event.value for event in said}


def test_a_setting_that_gives_two_percent_is_left_alone(monkeypatch: pytest.MonkeyPatch, room: Room) -> None:
    host = Host(lambda spec: 0.98 if spec.error_handling == "none" else 1.0, 0.001, 5)
    best, said = tuned(monkeypatch, room, host)
    assert best.error_handling == "auto"
    (event,) = [event for event in said if event.setting == "error_handling"]
    assert tuning.WORTH < event.low <= event.high < 1
    assert host.heats == tuning.SCREENING_HEATS * len(said), "nothing was raced beyond the screening"


def test_a_setting_that_the_host_refuses_is_said_and_ends_nothing(monkeypatch: pytest.MonkeyPatch, room: Room) -> None:
    host, said = Host(lambda _: 1.0, 0.01, 6), list[events.Event]()

    def heat(now: RunSpec, then: RunSpec, *others: Any) -> float:
        if then.api == "URING":
            raise RuntimeError("io_uring is disabled")
        return host.heat(now, then, *others)

    monkeypatch.setattr(tuning, "heat", heat)
    tuning.tune(RunSpec(), "HostToDisk", room, "", said.append, lambda: False)
    (log,) = [event for event in said if isinstance(event, events.Logged)]
    assert log.text == "HostToDisk: api=URING can't be used: io_uring is disabled"
    assert {event.value for event in said if isinstance(event, events.SettingTuned)} >= {"POSIXAIO"}


def test_a_setting_that_is_refused_in_the_middle_of_its_race_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, room: Room
) -> None:
    """Such as reserved huge pages that another process takes meanwhile."""
    host, said = Host(lambda spec: 0.5 if spec.api == "URING" else 1.0, 0.01, 7), list[events.Event]()

    def heat(now: RunSpec, then: RunSpec, *others: Any) -> float:
        if then.api == "URING" and host.heats > 12:
            raise RuntimeError("none left")
        return host.heat(now, then, *others)

    monkeypatch.setattr(tuning, "heat", heat)
    best = tuning.tune(RunSpec(), "HostToDisk", room, "", said.append, lambda: False)
    assert best.api is None
    assert [event.text for event in said if isinstance(event, events.Logged)] == [
        "HostToDisk: api=URING can't be used: none left"
    ]


@pytest.mark.parametrize("settings", range(1, 10))
def test_there_are_enough_heats_for_one_setting_of_several_to_win(settings: int) -> None:
    heats = tuning.heats_for(settings)
    assert heats >= tuning.HEATS
    assert settings / 2**heats <= tuning.ALPHA
