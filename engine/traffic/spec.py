"""What a traffic test is to do: its patterns and options, as `run.yaml`, the engine and the screen hold them.

The patterns are part of it, so that a test can be repeated when the files that it came from are gone.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvdeck.engine.quantities import MOST
from kvdeck.engine.spec import parse_host
from kvdeck.engine.traffic.config import MOST_ITERATIONS, TrafficConfig, TrafficPattern, pattern_of
from kvdeck.engine.traffic.matrix import MOST_RANKS, Matrix, square
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.host.documents import DocumentError, dump_yaml, load_yaml
from kvdeck.sessions.host.files import MAX_RECORD, read_regular
from kvdeck.sessions.model.traffic import TrafficMode
from kvdeck.sessions.units import many

ITERATIONS, WARMUP, ISOLATION = 3, 30, 30
"""Upstream's constants of the sequential test."""
MOST_SENT = 2 << 20
"""Most characters of cells in a spec that a client hands to the engine; a larger set runs in the foreground."""
_CELL_LINE = re.compile(r"(\d{1,4}) (\d{1,4}) (\d{1,19})")


@dataclass(frozen=True, slots=True)
class TrafficSpec:
    """Settings of one test. Null: the engine chooses."""

    patterns: tuple[TrafficPattern, ...] = ()
    mode: TrafficMode = "sequential"
    source: str = ""
    """File that the patterns came from; empty if there is none."""
    processes: int | None = None
    """Processes per host that play the ranks. Null: one for each rank, at most one per core."""
    iterations: int | None = None
    """Null: 3 in sequence, 1 of a single pattern."""
    warmup: int | None = None
    """Null: 30 in sequence, none of a single pattern."""
    isolation: int = ISOLATION
    """Visits of each pattern alone."""
    verify: bool = False
    print_received: bool = False
    """Keep how each received message begins, and its CRC-32."""
    peer: tuple[str, ...] = ()
    """Other hosts that play ranks, reached by ssh; the first ranks are on this host."""
    peer_command: str = "kvdeck"
    peer_timeout: float = 30.0

    @property
    def ranks(self) -> int:
        """Ranks of the matrices; 0 without patterns."""
        return self.patterns[0].matrix.ranks if self.patterns else 0

    @property
    def label(self) -> str:
        """Middle part of a generated session name."""
        return f"traffic-{self.ranks}ranks"

    @property
    def paths(self) -> tuple[str, ...] | None:
        """No transfer paths: bytes go between ranks."""
        return None

    @property
    def counts(self) -> tuple[int, int, int]:
        """Iterations, warm-up, and visits of each pattern alone, with the defaults filled in."""
        if self.mode == "single":
            return _or(self.iterations, 1), _or(self.warmup, 0), 0
        return _or(self.iterations, ITERATIONS), _or(self.warmup, WARMUP), self.isolation

    def to_mapping(self) -> dict[str, Any]:
        """Return all fields as values that YAML and JSON can represent; without peers, none about them."""
        left_out = () if self.peer else ("peer", "peer_command", "peer_timeout")
        found = {
            one.name: getattr(self, one.name)
            for one in dataclasses.fields(self)
            if one.name not in ("patterns", *left_out)
        }
        if self.peer:
            found["peer"] = list(self.peer)
        return {**found, "patterns": [pattern_mapping(pattern) for pattern in self.patterns]}

    def to_yaml(self) -> str:
        """Return the text of `run.yaml`."""
        return dump_yaml(self.to_mapping())


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def spec_of_config(config: TrafficConfig, mode: TrafficMode = "sequential", **options: Any) -> TrafficSpec:
    """Return the spec of a file's patterns; `options` are the other fields, those that are None as the file has them.

    Raises:
        UsageError: The patterns don't fit the mode, or a value is invalid.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if config.iterations is not None:
        given.setdefault("iterations", config.iterations)
    if config.warmup is not None:
        given.setdefault("warmup", config.warmup)
    return checked(TrafficSpec(config.patterns, mode, **given), "the options")


def too_large(spec: TrafficSpec) -> str | None:
    """Return why a spec can't be handed to the engine; None if it can."""
    size = sum(len(_cells(pattern.matrix)) for pattern in spec.patterns)
    if size <= MOST_SENT:
        return None
    return f"the matrices of {many(len(spec.patterns), 'pattern')} have too many cells to be queued"


def pattern_mapping(pattern: TrafficPattern) -> dict[str, Any]:
    """Return a pattern as plain values, in the words of a traffic test's YAML."""
    found: dict[str, Any] = {"ranks": pattern.matrix.ranks, "cells": _cells(pattern.matrix)}
    found |= {"xfer_op": pattern.operation, "shards": pattern.shards}
    optional = {
        "mem_type": pattern.memory,
        "sleep_before_launch_sec": pattern.sleep_before_s or None,
        "sleep_after_launch_sec": pattern.sleep_after_s or None,
        "metadata": None if pattern.metadata is None else dict(pattern.metadata),
        "storage": None if pattern.storage is None else pattern.storage.to_mapping(),
    }
    return {**found, **{name: value for name, value in optional.items() if value is not None}}


def _cells(matrix: Matrix) -> str:
    """Return a line `SOURCE DESTINATION BYTES` for each cell that isn't 0."""
    lines = (
        f"{source} {to} {size}\n"
        for source, row in enumerate(matrix.rows)
        for to, size in enumerate(row)
        if size
    )  # fmt: skip
    return "".join(lines)


def _matrix(entry: Mapping[str, Any], place: str) -> Matrix:
    ranks, cells = entry.get("ranks"), entry.get("cells")
    if type(ranks) is not int or not 1 <= ranks <= MOST_RANKS:
        raise UsageError(f"{place}: ranks is {str(ranks)[:40]!r}", f"give a whole number from 1 to {MOST_RANKS}")
    if not isinstance(cells, str):
        raise UsageError(f"{place}: cells is not a text", "give a line `SOURCE DESTINATION BYTES` for each cell")
    rows = [[0] * ranks for _ in range(ranks)]
    for number, line in enumerate(cells.splitlines(), start=1):
        found = _CELL_LINE.fullmatch(line)
        source, to, size = map(int, found.groups()) if found else (ranks, ranks, 0)
        if max(source, to) >= ranks or size > MOST:
            raise UsageError(f"{place}: cells:{number}: {line[:40]!r} is no cell of {many(ranks, 'rank')}",
                             "give `SOURCE DESTINATION BYTES`, ranks from 0")  # fmt: skip
        rows[source][to] = size
    return square(tuple(map(tuple, rows)), f"{place}: cells")


def traffic_spec(data: Any, source: str = "the spec") -> TrafficSpec:
    """Return the spec of a mapping, as `TrafficSpec.to_mapping` gives it, after checking it.

    Raises:
        UsageError: A key or a value is invalid; the message names it and its fix.
    """
    if not isinstance(data, dict):
        raise UsageError(f"{source} is not a mapping", "write one `key: value` per line, as in a session's run.yaml")
    fields = {key: value for key, value in data.items() if key != "job"}
    known = {one.name for one in dataclasses.fields(TrafficSpec)}
    unknown = sorted(str(key)[:40] for key in fields if key not in known)
    if unknown:
        raise UsageError(f"{source} has unknown keys: {', '.join(unknown[:5])}", f"use only {', '.join(sorted(known))}")
    entries = fields.pop("patterns", [])
    if not isinstance(entries, list):
        raise UsageError(f"{source}: patterns is not a list", "begin each pattern with `- ranks:`")
    patterns = []
    for number, entry in enumerate(entries):
        place = f"{source}: patterns[{number}]"
        if not isinstance(entry, dict):
            raise UsageError(f"{place} is not a mapping", "write `ranks` and `cells`")
        patterns.append(pattern_of(entry, place, lambda own, where: _matrix(own, where), ("ranks", "cells")))
    if "peer" in fields:
        peers = fields["peer"]
        if not isinstance(peers, (list, tuple)) or not all(isinstance(one, str) for one in peers):
            raise UsageError(f"{source}: peer is not a list of hosts", "give HOST or USER@HOST for each")
        fields["peer"] = tuple(map(parse_host, peers))
    return checked(TrafficSpec(tuple(patterns), **fields), source)


def checked(spec: TrafficSpec, source: str) -> TrafficSpec:
    """Return the spec if all its values are valid.

    Raises:
        UsageError: One isn't; the message names it.
    """
    whole = {
        "processes": (spec.processes, 1, MOST_RANKS),
        "iterations": (spec.iterations, 1, MOST_ITERATIONS),
        "warmup": (spec.warmup, 0, MOST_ITERATIONS),
        "isolation": (spec.isolation, 0, MOST_ITERATIONS),
    }
    for name, (value, least, most) in whole.items():
        optional = value is None and name != "isolation"
        if not optional and (type(value) is not int or not least <= value <= most):
            raise UsageError(
                f"{name} in {source} is {str(value)[:40]!r}", f"give a whole number from {least} to {most}"
            )
    if spec.mode not in ("single", "sequential"):
        raise UsageError(f"mode in {source} is {str(spec.mode)[:40]!r}", "use single or sequential")
    for name in ("verify", "print_received"):
        if type(getattr(spec, name)) is not bool:
            raise UsageError(f"{name} in {source} is not true or false", "give true or false")
    if not all(isinstance(text, str) for text in (spec.source, spec.peer_command)):
        raise UsageError(f"source and peer_command in {source} are texts", "give texts")
    timeout = spec.peer_timeout
    if type(timeout) not in (int, float) or not 1 <= timeout <= 86_400:
        raise UsageError(f"peer_timeout in {source} is {str(timeout)[:40]!r}", "give 1 to 86400 seconds")
    if spec.mode == "single" and len(spec.patterns) != 1:
        named = spec.source or source
        raise UsageError(
            f"{named} has {many(len(spec.patterns), 'pattern')}, and ct-perftest runs one",
            "use kvdeck sequential-ct-perftest",
        )
    for number, pattern in enumerate(spec.patterns):
        if pattern.matrix.ranks != spec.ranks:
            raise UsageError(
                f"{source}: pattern {number} has {pattern.matrix.ranks} ranks, pattern 0 has {spec.ranks}",
                "give matrices of one size",
            )
    if spec.patterns and len(spec.peer) >= spec.ranks:
        raise UsageError(
            f"{source}: {many(spec.ranks, 'rank')} can't be on this host and {many(len(spec.peer), 'peer')}",
            "name fewer peers",
        )
    return spec


def spec_in(folder: Path) -> TrafficSpec:
    """Return the spec in a session's `run.yaml`; raises UsageError as `traffic_spec`, also if it can't be read."""
    path = folder / "run.yaml"
    try:
        return traffic_spec(load_yaml(read_regular(path, MAX_RECORD), MAX_RECORD), str(path))
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}", "start the test again") from error
    except DocumentError as error:
        raise UsageError(f"{path} is not valid YAML: {error}", "start the test again") from error
