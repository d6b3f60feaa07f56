"""The kinds of jobs that the engine's queue runs: the parser of their specs, and their worker.

A kind is one row. Its worker is `python -m MODULE --session-dir DIR`: it reads `DIR/run.yaml`, appends events to
`DIR/samples.jsonl` and writes the same lines to stdout, ends on SIGTERM or EOF on stdin, and writes its final state
last. The queue, the session, the stream to clients, cancelling and recovery are the same for all kinds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from kvdeck.engine.protocol import TRANSFER
from kvdeck.engine.spec import spec_from_mapping
from kvdeck.engine.traffic.spec import traffic_spec
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.model.records import SessionKind
from kvdeck.sessions.model.traffic import TRAFFIC


class JobSpec(Protocol):
    """What a job is to do, checked."""

    @property
    def label(self) -> str:
        """Middle part of a generated session name."""

    @property
    def paths(self) -> tuple[str, ...] | None:
        """Transfer paths, if they are known before the job starts."""

    def to_mapping(self) -> dict[str, Any]:
        """Return all fields as values of YAML and JSON."""

    def to_yaml(self) -> str:
        """Return the text of `run.yaml`, which the worker reads."""


@dataclass(frozen=True, slots=True)
class JobKind:
    """One kind of job."""

    parse: Callable[[Any], JobSpec]
    """Returns the spec of a mapping, or raises UsageError."""
    worker: str
    """Module of the worker process."""
    session: SessionKind = "run"
    """Kind of its sessions."""

    @property
    def command(self) -> tuple[str, ...]:
        return (sys.executable, "-m", self.worker)


JOB_KINDS = {
    TRANSFER: JobKind(spec_from_mapping, "kvdeck.engine.transfer.worker"),
    TRAFFIC: JobKind(traffic_spec, "kvdeck.engine.traffic.worker", "traffic"),
}


def job_kind(name: str) -> JobKind:
    """Return the kind of a name.

    Raises:
        UsageError: This engine has no such kind.
    """
    kind = JOB_KINDS.get(name)
    if kind is None:
        raise UsageError(f"this engine has no jobs of kind {name!r}", f"use one of: {', '.join(JOB_KINDS)}")
    return kind
