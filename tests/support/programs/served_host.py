"""Real endpoints whose counters move as time passes: samples of real software, drawn out by the clock."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler

from tests.support.programs.metrics_server import Handler, metrics_server, sample, says

COURSES = (
    ("dynamo_kvbm_metrics_host_cold", "dynamo_kvbm_metrics_host_repeat", 20),
    ("vllm032_offload_native_before", "vllm032_offload_native_after", 40),
    ("vllm032_nixl_d_before", "vllm032_nixl_d_after", 40),
    ("dynamo_fe_metrics_0_idle", "dynamo_fe_metrics_d", 5),
    ("nixl_prom_agent", "nixl_prom_agent", 5),
)
_GAUGES = re.compile(rb"^# TYPE (\S+) gauge", re.MULTILINE)


class Course:
    """One endpoint: every counter on its way from one sample to the next, so many times a minute."""

    def __init__(self, before: str, after: str, times: float) -> None:
        self._text = sample(f"{after}.prom")
        self._gauges = {name.decode() for name in _GAUGES.findall(self._text)}
        known = {} if before == after else _values(sample(f"{before}.prom"))
        self._lines = [
            (line, None) if not key or key.partition("{")[0] in self._gauges else (key, (known.get(key, 0.0), value))
            for line, key, value in _split(self._text)
        ]
        self._times, self._began = times, time.monotonic()
        self.held: float | None = None

    def say(self) -> bytes:
        """The exposition as it is now."""
        share = (self.held if self.held is not None else time.monotonic() - self._began) / 60 * self._times
        lines = [
            line if ends is None else f"{line} {ends[0] + (ends[1] - ends[0]) * share:.6f}"
            for line, ends in self._lines
        ]
        return ("\n".join(lines) + "\n").encode()

    def hold(self) -> None:
        """Let nothing move any more."""
        self.held = time.monotonic() - self._began


def _split(text: bytes) -> Iterator[tuple[str, str, float]]:
    for line in text.decode().splitlines():
        key, _, number = line.rpartition(" ")
        try:
            yield line, "" if line.startswith("#") else key, float(number)
        except ValueError:
            yield line, "", 0.0


def _values(text: bytes) -> dict[str, float]:
    return {key: value for _, key, value in _split(text) if key}


class Served:
    """The endpoints that are served."""

    def __init__(self, urls: list[str], courses: list[Course]) -> None:
        self.urls, self._courses = urls, courses

    def hold(self) -> None:
        """Let every counter stand still."""
        for course in self._courses:
            course.hold()


@contextmanager
def served() -> Iterator[Served]:
    """Serve every course on a port of its own."""
    courses = [Course(*course) for course in COURSES]
    with ExitStack() as stack:
        servers = [stack.enter_context(metrics_server({"/metrics": _handler(course)})) for course in courses]
        yield Served([server.url() for server in servers], courses)


def _handler(course: Course) -> Handler:
    def answer(request: BaseHTTPRequestHandler) -> None:
        says(course.say())(request)

    return answer
