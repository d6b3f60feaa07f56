"""Records keep everything through JSON, and read what newer versions wrote."""

from __future__ import annotations

from msgspec.structs import asdict

from kvdeck.sessions.model import events, records
from kvdeck.sessions.model.encoding import decode, encode_document, encode_line
from kvdeck.sessions.model.records import Interval, Percentiles, StepPlan, StepResult

PLAN = StepPlan(0, 0, "HostToHost", "FullyContiguous", "UCX", None, None, 2 << 20, 16, 64, 1)
TIMES = Percentiles(1.0, 2.0, 3.0, 4.0, 5.0, 1.5)
RESULT = StepResult(
    **asdict(PLAN),
    page_cache=None,
    durable=None,
    descriptors_per_request=16,
    merged=False,
    iterations=10,
    warmup_iterations=2,
    bytes=10 * 16 * (2 << 20),
    prep_us=TIMES,
    post_us=TIMES,
    transfer_us=TIMES,
    request_us=TIMES,
    gb_per_s=Interval(5.0, 4.9, 5.1),
    reference_gb_per_s=10.0,
    reference="memcpy",
    efficiency=0.5,
    verified=True,
    status="ok",
    reason=None,
    settings={"threads": 1},
)
EVENTS: list[events.Event] = [
    events.RunStarted(1, 2.0, (PLAN,)),
    events.StepStarted(1, 0),
    events.Round(1, 0, 0, (1, 2), (3, 4), 10, (0.0, None)),
    events.ReferenceRound(1, 0, 0, "memcpy", 8, 9),
    events.StepFinished(1, RESULT),
    events.Logged(1, "info", "text"),
    events.StateChanged(1, 2.0, "crashed", "why", "SIGSEGV", ("last", "words")),
]


def through_json(event: events.Event) -> events.Event | None:
    return events.decode_event(encode_line(event))


def test_every_event_survives_its_line() -> None:
    assert [through_json(event) for event in EVENTS] == EVENTS


def test_unknown_kinds_and_fields_are_passed_over() -> None:
    assert events.convert_event({"kind": "from the future", "t": 1}) is None
    assert events.convert_event({"kind": "log", "t": 1, "level": "info", "text": "a", "new": 1}) == events.Logged(
        1, "info", "a"
    )


def test_a_session_survives_its_file() -> None:
    session = records.Session("a", "done", 1.0, results=(RESULT,), tags=("x",))
    assert decode(records.Session, encode_document(session)) == session
