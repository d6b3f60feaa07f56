"""Reader for nixlbench's output: its configuration and its table, row by row.

nixlbench's `Avg Lat.` is the wall time of the whole step divided by the descriptors moved, not the time of a request.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvdeck.sessions.model.records import Interval, Session, StepResult

_HEADER = re.compile(r"^Block Size \(B\)\s+Batch Size\s+B/W \(GB/Sec\)")
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
_OPTION = re.compile(r"^(?P<said>\S.*?)\s*:\s*(?P<value>.*)$")
_FLAG = re.compile(r"--(\w+)")
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


@dataclass(frozen=True, slots=True)
class NixlbenchRow:
    """One table row. GB is 1e9 bytes; times are means over descriptors or requests, in µs."""

    block_bytes: int
    batch: int
    gb_per_s: float
    latency_us: float
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


@dataclass(slots=True)
class NixlbenchReader:
    """Reads the output incrementally, line by line."""

    options: dict[str, str] = dataclasses.field(default_factory=dict)
    """The printed configuration, keyed by flag, else by the printed label."""
    columns: list[str] = dataclasses.field(default_factory=list)

    def take(self, line: str) -> NixlbenchRow | None:
        """Return the table row of a line; None if it has none."""
        text = line.strip()
        if _HEADER.match(text):
            self.columns = [_FIELDS[name] for name in re.split(r"\s{2,}", text) if name in _FIELDS]
            return None
        cells = text.split()
        if self.columns and len(cells) == len(self.columns) and cells[0].isdigit():
            return _row(dict(zip(self.columns, cells, strict=True)))
        if not self.columns and (option := _OPTION.match(text)):
            named = _FLAG.search(option["said"])
            self.options[named[1] if named else option["said"]] = option["value"].strip()
        return None


def _row(cells: Mapping[str, str]) -> NixlbenchRow | None:
    try:
        values: dict[str, Any] = {name: float(cell) for name, cell in cells.items()}
        values["block_bytes"], values["batch"] = int(cells["block_bytes"]), int(cells["batch"])
    except ValueError:
        return None
    if not all(value - value == 0 for value in values.values()):  # not a finite number
        return None
    return NixlbenchRow(**values) if "latency_us" in values else None


def is_nixlbench(text: str) -> bool:
    """True if a text has nixlbench's table."""
    return any(_HEADER.match(line.strip()) for line in text.splitlines())


def parse_nixlbench(text: str) -> list[NixlbenchRow]:
    """Return every table row in order; other lines are ignored."""
    reader = NixlbenchReader()
    return [row for row in map(reader.take, text.splitlines()) if row is not None]


def parse_options(text: str) -> dict[str, str]:
    """Return the configuration printed before the table."""
    reader = NixlbenchReader()
    for line in text.splitlines():
        reader.take(line)
    return reader.options


def as_results(rows: Sequence[NixlbenchRow], params: Mapping[str, Any]) -> tuple[StepResult, ...]:
    """Return the rows as step results: values that nixlbench doesn't print are null, its columns are in
    `settings.nixlbench`.

    Args:
        rows: Rows of one run.
        params: The run's known parameters, by flag.
    """
    backend, op = str(params.get("backend") or "UCX"), str(params.get("op_type") or "WRITE")
    storage = backend in _STORAGE
    initiator, target = (str(params.get(f"{side}_seg_type") or "DRAM") for side in ("initiator", "target"))
    if storage:
        path = _PATHS[op, initiator, ""]
    elif op == "READ":
        path = _PATHS["network", target, initiator]
    else:
        path = _PATHS["network", initiator, target]
    direct = str(params.get("storage_enable_direct")).lower() in ("1", "true") if storage else None
    return tuple(_result(number, row, path, backend, params, direct) for number, row in enumerate(rows))


def _result(number: int, row: NixlbenchRow, path: str, backend: str, params: Mapping[str, Any],
            direct: bool | None) -> StepResult:  # fmt: skip
    return StepResult(
        step=number, trial=number, path=path, layout="FullyContiguous", backend=backend,
        api=str(params.get("posix_api_type") or "AIO") if backend == "POSIX" else None,
        direct=direct, page_cache=None if direct is None else "bypassed" if direct else "in use",
        durable=False if path.endswith("ToDisk") else None,
        block_bytes=row.block_bytes, batch=row.batch, descriptors_per_block=1, descriptors_per_request=row.batch,
        merged=False, blocks=row.batch, iterations=0, warmup_iterations=0, bytes=0,
        prep_us=None, post_us=None, transfer_us=None, request_us=None,
        gb_per_s=Interval(row.gb_per_s, row.gb_per_s, row.gb_per_s),
        reference_gb_per_s=None, reference=None, efficiency=None, verified=None, status="ok", reason=None,
        settings={"measured_by": "nixlbench", "nixlbench": dataclasses.asdict(row)},
    )  # fmt: skip


def as_session(text: str, name: str, created: float) -> Session:
    """Return saved output as a session in state `done`.

    Raises:
        ValueError: The text has no row of nixlbench's table.
    """
    rows = parse_nixlbench(text)
    if not rows:
        raise ValueError("it has no row of nixlbench's table")
    options = parse_options(text)
    return Session(name, "done", created, spec={"nixlbench": options}, results=as_results(rows, options))
