"""Dynamo's session files: locations, the active session, and lossless reading and writing of their JSON.

The format's documentation and Dynamo's own tool differ in places; here no key is lost, and reading never changes a
file.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from kvdeck.sessions.errors import SessionError
from kvdeck.sessions.host.documents import DocumentError, RefusedError, load_json
from kvdeck.sessions.host.files import open_regular, read_text
from kvdeck.sessions.model.records import (
    DEVICE_TO_DEVICE,
    DEVICE_TO_HOST,
    DISK_TO_DEVICE,
    HOST_TO_DEVICE,
    HOST_TO_DISK,
    HOST_TO_HOST,
    PATHS,
    Session,
    TransferCounts,
)
from kvdeck.sessions.model.transfer_counts import LAYOUTS, average_bytes, ordered
from kvdeck.sessions.units import size_text

DYNAMO_PATHS = (HOST_TO_DISK, HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE, DISK_TO_DEVICE, HOST_TO_HOST)
"""The six paths of Dynamo; with three layouts, eighteen keys."""
VARIABLE = "DYNAMO_BENCHMARK_SESSION"
NO_MINIMUM = 2**64 - 1
"""Value of `min_transfer_size` before the first transfer."""
MOST_BYTES = 4 << 20
"""Maximum file size in bytes, far above the size of eighteen keys: a larger file is another program's."""
_FIELDS = ("transfer_count", "total_bytes", "total_blocks", "min_transfer_size", "max_transfer_size")
_DERIVED = ("avg_transfer_size", "transfer_rate_bps", "block_rate_bps")
_MOST_NAME = 4096
_RECENT_SECONDS = 2.0
_RETRY_SECONDS = 0.004


@dataclass(frozen=True, slots=True)
class Counts:
    """Content of a Dynamo session file."""

    name: str
    duration_s: float
    transfer_counts: tuple[TransferCounts, ...] = ()


@dataclass(frozen=True, slots=True)
class Active:
    """The active session and what selected it: the environment variable or a pointer file."""

    name: str
    source: str


class _TornError(ValueError):
    """The text is not JSON, perhaps because it is only partly written."""


def folders() -> dict[str, Path]:
    """Return the session folders: Dynamo's code writes to the temp folder, its README names the home folder."""
    # As Rust's `std::env::temp_dir` and Dynamo's tool find them, which isn't quite Python's way.
    return {"temp": Path(os.environ.get("TMPDIR") or "/tmp"), "home": Path(os.path.expanduser("~")) / ".dynamo"}  # noqa: PTH111


def session_paths(name: str) -> tuple[Path, Path]:
    """Return the paths of a session's file in the temp folder and in the home folder."""
    places = folders()
    return places["temp"] / f"dynamo_benchmark_{name}.json", places["home"] / f"bench_{name}.json"


def pointer_paths() -> tuple[Path, Path]:
    """Return the paths of the pointer file in the temp folder and in the home folder."""
    places = folders()
    pointer = "dynamo_benchmark_active_session.txt"
    return places["temp"] / pointer, places["home"] / pointer


def active_session() -> Active | None:
    """Return the session named by the environment (an empty name counts), else by the newer pointer file; None if
    none."""
    if (name := os.environ.get(VARIABLE)) is not None:
        return Active(name.strip(), f"the environment, {VARIABLE}")
    found = []
    for path in pointer_paths():
        try:
            name = read_text(path, _MOST_NAME, shared=True).strip()
            found.append((path.stat().st_mtime_ns, path, name))
        except (OSError, UnicodeDecodeError):
            continue
    if not found:
        return None
    # Dynamo's code and its README disagree on the place: the one written last is what the user did last.
    _, path, name = max(found)
    return Active(name, str(path))


def session_file(name: str) -> Path | None:
    """Return the session's file, the newer one if both exist; None if there is none."""
    found = []
    for path in session_paths(name):
        try:
            found.append((path.stat().st_mtime_ns, path))
        except OSError:
            continue
    return max(found)[1] if found else None


def found_files() -> dict[str, Path]:
    """Return the name and file of every Dynamo session on this host."""
    places = folders()
    found: dict[str, Path] = {}
    for folder, prefix in ((places["temp"], "dynamo_benchmark_"), (places["home"], "bench_")):
        try:
            names = os.listdir(folder)  # noqa: PTH208
        except OSError:
            continue
        for name in names:
            if name.startswith(prefix) and name.endswith(".json"):
                session = name[len(prefix) : -len(".json")]
                newest = session_file(session)
                if newest is not None:
                    found[session] = newest
    return found


def read(path: Path, patience: float = 0.5) -> Counts:
    """Return a file's content; retry an incomplete file for `patience` seconds if it was written recently.

    Raises:
        SessionError: It can't be read or isn't a Dynamo session file; the message gives the reason.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            with open_regular(path, shared=path.parent == folders()["temp"]) as file:
                data = file.read(MOST_BYTES + 1)
                # Dynamo's tool rewrites the file in place, so a reader may see a part of it for a moment.
                changed = os.fstat(file.fileno()).st_mtime
            return parse(data)
        except _TornError as error:
            if time.monotonic() >= deadline or abs(time.time() - changed) > _RECENT_SECONDS:
                raise SessionError(
                    f"{path} is truncated or invalid JSON: {error}",
                    "write it again; its writer may have been interrupted",
                ) from None
            time.sleep(_RETRY_SECONDS)
        except OSError as error:
            raise SessionError(f"can't read {path}: {error.strerror}", "check its name, owner and mode") from error
        except ValueError as error:
            raise SessionError(
                f"{path} is not a Dynamo session: {error}", "correct or remove it; kvdeck doesn't change it"
            ) from None


def parse(data: bytes) -> Counts:
    """Return a file's content, parsed by Dynamo's own rules, except that all keys are accepted.

    Raises:
        ValueError: The data is not a Dynamo session file.
    """
    if len(data) > MOST_BYTES:
        raise ValueError(f"it has more than {size_text(MOST_BYTES)}")
    try:
        top = load_json(data)
    except RefusedError:
        raise
    except DocumentError as error:
        raise _TornError(str(error)) from None
    if not isinstance(top, dict):
        raise ValueError("it is not an object")
    for name in top:
        if name not in ("session_name", "session_duration_secs", "metrics"):
            raise ValueError(f"unknown field {name[:60]!r}")
    for name in ("session_name", "session_duration_secs", "metrics"):
        if name not in top:
            raise ValueError(f"field {name!r} is missing")
    session, seconds, metrics = top["session_name"], top["session_duration_secs"], top["metrics"]
    if not isinstance(session, str):
        raise ValueError("'session_name' is not a string")
    # What Rust's `Duration` can hold: Dynamo's own tool would refuse anything else.
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < 2.0**64:
        raise ValueError("'session_duration_secs' is not a duration")
    if not isinstance(metrics, dict):
        raise ValueError("'metrics' is not an object")
    return Counts(session, float(seconds), ordered(_counts(key, values) for key, values in metrics.items()))


def _counts(key: str, values: Any) -> TransferCounts:
    path, _, layout = key.partition("_")
    if path not in PATHS or layout not in LAYOUTS:
        raise ValueError(f"unknown key {key[:80]!r}")
    if not isinstance(values, dict):
        raise ValueError(f"{key!r} is not an object")
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= NO_MINIMUM:
            raise ValueError(f"{name[:60]!r} of {key!r} is not an unsigned number")
    # Dynamo begins at the largest number, and lowers it with each transfer.
    least = values.get("min_transfer_size", NO_MINIMUM)
    return TransferCounts(
        path,
        layout,
        transfers=values.get("transfer_count", 0),
        bytes=values.get("total_bytes", 0),
        blocks=values.get("total_blocks", 0),
        min_bytes=None if least == NO_MINIMUM else least,
        max_bytes=values.get("max_transfer_size", 0),
        stated_bytes_per_s=values.get("transfer_rate_bps", 0),
        stated_blocks_per_s=values.get("block_rate_bps", 0),
    )


def encode(counts: Counts) -> bytes:
    """Return the file as Dynamo's tool writes it: indent of two spaces, no final newline, no extra fields.

    Data that the format can't hold is omitted; `left_out` lists it.
    """
    metrics = {}
    for one in ordered(counts.transfer_counts):
        if _has_place(one):
            metrics[f"{one.path}_{one.layout}"] = _values(one, counts.duration_s)
    top = {"session_name": counts.name, "session_duration_secs": float(counts.duration_s), "metrics": metrics}
    return orjson.dumps(top, option=orjson.OPT_INDENT_2)


def _has_place(counts: TransferCounts) -> bool:
    return counts.path in DYNAMO_PATHS and counts.layout in LAYOUTS


def _values(counts: TransferCounts, duration_s: float) -> dict[str, int]:
    least = NO_MINIMUM if counts.min_bytes is None else counts.min_bytes
    kept = (counts.transfers, counts.bytes, counts.blocks, least, counts.max_bytes)
    derived = (average_bytes(counts), bytes_per_s(counts, duration_s), blocks_per_s(counts, duration_s))
    values = dict(zip(_FIELDS, kept, strict=True)) | dict(zip(_DERIVED, map(int, derived), strict=True))
    # Dynamo reads unsigned 64-bit numbers; a sum of several processes may exceed them.
    return {name: min(value, NO_MINIMUM) for name, value in values.items()}


def bytes_per_s(counts: TransferCounts, duration_s: float | None) -> float:
    """Return Dynamo's rate in B/s, idle time included: as stated in the file, else bytes over session duration; 0 if
    none."""
    if counts.stated_bytes_per_s is not None:
        return counts.stated_bytes_per_s
    return counts.bytes / duration_s if duration_s else 0.0


def blocks_per_s(counts: TransferCounts, duration_s: float | None) -> float:
    """Return Dynamo's rate in blocks/s, idle time included, as `bytes_per_s` does."""
    if counts.stated_blocks_per_s is not None:
        return counts.stated_blocks_per_s
    return counts.blocks / duration_s if duration_s else 0.0


def left_out(transfer_counts: Sequence[TransferCounts]) -> list[str]:
    """Return descriptions of the data that `encode` omits."""
    said = [f"{counts.path} {counts.layout}" for counts in ordered(transfer_counts) if not _has_place(counts)]
    return [*said, *beyond_counts([counts for counts in transfer_counts if _has_place(counts)])]


def beyond_counts(transfer_counts: Sequence[TransferCounts]) -> list[str]:
    """Return descriptions of data that neither Dynamo's file nor its ten CSV columns can hold."""
    held = {
        "failures": any(counts.failures for counts in transfer_counts),
        "times": any(counts.timed_transfers for counts in transfer_counts),
        "descriptors": any(counts.descriptors for counts in transfer_counts),
        "the distribution of sizes": any(counts.sizes for counts in transfer_counts),
    }
    return [words for words, there in held.items() if there]


def as_session(counts: Counts, path: Path, name: str | None = None) -> Session:
    """Return a file's counts as an imported session, without copying the file."""
    try:
        changed = path.stat().st_mtime
    except OSError:
        changed = time.time()
    return Session(
        name=name or counts.name,
        state="done",
        created=changed - counts.duration_s,
        started=changed - counts.duration_s,
        ended=changed,
        kind="imported",
        transfer_counts=counts.transfer_counts,
        duration_s=counts.duration_s,
        source=str(path),
    )


def as_counts(session: Session) -> Counts:
    """Return the part of a session that the format can hold."""
    duration = session.duration_s
    if duration is None:
        duration = max(0.0, (session.ended or time.time()) - (session.started or session.created))
    return Counts(session.name, duration, session.transfer_counts)


def synthetic(count: int) -> list[tuple[str, str, int, int]]:
    """Return the transfers of `test --count N` as Dynamo's tool makes them: path, layout, bytes and blocks of each."""
    made = []
    for number in range(count):
        path, layout = (HOST_TO_DISK, HOST_TO_DEVICE, DEVICE_TO_HOST)[number % 3], LAYOUTS[number % 3]
        size = (8192 if layout == LAYOUTS[0] else 2048) + number % 10 * 512
        made.append((path, layout, size, 1 + number % 5))
    return made
