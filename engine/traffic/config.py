"""The YAML of a traffic test: its patterns, as NIXL's `ct-perftest` and `sequential-ct-perftest` write them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvdeck.engine.quantities import MOST
from kvdeck.engine.traffic.matrix import Matrix, parse_matrix, read_matrix, square
from kvdeck.sessions.errors import KvdeckError, UsageError
from kvdeck.sessions.host.documents import load_yaml
from kvdeck.sessions.host.files import read_regular

MOST_YAML = 1 << 20
_TOP = ("iters", "warmup_iters", "traffic_pattern", "traffic_patterns", "generated")
_OF_PATTERN = ("shards", "mem_type", "xfer_op", "metadata", "sleep_before_launch_sec", "sleep_after_launch_sec",
               "storage")  # fmt: skip
_MEMORY = {"dram": "DRAM", "cpu": "DRAM", "vram": "VRAM", "cuda": "VRAM"}
MOST_ITERATIONS = 1_000_000
MOST_SHARDS = 65_536


@dataclass(frozen=True, slots=True)
class StoragePhases:
    """What each rank does with a file beside a pattern: it reads what it sends before, and writes what it received."""

    read: bool = True
    write: bool = True
    backend: str = "POSIX"
    """NIXL's backend."""
    direct: bool = False
    """O_DIRECT."""

    def to_mapping(self) -> dict[str, Any]:
        """Return the mapping that a file has."""
        return {"read": self.read, "write": self.write, "backend": self.backend, "direct": self.direct}


@dataclass(frozen=True, slots=True)
class TrafficPattern:
    """One matrix, and how its bytes are moved."""

    matrix: Matrix
    operation: str = "WRITE"
    """WRITE: senders push; READ: receivers pull."""
    memory: str | None = None
    """NIXL's memory type, DRAM or VRAM; None if the file names none."""
    shards: int = 1
    """Descriptors that one message is divided into."""
    sleep_before_s: float = 0.0
    sleep_after_s: float = 0.0
    metadata: Mapping[str, Any] | None = None
    storage: StoragePhases | None = None
    """Null: no files."""

    @property
    def initiators(self) -> tuple[int, ...]:
        """Ranks that post the requests."""
        return self.matrix.senders if self.operation == "WRITE" else self.matrix.receivers

    def initiated(self, rank: int) -> int:
        """Return the bytes that a rank moves as initiator."""
        return (self.matrix.sent if self.operation == "WRITE" else self.matrix.received)[rank]


@dataclass(frozen=True, slots=True)
class TrafficConfig:
    """A file's patterns, in order, and its iterations if it gives them."""

    patterns: tuple[TrafficPattern, ...]
    iterations: int | None = None
    warmup: int | None = None

    @property
    def ranks(self) -> int:
        """Ranks of the matrices; 0 without patterns."""
        return self.patterns[0].matrix.ranks if self.patterns else 0


def read_config(path: Path) -> TrafficConfig:
    """Read a YAML file and the matrices that it names, relative to its own folder.

    Raises:
        UsageError: A file can't be read, a key is unknown, a value is invalid, or the matrices differ in size.
    """
    try:
        document = load_yaml(read_regular(path, MOST_YAML))
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}", "give the path of a YAML file") from error
    except (ValueError, KvdeckError) as error:
        raise UsageError(f"{path}: {error}", "write YAML with `traffic_patterns`") from error
    return parse_config(document, str(path), path.parent)


def parse_config(document: Any, source: str, folder: Path) -> TrafficConfig:
    """Return the config of a loaded YAML document; errors as `read_config`.

    Args:
        document: The document.
        source: Its name in messages.
        folder: Folder that relative paths of matrices start from.
    """
    if not isinstance(document, dict):
        raise UsageError(f"{source}: not a mapping", "write `traffic_patterns:` and a list")
    _check_keys(document, _TOP, source)
    if ("traffic_pattern" in document) == ("traffic_patterns" in document):
        raise UsageError(
            f"{source}: needs either traffic_pattern or traffic_patterns", "give one pattern, or a list of them"
        )
    patterns: tuple[TrafficPattern, ...]
    if "traffic_pattern" in document:
        patterns = (_pattern(document["traffic_pattern"], f"{source}: traffic_pattern", folder),)
    else:
        entries = document["traffic_patterns"]
        if entries is None:
            entries = []
        if not isinstance(entries, list):
            raise UsageError(f"{source}: traffic_patterns is not a list", "begin each pattern with `- matrix_file:`")
        patterns = tuple(
            _pattern(entry, f"{source}: traffic_patterns[{number}]", folder) for number, entry in enumerate(entries)
        )
    for number, pattern in enumerate(patterns):
        if pattern.matrix.ranks != patterns[0].matrix.ranks:
            raise UsageError(
                f"{source}: pattern {number} has {pattern.matrix.ranks} ranks, pattern 0 has "
                f"{patterns[0].matrix.ranks}", "give matrices of one size"
            )  # fmt: skip
    return TrafficConfig(
        patterns,
        _whole(document, "iters", source, 1, MOST_ITERATIONS),
        _whole(document, "warmup_iters", source, 0, MOST_ITERATIONS),
    )


def _check_keys(mapping: Mapping[Any, Any], known: tuple[str, ...], place: str) -> None:
    unknown = sorted(str(key)[:40] for key in mapping if key not in known)
    if unknown:
        raise UsageError(f"{place}: unknown key {', '.join(unknown[:5])}", f"use {', '.join(known)}")


def _pattern(entry: Any, place: str, folder: Path) -> TrafficPattern:
    if not isinstance(entry, dict):
        raise UsageError(f"{place}: not a mapping", "write `matrix_file: PATH`")
    return pattern_of(entry, place, lambda own, where: _matrix(own, where, folder), ("matrix_file", "matrix"))


def pattern_of(
    entry: Mapping[str, Any],
    place: str,
    matrix: Callable[[Mapping[str, Any], str], Matrix],
    own: tuple[str, ...],
) -> TrafficPattern:
    """Return the pattern of a mapping.

    Args:
        entry: The mapping.
        place: Its name in messages.
        matrix: Returns the matrix of the mapping and its place.
        own: Keys that `matrix` reads.

    Raises:
        UsageError: A key is unknown, or a value invalid.
    """
    _check_keys(entry, (*own, *_OF_PATTERN), place)
    metadata = entry.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise UsageError(f"{place}: metadata is not a mapping", "write `metadata: {isl: 4096}`")
    _check_names(metadata, f"{place}: metadata")
    memory = _choice(entry, "mem_type", place, tuple(_MEMORY), str.lower)
    return TrafficPattern(
        matrix(entry, place),
        _choice(entry, "xfer_op", place, ("READ", "WRITE"), str.upper) or "WRITE",
        None if memory is None else _MEMORY[memory],
        _whole(entry, "shards", place, 1, MOST_SHARDS) or 1,
        _seconds(entry, "sleep_before_launch_sec", place),
        _seconds(entry, "sleep_after_launch_sec", place),
        metadata,
        _storage(entry.get("storage"), f"{place}: storage"),
    )


def _check_names(value: Any, place: str) -> None:
    """Raise UsageError if a mapping in `value` has a key that is not a string, as JSON needs."""
    if isinstance(value, dict):
        wrong = next((key for key in value if not isinstance(key, str)), "")
        if not isinstance(wrong, str):
            raise UsageError(f"{place}: the key {str(wrong)[:40]} is not a string", f"write '{str(wrong)[:40]}'")
    for below in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_names(below, place)


def _storage(entry: Any, place: str) -> StoragePhases | None:
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise UsageError(f"{place}: not a mapping", "write `storage: {read: true, write: true}`")
    _check_keys(entry, ("read", "write", "backend", "direct"), place)
    for name in ("read", "write", "direct"):
        if type(entry.get(name, False)) is not bool:
            raise UsageError(f"{place}: {name} is {str(entry[name])[:40]!r}", "write true or false")
    backend = _choice(entry, "backend", place, ("POSIX",), str.upper) or "POSIX"
    phases = StoragePhases(entry.get("read", True), entry.get("write", True), backend, entry.get("direct", False))
    if not phases.read and not phases.write:
        raise UsageError(f"{place}: neither reads nor writes", "write `read: true`, or remove storage")
    return phases


def _matrix(entry: Mapping[str, Any], place: str, folder: Path) -> Matrix:
    file, inline = entry.get("matrix_file"), entry.get("matrix")
    if (file is None) == (inline is None):
        raise UsageError(f"{place}: needs either matrix_file or matrix", "give a path, or the rows")
    if file is not None:
        if not isinstance(file, str) or not file:
            raise UsageError(f"{place}: matrix_file is not a path", "give the path of a text file")
        return read_matrix(folder / file)
    if isinstance(inline, str):
        return parse_matrix(inline, f"{place}: matrix")
    if not isinstance(inline, list) or not all(isinstance(row, list) for row in inline):
        raise UsageError(f"{place}: matrix is neither text nor a list of rows", "write a list per rank")
    if len({len(row) for row in inline}) > 1:
        raise UsageError(f"{place}: the rows of matrix differ in length", "give each row a cell for every rank")
    if all(type(cell) is int and 0 <= cell <= MOST for row in inline for cell in row):
        return square(tuple(map(tuple, inline)), f"{place}: matrix")
    return parse_matrix("\n".join(" ".join(map(str, row)) for row in inline), f"{place}: matrix")


def _choice(entry: Mapping[str, Any], key: str, place: str, choices: tuple[str, ...], fold: Any) -> str | None:
    value = entry.get(key)
    if value is None:
        return None
    folded = fold(value) if isinstance(value, str) else None
    if folded not in choices:
        raise UsageError(f"{place}: {key} is {str(value)[:40]!r}", f"use {', '.join(choices)}")
    return str(folded)


def _whole(entry: Mapping[str, Any], key: str, place: str, least: int, most: int) -> int | None:
    value = entry.get(key)
    if value is None:
        return None
    if type(value) is not int or not least <= value <= most:
        raise UsageError(f"{place}: {key} is {str(value)[:40]!r}", f"give a whole number from {least} to {most}")
    return value


def _seconds(entry: Mapping[str, Any], key: str, place: str) -> float:
    value = entry.get(key)
    if value is None:
        return 0.0
    if type(value) not in (int, float) or not 0 <= value <= 86_400 or math.isnan(value):
        raise UsageError(f"{place}: {key} is {str(value)[:40]!r}", "give seconds from 0 to 86400")
    return float(value)
