"""Incremental parser of Prometheus text: prometheus-client parses each key once; later only changed lines are read."""

from __future__ import annotations

import contextlib
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import compress

from prometheus_client.parser import text_string_to_metric_families

from kvdeck.engine.telemetry.metrics.definitions import is_counted, is_histogram
from kvdeck.engine.telemetry.source import Labels, Series

MAX_REMEMBERED = 1 << 20
"""Maximum characters of a response that is stored for comparison with the next one."""
MAX_KEYS = 200_000
MAX_KEY_CHARACTERS = 16 << 20
"""Limits of the key cache per source; beyond them it is cleared, so that ever-changing labels don't fill memory."""
MAX_LINE = 8192
"""Maximum characters of a line; longer ones are counted as `unread`."""
END = "# EOF"
"""Last line of OpenMetrics, where timestamps are in seconds; in Prometheus text they are in milliseconds."""
_NEVER = ("_bucket", "_created")
_BUCKET = "_bucket"
_COUNTER_TYPES = {"counter"}
_SUMMED_TYPES = {"histogram", "summary"}
_CREATED = re.compile(r"^\w[\w:]*_created(?:\{[^\n]{0,4000}\})? [^\n]{1,64}$", re.MULTILINE)
_DERIVED = re.compile(r"_(sum|count|total)$")
_UNTYPED = {"untyped", "unknown"}
"""Types that leave open what a metric is, as Prometheus' own `/federate` prints them for all metrics."""


@dataclass(slots=True)
class Exposition:
    """Parsed content of one response."""

    values: dict[Series, float] = field(default_factory=dict)
    times: dict[Series, int] = field(default_factory=dict)
    """Timestamps in ns of the series that have one."""
    unread: int = 0
    """Number of lines that aren't valid Prometheus text."""
    torn: bool = False
    """True if the last line has no newline; it is ignored."""
    changed: list[Series] | None = None
    """Series whose value differs from the previous response, which had the same set of series; None if unknown."""


class Parser:
    """Parses successive responses of one source, caching their keys.

    Args:
        wanted: Selects the metric names to include; `_created` is always excluded.
        bucketed: Selects the histograms whose buckets are included, by their names without `_bucket`. Most lines of an
            exporter are buckets, and of the others only their sum and count are of use.
    """

    def __init__(
        self, wanted: Callable[[str], bool] = lambda _: True, bucketed: Callable[[str], bool] = is_histogram
    ) -> None:
        self._wanted = wanted
        self._bucketed = bucketed
        self._types: dict[str, str] = {}
        self._type_lines: set[str] = set()
        self._keys: dict[str, Series | None] = {}
        self._characters = 0
        self._open = False
        self._latest = ""
        self._created: dict[tuple[str, Labels], float] | None = None
        self._text = ""
        self._lines: list[str] = []
        self._values: dict[Series, float] = {}

    def parse(self, text: str) -> Exposition:
        """Return the samples of a response; skips non-finite values, and the last value of a repeated key wins."""
        self._latest, self._created = text, None
        if text == self._text and self._lines:
            return Exposition(self._values, changed=[])
        if text.endswith(END):
            text += "\n"
        end = text.rfind("\n") + 1
        lines = text[:end].split("\n")
        if end == len(text) and len(lines) == len(self._lines):
            found = self._parse_changed(lines)
            if found is not None:
                self._text = text
                return found
        found = Exposition(torn=end != len(text))
        self._open = len(lines) > 1 and lines[-2] == END
        plain = self._parse_all(lines, found)
        keep = plain and not found.torn and len(text) <= MAX_REMEMBERED
        self._text, self._lines, self._values = (text, lines, found.values) if keep else ("", [], {})
        return found

    def created(self, series: Series) -> float | None:
        """Return the Unix time in seconds at which a series of the last response began at 0; None if it isn't there.

        prometheus-client exports it beside each counter, histogram and summary, under the suffix `_created`.
        """
        if self._created is None:
            self._created = dict(_creations(self._latest))
        if series.is_bucket:
            family = series.name.removesuffix(_BUCKET)
            return self._created.get((family, tuple(pair for pair in series.labels if pair[0] != "le")))
        return self._created.get((_DERIVED.sub("", series.name), series.labels))

    def _parse_changed(self, lines: list[str]) -> Exposition | None:
        """Parse only the lines that differ from the last response; None if more than values differs."""
        known, before, values = self._keys, self._lines, self._values
        moved: dict[Series, float] = {}
        for index in compress(range(len(lines)), map(operator.ne, lines, before)):
            key, _, number = lines[index].rpartition(" ")
            if key != before[index].rpartition(" ")[0] or key not in known:
                return None
            series = known[key]
            if series is None:
                continue
            try:
                value = float(number)
            except ValueError:
                return None
            if value - value != 0.0 or series not in values:  # not finite, or new
                return None
            moved[series] = value
        self._lines = lines
        if moved:
            self._values = {**values, **moved}
        return Exposition(self._values, changed=list(moved))

    def _parse_all(self, lines: list[str], found: Exposition) -> bool:
        """Parse all lines into `found`; True if no line is a duplicate, has a timestamp or is unread."""
        if len(self._keys) > MAX_KEYS or self._characters > MAX_KEY_CHARACTERS:
            self._keys.clear()
            self._characters = 0
        known, values = self._keys, found.values
        taken = 0
        for line in lines:
            key, _, number = line.rpartition(" ")
            try:
                series = known[key]
            except KeyError:
                taken += self._unknown(line, key, found)
                continue
            if series is not None:
                try:
                    value = float(number)
                except ValueError:
                    found.unread += 1
                    continue
                if value - value == 0.0:
                    values[series] = value
                    taken += 1
        return taken == len(values) and not found.times and not found.unread

    def _unknown(self, line: str, key: str, found: Exposition) -> bool:
        """Parse a line with a new key into `found`; True if it gave a sample."""
        if not line.strip():
            return False
        if line.startswith("#"):
            if line not in self._type_lines:
                self._note_type(line)
            return False
        if self._is_left_out(key.partition("{")[0]):  # avoid the slow library: most lines are buckets
            self._remember(key, None)
            return False
        if len(line) > MAX_LINE:
            found.unread += 1
            return False
        plain, exemplar, _ = line.partition(" # {")  # the library takes an exemplar's number for a timestamp
        try:
            sample = next(iter(text_string_to_metric_families(plain + "\n"))).samples[0]
        except (ValueError, StopIteration, IndexError, KeyError):
            found.unread += 1
            return False
        series = self._series(sample.name, sample.labels)
        stamp = sample.timestamp
        if stamp is None and not exemplar and key:  # an empty key means a line separated by tabs
            self._remember(key, series)
        if series is None or sample.value - sample.value != 0.0:
            return False
        found.values[series] = sample.value
        if isinstance(stamp, (int, float)) and stamp - stamp == 0.0:  # neither infinite nor NaN
            found.times[series] = int(stamp * (1e12 if self._open else 1e9))
        return True

    def _is_left_out(self, name: str) -> bool:
        return name.endswith(_NEVER) and not (name.endswith(_BUCKET) and self._bucketed(name.removesuffix(_BUCKET)))

    def _remember(self, key: str, series: Series | None) -> None:
        self._keys[key] = series
        self._characters += len(key)

    def _note_type(self, line: str) -> None:
        parts = line.split()
        if len(parts) == 4 and parts[1] == "TYPE":
            if parts[2] in self._types or len(self._types) < MAX_KEYS:
                self._types[parts[2]] = parts[3]
            if len(self._type_lines) < MAX_KEYS:
                self._type_lines.add(line)

    def _series(self, name: str, labels: dict[str, str]) -> Series | None:
        if self._is_left_out(name) or "quantile" in labels or not self._wanted(name):
            return None
        return Series(name, tuple(sorted(labels.items())), self._is_counter(name))

    def _is_counter(self, name: str) -> bool:
        kind = self._type(name)
        if kind is not None:
            return kind in _COUNTER_TYPES
        if name.endswith(_BUCKET):
            return True
        family = self._type(_DERIVED.sub("", name))
        if family is not None:
            return family in _SUMMED_TYPES or (family in _COUNTER_TYPES and name.endswith("_total"))
        return name.endswith("_total") or is_counted(name)

    def _type(self, name: str) -> str | None:
        kind = self._types.get(name)
        return None if kind in _UNTYPED else kind


def _creations(text: str) -> Iterator[tuple[tuple[str, Labels], float]]:
    for line in _CREATED.findall(text):
        with contextlib.suppress(ValueError, StopIteration, IndexError, KeyError):
            sample = next(iter(text_string_to_metric_families(line + "\n"))).samples[0]
            yield (sample.name.removesuffix("_created"), tuple(sorted(sample.labels.items()))), sample.value
