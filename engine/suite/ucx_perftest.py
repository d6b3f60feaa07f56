"""Output of `ucx_perftest`, of versions 1.13 to 1.22: its table, with `-f`, `-v` and `-b`.

The last row of a test is its result; `overall` counts from the first iteration, `average` from the row before. One MB
is 2^20 bytes. The percentile of a bandwidth test is the time to post a message, not to transfer it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MIB = 1 << 20
_TABLE_ROW = re.compile(r"^\s*(?:(?P<name>\S+)\s+)?(?P<numbers>\d+(?:\s+\d+(?:\.\d+)?){7})\s*$")
_HEAD = re.compile(r"\|\s*(?P<kind>overhead|latency) \(usec\)")
_PERCENTILE = re.compile(r"(?P<percent>\d+(?:\.\d+)?)%ile")
_CSV_HEAD = re.compile(r"^(?:(?P<batch>[^,]+),)?iterations,(?P<percent>[\d.]+)_percentile_lat,")
_CSV_ROW = re.compile(r"^(?:(?P<name>[^,\[\]]+),|\[thread \d+\]\s*)?(?P<numbers>\d+(?:,\d+(?:\.\d+)?){7})\s*$")
_COMMAND = re.compile(r"ucx_perftest\b[^&\n]*?\s-t\s+(?P<test>\w+)")
_SIZE = re.compile(r"ucx_perftest\b[^&\n]*?\s-s\s+(?P<size>\d+)(?=\s|$)")
_BOX = re.compile(r"^\|\s*(?P<key>Test|Message size):\s*(?P<value>.*?)\s*\|\s*$")
_ERROR = re.compile(r"\bUCX\s+ERROR\s+(?P<text>.+?)\s*$")
_RESULT_WORDS = ("", "Final:")


@dataclass(frozen=True, slots=True)
class UcxPerftestRow:
    """One finished test."""

    name: str
    """Name of the test in a batch file; empty for a single test."""
    iterations: int
    percent: float
    """Which percentile `percentile_us` is."""
    percentile_us: float
    average_us: float
    overall_us: float
    """Time of all iterations over their number."""
    bytes_per_s: float
    """Overall bandwidth, from the program's MB/s of 2^20 bytes."""
    messages_per_s: float

    @property
    def message_bytes(self) -> int | None:
        """Size of one message that bandwidth and rate imply; None where the printed digits can't tell."""
        if self.messages_per_s < 1000 or self.bytes_per_s < 100 * MIB:
            return None
        return round(self.bytes_per_s / self.messages_per_s)


@dataclass(frozen=True, slots=True)
class UcxPerftestLog:
    """What one side of a test printed."""

    test: str
    """Name of the test such as `ucp_put_bw`; empty if the output doesn't name it."""
    times_posting: bool
    """Whether the percentile is the time to post: the heading says `overhead`."""
    message_bytes: int | None
    rows: tuple[UcxPerftestRow, ...]
    errors: tuple[str, ...]


def seems_ucx_perftest(text: str) -> bool:
    """Whether a text looks like output of ucx_perftest."""
    return any(_HEAD.search(line) or _CSV_HEAD.match(line) or _ERROR.search(line) for line in text.splitlines())


def read_ucx_perftest(text: str) -> UcxPerftestLog:
    """Return the results in the output of one side; without rows if no test ended.

    Args:
        text: stdout and stderr of the program, in the order in which they came.
    """
    rows: list[UcxPerftestRow] = []
    errors: list[str] = []
    percent, kind, box = 50.0, "", dict[str, str]()
    csv = batch = False
    for line in text.splitlines():
        if head := _HEAD.search(line):
            kind = head["kind"]
        elif line.startswith("|") and (named := _PERCENTILE.search(line)):
            percent = float(named["percent"])
        elif head := _CSV_HEAD.match(line):
            csv, percent, batch = True, float(head["percent"]), head["batch"] is not None
        elif (found := _BOX.match(line)) and found["key"] not in box:
            box[found["key"]] = found["value"]
        elif error := _ERROR.search(line):
            errors.append(error["text"])
        elif row := _row(line, csv, percent, batch):
            rows.append(row)
    command, size = _COMMAND.search(text), _SIZE.search(text)
    sized = size["size"] if size else box.get("Message size", "")
    test = command["test"] if command else ""
    return UcxPerftestLog(
        test,
        kind == "overhead" or test.endswith("_bw"),
        int(sized) if sized.isdigit() else None,
        tuple(rows),
        tuple(errors),
    )


def _row(line: str, csv: bool, percent: float, batch: bool) -> UcxPerftestRow | None:
    """Return a test's last row; None for a line of another kind, such as an intermediate row."""
    if line.lstrip().startswith("[thread"):
        return None
    found = (_CSV_ROW if csv else _TABLE_ROW).match(line)
    if found is None or (csv and bool(found["name"]) != batch):
        return None
    name = found["name"] or ""
    count, middle, average, overall, _, bandwidth, _, messages = (
        float(number) for number in re.split(r"[\s,]+", found["numbers"].strip())
    )
    return UcxPerftestRow(
        "" if name in _RESULT_WORDS else name,
        int(count), percent, middle, average, overall, bandwidth * MIB, messages,
    )  # fmt: skip
