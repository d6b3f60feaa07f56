"""Lines of a saved log without what carried them: colours, timestamps, and the labels that launchers put before a line.

Known: mpirun, Open MPI and Hydra, srun, kubectl, CRI and Docker's files, docker compose, syslog, ISO timestamps. Any
other prefix is taken from the line that the caller recognises, with its numbers open.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kvdeck.sessions.host.documents import load_record

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]|[\x00\x08\x0e\x0f\ufeff]"
)
_CLOCK = r"\d\d:\d\d:\d\d(?:[.,]\d+)?"
_TIME = re.compile(
    rf"\[?\d{{4}}[-/]\d\d[-/]\d\d[T ]{_CLOCK}(?:Z| ?[+-]\d\d:?\d\d)?\]?:?\s+"
    rf"|\[?{_CLOCK}\]?:?\s+"
    rf"|[A-Z][a-z]{{2}} [ \d]\d {_CLOCK} (?:[\w.-]+ )?(?:[\w./-]+(?:\[\d+\])?: )?"
)
_LABEL = re.compile(
    r"\[\d+,\d+\](?:<\w+>)?:?\s*"  # mpirun --tag-output, with `[1,0]<stdout>:`
    r"|\[\d+\]\s"  # Hydra's -prepend-rank
    r"|\s{0,6}\d+:\s"  # srun --label
    r"|\[pod/[^\]\s]+\]\s"  # kubectl logs --prefix
    r"|pod/\S+\s"
    r"|(?:stdout|stderr) [FP] "  # CRI's files
    r"|[\w.-]+\s+\| "  # docker compose
)
_MOST_PREFIXES = 4
_MOST_OWN, _LONGEST_OWN = 16, 200
"""Prefixes of a log that aren't among the known ones, and characters of each."""


def log_lines(text: str, sign: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """Yield a label and the bare text of each line. Lines of one label come from one process.

    Args:
        text: The whole log.
        sign: What a bare line of interest begins with; what stands before it in a line is a prefix of that log.
    """
    lines = [_unwrapped(line) for line in _ESCAPES.sub("", text).splitlines()]
    own = _own_prefixes(lines, sign)
    for line in lines:
        yield _bare(line, own)


def _own_prefixes(lines: list[str], sign: re.Pattern[str]) -> list[re.Pattern[str]]:
    found: dict[str, None] = {}
    for line in lines:
        if sign.search(line) is None:
            continue
        _, bare = _bare(line, [])
        at = sign.search(bare)
        if at and 0 < at.start() <= _LONGEST_OWN and len(found) < _MOST_OWN:
            found[_opened(bare[: at.start()])] = None
    return [re.compile(pattern) for pattern in found]


def _opened(prefix: str) -> str:
    """Return a pattern for a prefix, with any digits in place of its digits."""
    return "".join(
        r"\d+" if piece.isdigit() else r"\s+" if piece.isspace() else re.escape(piece)
        for piece in re.split(r"(\d+|\s+)", prefix)
    )


def _bare(line: str, own: list[re.Pattern[str]]) -> tuple[str, str]:
    label = ""
    for _ in range(_MOST_PREFIXES):
        if time := _TIME.match(line):
            line = line[time.end() :]
        elif known := _LABEL.match(line):
            label, line = label + known[0].strip(), line[known.end() :]
        else:
            break
    for pattern in own:
        if mine := pattern.match(line):
            return label + pattern.pattern, line[mine.end() :].strip()
    return label, line.strip()


def _unwrapped(line: str) -> str:
    """Return the text of one line of Docker's json-file log; other lines unchanged."""
    if line.startswith('{"log":'):
        try:
            inner = load_record(line)["log"]
        except ValueError:
            return line
        return inner.rstrip("\r\n") if isinstance(inner, str) else line
    return line
