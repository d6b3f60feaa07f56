"""Reader for nixlbench's output of every age: its configuration and its table, row by row.

nixlbench's `Avg Lat.` is the wall time of the whole step divided by the descriptors moved, not the time of a request.
Until August 2025 its table had `Avg Lat.` first and the rate in MiB, GiB and GB; cloudai saves that table as CSV.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvdeck.sessions.formats.log_lines import log_lines
from kvdeck.sessions.model.records import Interval, RunState, Session, StepResult
from kvdeck.sessions.units import count_text, many

_HEADER = re.compile(r"Block Size \(B\)\s+Batch Size(?=\s.{0,400}/Sec\))")
_TITLE = re.compile(r"NIXLBench Configuration")
_FIELDS = {
    "Block Size (B)": "block_bytes",
    "Batch Size": "batch",
    "B/W (GB/Sec)": "gb_per_s",
    "Aggregate B/W (GB/Sec)": "aggregate_gb_per_s",
    "Network Util (%)": "network_percent",
    "Avg Lat. (us)": "latency_us",
    "Avg Prep (us)": "prep_us",
    "P99 Prep (us)": "prep_p99_us",
    "Avg Post (us)": "post_us",
    "P99 Post (us)": "post_p99_us",
    "Avg Tx (us)": "transfer_us",
    "P99 Tx (us)": "transfer_p99_us",
}
SAME_RATE = {"B/W (GiB/Sec)": 2**30 / 1e9, "B/W (MiB/Sec)": 2**20 / 1e9}
"""Columns with the rate in another unit, best first, and GB/s per unit: used where the column in GB is missing."""
_CSV_FIELDS = {
    "block_size": "block_bytes",
    "batch_size": "batch",
    "bw_gb_sec": "gb_per_s",
    "avg_lat": "latency_us",
    "bw_gib_sec": "B/W (GiB/Sec)",
    "bw_mib_sec": "B/W (MiB/Sec)",
}
"""Columns of cloudai's `nixlbench.csv`."""
_NAMES = re.compile("|".join(re.escape(name) for name in sorted([*_FIELDS, *SAME_RATE], key=len, reverse=True)))
_OPTION = re.compile(r"^(?P<said>[^:]*\(--(?P<flag>\w+)[^)]*\)\s*|ETCD Endpoint\s*):\s*(?P<value>.*)$")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+|nan|inf)", re.IGNORECASE)
_PATHS = {
    ("network", "DRAM", "DRAM"): "HostToHost",
    ("network", "DRAM", "VRAM"): "HostToDevice",
    ("network", "VRAM", "DRAM"): "DeviceToHost",
    ("network", "VRAM", "VRAM"): "DeviceToDevice",
    ("WRITE", "DRAM", ""): "HostToDisk",
    ("READ", "DRAM", ""): "DiskToHost",
    ("WRITE", "VRAM", ""): "DeviceToDisk",
    ("READ", "VRAM", ""): "DiskToDevice",
}
_STORAGE = ("GDS", "GDS_MT", "POSIX", "HF3FS", "GUSLI", "OBJ", "AZURE_BLOB", "INFINIA")
_DECIDING = {"backend": "UCX", "op_type": "WRITE", "initiator_seg_type": "DRAM", "target_seg_type": "DRAM"}
"""Options that decide the path, with nixlbench's defaults."""
_MOST_RUNS, _MOST_ROWS = 1000, 10_000
"""Far more than a sweep or a night's log has; larger ones would take long to read."""
_LONGEST_LINE = 2000
"""Characters; a longer line is none of nixlbench's."""


@dataclass(frozen=True, slots=True)
class NixlbenchRow:
    """One table row. GB is 1e9 bytes; times are means over descriptors or requests, in µs."""

    block_bytes: int
    batch: int
    gb_per_s: float
    latency_us: float | None = None
    """Per descriptor: wall time of the step divided by the descriptors moved."""
    prep_us: float | None = None
    prep_p99_us: float | None = None
    post_us: float | None = None
    post_p99_us: float | None = None
    transfer_us: float | None = None
    transfer_p99_us: float | None = None
    aggregate_gb_per_s: float | None = None
    network_percent: float | None = None
    """Relative to 50 GB/s per pair of processes, regardless of the network."""
    more: dict[str, float] = dataclasses.field(default_factory=dict)
    """Other columns of the file, by their titles."""


_STORED = tuple(field.name for field in dataclasses.fields(NixlbenchRow) if field.name != "more")


@dataclass(frozen=True, slots=True)
class CutRow:
    """A table row that ends early, or has a cell that is not a finite number."""

    block_bytes: int
    batch: int
    reason: str


@dataclass(slots=True)
class NixlbenchRun:
    """One run in an output: its configuration, and its table as far as it goes."""

    label: str = ""
    """What a launcher put before each of its lines."""
    options: dict[str, str] = dataclasses.field(default_factory=dict)
    """The printed configuration, keyed by flag, else by the printed label."""
    columns: list[str] = dataclasses.field(default_factory=list)
    rows: list[NixlbenchRow] = dataclasses.field(default_factory=list)
    cut: list[CutRow] = dataclasses.field(default_factory=list)
    last_line: str = ""
    """The last line after the table that isn't a row."""

    def expected_rows(self) -> int | None:
        """Return the rows that the configuration's sweep has; None if it isn't printed."""
        counts = [_doublings(self.options, what) for what in ("block", "batch")]
        return None if None in counts else math.prod(count for count in counts if count is not None)

    def unfinished(self) -> str | None:
        """Return why the table is incomplete; None if it is complete, or if the output doesn't have its sweep."""
        expected = self.expected_rows()
        if self.cut:
            first = self.cut[0]
            said = f"its row of {count_text(first.block_bytes)} B × {first.batch} {first.reason}"
        elif not self.rows:
            said = "its table has no row"
        elif expected is not None and len(self.rows) < expected:
            said = "its table ends early"
        else:
            return None
        of = f" of the {expected} that its configuration asks for" if expected else ""
        ended = f"; the output ends with: {self.last_line[:160]}" if self.last_line else ""
        return f"{said}: {many(len(self.rows), 'whole row')}{of}{ended}"


def _doublings(options: Mapping[str, str], what: str) -> int | None:
    first, last = (options.get(f"{end}_{what}_size", "") for end in ("start", "max"))
    if not (first.isdecimal() and last.isdecimal() and 0 < int(first) < 2**63 and int(last) < 2**63):
        return None
    return max(0, (int(last) // int(first)).bit_length())


class NixlbenchReader:
    """Reads the output incrementally, line by line."""

    def __init__(self, label: str = "") -> None:
        self.run = NixlbenchRun(label)
        self.runs = [self.run]

    def take(self, line: str) -> NixlbenchRow | None:
        """Return the table row of a line; None if it has none."""
        text, run = line.strip(), self.run
        if len(text) > _LONGEST_LINE:
            return None
        if _HEADER.match(text):
            if run.columns:
                run = self._next()
            run.columns = _titles(text)
            return None
        if _TITLE.match(text):
            if run.columns:
                self._next()
            return None
        if not run.columns:
            if option := _OPTION.match(text):
                run.options[option["flag"] or option["said"].strip()] = option["value"].strip()
            return None
        found = _row(text, run.columns)
        if isinstance(found, NixlbenchRow):
            run.rows.append(found)
            return found
        if found is not None:
            run.cut.append(found)
        elif text.strip("-* ") and "Ctrl-C" not in text:
            run.last_line = text
        return None

    def _next(self) -> NixlbenchRun:
        self.run = NixlbenchRun(self.run.label)
        self.runs.append(self.run)
        return self.run


def _titles(header: str) -> list[str]:
    """Return the field of each column, or the title where it is none of nixlbench's."""
    titles: list[str] = []
    for cell in re.split(r"\s{2,}|\t", header):
        known = [match[0] for match in _NAMES.finditer(cell)]
        rest = [part.strip() for part in _NAMES.split(cell)]
        for before, name in zip(rest, [*known, ""], strict=True):
            titles += [text for text in (before, name) if text]
    return [_FIELDS.get(title, title) for title in titles]


def _row(text: str, columns: Sequence[str]) -> NixlbenchRow | CutRow | None:
    """Return the row in a line of the table's part, with its cut row if it is one; None if the line is no row.

    What other processes write into the same line after a whole row is ignored.
    """
    cells = text.split()
    count = next((n for n, cell in enumerate(cells) if not _NUMBER.fullmatch(cell)), len(cells))
    if count < 2 or not (cells[0].isdecimal() and cells[1].isdecimal()) or len(cells[0] + cells[1]) > 30:
        return None
    block, batch = int(cells[0]), int(cells[1])
    if count < len(columns):
        return CutRow(block, batch, f"is cut after {count} of {len(columns)} columns")
    if count > len(columns):
        return CutRow(block, batch, f"has {count} cells below {len(columns)} columns")
    return _of_cells(dict(zip(columns, cells, strict=False)))


def _of_cells(cells: Mapping[str, str]) -> NixlbenchRow | CutRow:
    values = {name: float(cell) for name, cell in cells.items()}
    block, batch = int(values.pop("block_bytes")), int(values.pop("batch"))
    if odd := next((name for name, value in values.items() if not math.isfinite(value)), None):
        return CutRow(block, batch, f"has {cells[odd][:12]} as {odd}")
    fields = {name: values.pop(name) for name in _FIELDS.values() if name in values}
    if "gb_per_s" not in fields:
        unit = next((name for name in SAME_RATE if name in values), None)
        if unit is None:
            return CutRow(block, batch, "has no rate")
        fields["gb_per_s"] = values[unit] * SAME_RATE[unit]
    return NixlbenchRow(block, batch, **fields, more=values)


def is_nixlbench(text: str) -> bool:
    """True if a text has nixlbench's table."""
    return _HEADER.search(text) is not None


def seems_nixlbench(text: str) -> bool:
    """True if a text without nixlbench's table still looks like its output."""
    return _TITLE.search(text) is not None or re.search(r"\(--\w+_seg_type=", text) is not None


def is_cloudai(text: str) -> bool:
    """True if a text begins with the header of cloudai's `nixlbench.csv`."""
    head = _csv_head(text.partition("\n")[0])
    return "block_size" in head and "batch_size" in head and any(name.startswith("bw_") for name in head)


def _csv_head(line: str) -> list[str]:
    return [name.strip().strip('"') for name in line[:_LONGEST_LINE].strip().split(",")]


def parse_runs(text: str) -> list[NixlbenchRun]:
    """Return the runs of a saved output, in the order in which their tables begin.

    A run without a table counts only if no process of the log has one, or if it follows one of the same process.

    Raises:
        ValueError: The text has no row of nixlbench's table.
    """
    if is_cloudai(text):
        return [_from_cloudai(text)]
    readers: dict[str, NixlbenchReader] = {}
    order: list[NixlbenchRun] = []
    last = ""
    known: set[int] = set()
    row = None
    for label, line in log_lines(text, _HEADER):
        reader = readers.get(label)
        if reader is None:
            reader = readers[label] = NixlbenchReader(label)
        row = reader.take(line)
        if id(reader.run) not in known:
            known.add(id(reader.run))
            order.append(reader.run)
        last = "" if row is not None or label or _HEADER.match(line) else line if line.strip("-* ") else last
    if row is not None and not text[-1:].isspace():
        _check_end(next(run for run in order if any(one is row for one in run.rows)), line)
    found = [run for run in order if run.rows or run.cut or run.columns or _follows(run, readers[run.label])]
    rows = sum(len(run.rows) + len(run.cut) for run in found)
    if len(found) > _MOST_RUNS or rows > _MOST_ROWS:
        raise ValueError(f"it looks like nixlbench output but has {many(len(found), 'table')} with {many(rows, 'row')}")
    if not any(run.rows for run in found):
        raise ValueError(_without_rows(found))
    if found and not found[-1].last_line and found[-1].unfinished():
        found[-1].last_line = last
    return found


def _check_end(run: NixlbenchRun, line: str) -> None:
    """Move the last row to the cut ones if the text ends within its last number."""
    fixed = "transfer_p99_us" in run.columns  # the older tables print whole numbers without decimals
    if fixed and not line.split()[-1].partition(".")[2]:
        row = run.rows.pop()
        run.cut.append(CutRow(row.block_bytes, row.batch, "is cut within its last number"))


def _follows(run: NixlbenchRun, reader: NixlbenchReader) -> bool:
    at = next(number for number, one in enumerate(reader.runs) if one is run)
    return bool(run.options) and any(one.rows for one in reader.runs[:at])


def _without_rows(found: Sequence[NixlbenchRun]) -> str:
    said = next((run.cut[0] for run in found if run.cut), None)
    if said is not None:
        row = f"that of {count_text(said.block_bytes)} B {said.reason}"
        return f"it looks like nixlbench output but has no whole row: {row}"
    if found:
        return "it looks like nixlbench output but has no row of nixlbench's table: the run ended before its first"
    return "it has no row of nixlbench's table"


def _from_cloudai(text: str) -> NixlbenchRun:
    rows = list(csv.reader(io.StringIO(text)))
    columns = [_CSV_FIELDS.get(name, name) for name in _csv_head(text.partition("\n")[0])]
    run = NixlbenchRun(columns=columns)
    for cells in rows[1:]:
        if not any(cell.strip() for cell in cells):
            continue
        known = {name: cell.strip() for name, cell in zip(columns, cells, strict=False) if name and cell.strip()}
        numbers = {name: cell for name, cell in known.items() if _NUMBER.fullmatch(cell)}
        if not {"block_bytes", "batch"} <= set(numbers):
            raise ValueError(f"it looks like cloudai's nixlbench.csv but has the row {','.join(cells)[:60]}")
        found = _of_cells(numbers)
        if len(cells) < len(columns) or len(numbers) < len(known):
            found = CutRow(int(float(numbers["block_bytes"])), int(float(numbers["batch"])), "is cut")
        (run.rows if isinstance(found, NixlbenchRow) else run.cut).append(found)  # type: ignore[arg-type]
    if not run.rows:
        raise ValueError("it looks like cloudai's nixlbench.csv but has no row")
    return run


def parse_nixlbench(text: str) -> list[NixlbenchRow]:
    """Return every table row in order; other lines are ignored."""
    try:
        return [row for run in parse_runs(text) for row in run.rows]
    except ValueError:
        return []


def parse_options(text: str) -> dict[str, str]:
    """Return the configuration printed before the first table; {} if there is none.

    Raises:
        ValueError: The text has no row of nixlbench's table.
    """
    return parse_runs(text)[0].options


def path_of(params: Mapping[str, Any]) -> str:
    """Return the path of a run.

    Args:
        params: nixlbench's parameters, by flag; defaults are nixlbench's.

    Raises:
        ValueError: A memory type or the direction is unknown.
    """
    known = {name: str(params.get(name) or default) for name, default in _DECIDING.items()}
    initiator, target = known["initiator_seg_type"], known["target_seg_type"]
    if known["backend"] in _STORAGE:
        key = (known["op_type"], initiator, "")
    elif known["op_type"] == "READ":
        key = ("network", target, initiator)
    else:
        key = ("network", initiator, target)
    if key not in _PATHS:
        raise ValueError(
            f"it looks like nixlbench output but no path has op_type {known['op_type']}, "
            f"initiator_seg_type {initiator} and target_seg_type {target}"
        )
    return _PATHS[key]


def as_results(rows: Sequence[NixlbenchRow], params: Mapping[str, Any]) -> tuple[StepResult, ...]:
    """Return the rows as step results: values that nixlbench doesn't print are null, its columns are in
    `settings.nixlbench`.

    Args:
        rows: Rows of one run.
        params: The run's known parameters, by flag. Those that decide the path and are missing are taken from
            nixlbench's defaults, and named in `settings.assumed`.

    Raises:
        ValueError: The parameters name a memory type or a direction that no path has.
    """
    step = _Steps(params)
    return tuple(step.result(number, row) for number, row in enumerate(rows))


class _Steps:
    """What the step results of one run have in common."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.params, self.path = params, path_of(params)
        nvshmem = params.get("worker_type") == "nvshmem"
        self.backend = "nvshmem" if nvshmem else str(params.get("backend") or "UCX")
        storage = self.backend in _STORAGE
        direct = params.get("storage_enable_direct", params.get("gds_enable_direct"))  # the latter until June 2025
        self.direct = str(direct).lower() in ("1", "true") if storage else None
        left_out = ("backend",) if nvshmem else ("target_seg_type",) if storage else ()
        self.assumed = {
            name: default for name, default in _DECIDING.items() if not params.get(name) and name not in left_out
        }

    def result(self, number: int, row: NixlbenchRow | CutRow) -> StepResult:
        params, direct = self.params, self.direct
        whole = isinstance(row, NixlbenchRow)
        rate = Interval(row.gb_per_s, row.gb_per_s, row.gb_per_s) if isinstance(row, NixlbenchRow) else None
        settings: dict[str, Any] = {"measured_by": "nixlbench"}
        if isinstance(row, NixlbenchRow):
            settings["nixlbench"] = {name: getattr(row, name) for name in _STORED}
            if row.more:
                settings["nixlbench"]["more"] = row.more
        if self.assumed:
            settings["assumed"] = self.assumed
        return StepResult(
            step=number, trial=number, path=self.path, layout="FullyContiguous", backend=self.backend,
            api=str(params.get("posix_api_type") or "AIO") if self.backend == "POSIX" else None,
            direct=direct, page_cache=None if direct is None else "bypassed" if direct else "in use",
            durable=False if self.path.endswith("ToDisk") else None,
            block_bytes=row.block_bytes, batch=row.batch, descriptors_per_block=1, descriptors_per_request=row.batch,
            merged=False, blocks=row.batch, iterations=0, warmup_iterations=0, bytes=0,
            prep_us=None, post_us=None, transfer_us=None, request_us=None, gb_per_s=rate,
            reference_gb_per_s=None, reference=None, efficiency=None, verified=None,
            status="ok" if whole else "failed",
            reason=None if isinstance(row, NixlbenchRow) else f"the row in nixlbench's output {row.reason}",
            settings=settings,
        )  # fmt: skip


def as_sessions(text: str, name: str, created: float) -> list[Session]:
    """Return saved output as one session per run: in state `done`, or `interrupted` with the reason if the table isn't
    whole. With several runs, the names end in `-1`, `-2` ….

    Raises:
        ValueError: The text has no row of nixlbench's table, or a configuration that no path has.
    """
    runs = parse_runs(text)
    return [_session(run, f"{name}-{number}" if len(runs) > 1 else name, created) for number, run in enumerate(runs, 1)]


def as_session(text: str, name: str, created: float) -> Session:
    """Return saved output of one run as a session, as `as_sessions` does.

    Raises:
        ValueError: The text has no row of nixlbench's table, or several runs.
    """
    found = as_sessions(text, name, created)
    if len(found) > 1:
        raise ValueError(f"it holds {len(found)} runs of nixlbench")
    return found[0]


def _session(run: NixlbenchRun, name: str, created: float) -> Session:
    step = _Steps(run.options)
    rows: list[NixlbenchRow | CutRow] = [*run.rows, *run.cut]
    results = tuple(step.result(number, row) for number, row in enumerate(rows))
    unfinished = run.unfinished()
    state: RunState = "done" if unfinished is None else "interrupted"
    reason = None if unfinished is None else f"unfinished: {unfinished}"
    return Session(name, state, created, reason=reason, spec={"nixlbench": run.options}, results=results)
