"""The engine's last two minutes of samples: bounded, from one sampling at a time, sent to who comes back."""

from __future__ import annotations

import random
import time
import zlib
from base64 import b64decode
from itertools import pairwise

import orjson
import pytest

from kvdeck.engine.client.client import Client
from kvdeck.engine.daemon import past_samples
from kvdeck.engine.daemon.past_samples import PastSamples, messages
from kvdeck.engine.protocol import FromEngine, WatchPast, WatchSample, decode
from tests.engine.conftest import DEADLINE, eventually
from tests.engine.telemetry.test_engine import next_snapshot, samplers
from tests.support.programs.metrics_server import metrics_server, sample, says

COLD = sample("dynamo_kvbm_metrics_host_cold.prom")


def line(seconds: float, text: str = "") -> bytes:
    return b'{"at_ns":%d,"since_ns":1,"t":%.3f,"text":"%s"}' % (seconds * 1e9, seconds, text.encode())


def times(past: PastSamples, after: float = 0.0) -> list[float]:
    return [one.at_ns / 1e9 for one in past.after(int(after * 1e9))]


def test_one_sample_a_second_of_two_minutes_and_always_the_newest() -> None:
    past = PastSamples()
    for tenth in range(3000):
        past.add(line(1000 + tenth / 10), "a")
    kept = times(past)
    assert kept[-1] == 1299.9
    assert 1299.9 - 121 < kept[0] <= 1299.9 - 119
    assert 120 <= len(kept) <= 136
    assert times(past, 1299.0) == [at for at in kept if at > 1299.0]
    assert times(past, 1300.0) == []


def test_memory_is_bounded_by_samples_further_apart_not_by_a_shorter_past(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past_samples, "MOST_BYTES", 100_000)
    past, chance = PastSamples(), random.Random(1)
    for second in range(1000, 1200):
        past.add(line(second, "".join(chance.choices("0123456789abcdef", k=10_000))), "a")
        assert past.size <= 100_000
    kept = times(past)
    assert kept[-1] == 1199
    assert kept[0] <= 1199 - 112, "eight seconds apart, they still reach back for two minutes"
    assert {round(b - a) for a, b in pairwise(kept[:-1])} == {8}


def test_samples_of_one_sampling_at_a_time() -> None:
    past = PastSamples()
    for second in range(10):
        past.add(line(second + 1), "a")
        past.add(line(second + 1.5), "b")
    assert times(past) == [float(second + 1) for second in range(10)]
    past.leave("b")
    past.leave("a")
    past.add(line(20.5), "b")
    assert times(past)[-1] == 20.5


def test_a_sample_without_a_time_is_not_stored() -> None:
    past = PastSamples()
    for odd in (b"", b"{}", b'{"at_ns":-1,', b'{"at_ns":1', b'{"t":1}'):
        past.add(odd, "a")
    assert past.after(0) == []


def test_messages_are_what_the_client_decodes() -> None:
    past = PastSamples()
    for second in (1, 2, 3):
        past.add(line(second), "a")
    found = [decode(message) for message in messages(past.after(0))]
    assert [(one.at_ns, one.left) for one in found if isinstance(one, WatchPast)] == [
        (1_000_000_000, 2),
        (2_000_000_000, 1),
        (3_000_000_000, 0),
    ]
    assert unpacked(found[-1])["t"] == 3.0


def unpacked(message: object) -> dict[str, float]:
    assert isinstance(message, WatchPast)
    found: dict[str, float] = orjson.loads(zlib.decompress(b64decode(message.packed)))
    return found


def received(client: Client, source: str, hz: float = 10.0, after_ns: int = 0) -> list[FromEngine]:
    """The past samples after a time that a client is sent, and the live one that follows them."""
    found: list[FromEngine] = []
    begun = time.monotonic_ns()
    client.watch(hz, [source], after_ns=after_ns)
    for message in client.messages(DEADLINE):
        if isinstance(message, WatchPast):
            found.append(message)
        elif isinstance(message, WatchSample) and message.snapshot["at_ns"] > begun:
            return [*found, message]
    raise AssertionError("nothing came")


def past_of(found: list[FromEngine]) -> list[WatchPast]:
    return [message for message in found if isinstance(message, WatchPast)]


def span_s(source: str) -> float:
    """Seconds of the past that a client is sent which comes now."""
    with Client.connect(start=False) as late:
        past = past_of(received(late, source))
    return (past[-1].at_ns - past[0].at_ns) / 1e9 if past else 0.0


def test_who_comes_back_gets_what_was_sampled_meanwhile_and_then_the_present(client: Client) -> None:
    with metrics_server({"/metrics": says(COLD)}) as server, Client.connect() as other:
        client.record("one", 10, [server.url()])
        other.watch(10, [server.url()])
        first = next_snapshot(other)
        seen = next_snapshot(other)
        assert 0 < first.at_ns < seen.at_ns
        other.close()
        eventually(lambda: span_s(server.url()) > 2.5)
        with Client.connect() as late:
            found = received(late, server.url())
            assert {unpacked(one)["since_ns"] for one in past_of(found)} == {seen.since_ns}
            live = found[-1]
            assert isinstance(live, WatchSample)
            ordered = [*(one.at_ns for one in past_of(found)), live.snapshot["at_ns"]]
            assert ordered == sorted(set(ordered)), "no moment twice, none out of order"
        with Client.connect() as again:
            assert min(one.at_ns for one in past_of(received(again, server.url(), 10, ordered[-3]))) > ordered[-3]
        assert len(samplers(client)) == 1
        client.stop_recording("one")


def test_a_quiet_client_keeps_the_sampling_going_and_is_sent_nothing(client: Client) -> None:
    with metrics_server({"/metrics": says(COLD)}) as server, Client.connect() as deck:
        deck.watch(10, [server.url()])
        next_snapshot(deck)
        deck.watch(10, [server.url()], quiet=True)
        (pid,) = samplers(client)
        eventually(lambda: span_s(server.url()) > 1.5)
        assert len(past_of(received(deck, server.url()))) > 1
        assert samplers(client) == [pid]
        deck.watch(0)
        eventually(lambda: samplers(client) == [])


def test_another_rate_of_the_same_sources_goes_on_from_the_same_past(client: Client) -> None:
    with metrics_server({"/metrics": says(COLD)}) as server:
        client.watch(10, [server.url()])
        first = next_snapshot(client)
        found = received(client, server.url(), 5)
        assert {unpacked(one)["since_ns"] for one in past_of(found)} == {first.since_ns}
        assert isinstance(found[-1], WatchSample)
        if found[-1].snapshot["since_ns"] == first.since_ns:  # sent before the rate was changed
            found = received(client, server.url(), 5)
            assert isinstance(found[-1], WatchSample)
        assert found[-1].snapshot["since_ns"] != first.since_ns
