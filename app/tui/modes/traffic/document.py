"""The patterns on the Traffic screen: opened from a YAML file, edited, and saved."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kvdeck.engine.traffic.config import TrafficConfig, TrafficPattern, read_config
from kvdeck.engine.traffic.matrix import Matrix, matrix_text, parse_matrix
from kvdeck.engine.traffic.spec import pattern_mapping, spec_of_config, too_large
from kvdeck.sessions.errors import KvdeckError, UsageError
from kvdeck.sessions.host.documents import dump_yaml
from kvdeck.sessions.host.files import is_folder, replace_file
from kvdeck.sessions.host.user_home import expanded

IN_FOLDER = "metadata.yaml"
"""The file of a folder that the generator has made."""


@dataclass(frozen=True, slots=True)
class TrafficDocument:
    """Patterns, and where they are from; immutable, each edit returns a new document."""

    config: TrafficConfig = field(default_factory=lambda: TrafficConfig(()))
    source: str = ""
    """Path of the YAML file, or name of the session; empty for neither."""
    changed: bool = False
    """True if it was edited since it was opened or saved."""

    @property
    def title(self) -> str:
        """The file's name, with its folder if all folders have such a file."""
        path = Path(self.source)
        return f"{path.parent.name}/{path.name}" if path.name == IN_FOLDER else path.name

    def with_cell(self, number: int, source: int, destination: int, size: int) -> TrafficDocument:
        """Return the document with another number of bytes from `source` to `destination` in a pattern."""
        patterns = list(self.config.patterns)
        rows = list(patterns[number].matrix.rows)
        row = rows[source]
        if row[destination] == size:
            return self
        rows[source] = (*row[:destination], size, *row[destination + 1 :])
        patterns[number] = replace(patterns[number], matrix=Matrix(tuple(rows)))
        return replace(self, config=replace(self.config, patterns=tuple(patterns)), changed=True)


def parse_cell(text: str) -> int:
    """Return the bytes of one cell, typed as in a matrix file.

    Raises:
        UsageError: It is no size.
    """
    try:
        found = parse_matrix(text, "cell")
    except UsageError as error:
        raise UsageError(f"{text[:24]!r} is no size", "write bytes, or 64K, 1.5M, 2G, 1T; 0 sends nothing") from error
    return found.rows[0][0]


def open_document(text: str) -> TrafficDocument:
    """Read a YAML file, or the one in a folder that the generator has made.

    Raises:
        UsageError: It can't be read or is invalid; the message names file, and line and column in a matrix.
    """
    path = expanded(text)
    if is_folder(path):
        path /= IN_FOLDER
    return TrafficDocument(read_config(path), str(path.absolute()))


def save_document(document: TrafficDocument, text: str) -> TrafficDocument:
    """Write the patterns as a YAML file, with a matrix file of each beside it, in exact bytes.

    Returns:
        The document as saved.

    Raises:
        KvdeckError: A file can't be written.
    """
    path = expanded(text)
    if path.suffix not in (".yaml", ".yml"):
        raise UsageError(f"{path.name!r} is no name of a YAML file", "end it in .yaml")
    entries = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for number, pattern in enumerate(document.config.patterns):
            name = f"{path.stem}-matrix_{number}.txt"
            replace_file(path.with_name(name), matrix_text(pattern.matrix).encode(), mode=0o666)
            entries.append(_entry(pattern, name))
        replace_file(path, dump_yaml(_top(document.config, entries)).encode(), mode=0o666)
    except OSError as error:
        raise KvdeckError(
            f"can't write {error.filename or path}: {error.strerror}", "give a path in a folder of yours"
        ) from error
    return replace(document, source=str(path.absolute()), changed=False)


def spec_of(document: TrafficDocument) -> dict[str, Any]:
    """Return the spec of a test that measures the patterns alone and in sequence, and compares every byte.

    Raises:
        UsageError: There are too many cells to hand them to the engine.
    """
    source = "" if document.changed else document.source
    spec = spec_of_config(document.config, source=source, verify=True)
    if why := too_large(spec):
        raise UsageError(why, "save it, and run kvdeck sequential-ct-perftest in a terminal")
    return spec.to_mapping()


def _top(config: TrafficConfig, entries: list[dict[str, Any]]) -> dict[str, Any]:
    counts = {"iters": config.iterations, "warmup_iters": config.warmup}
    return {**{name: value for name, value in counts.items() if value is not None}, "traffic_patterns": entries}


def _entry(pattern: TrafficPattern, name: str) -> dict[str, Any]:
    words = {key: value for key, value in pattern_mapping(pattern).items() if key not in ("ranks", "cells")}
    return {"matrix_file": name, **words}
