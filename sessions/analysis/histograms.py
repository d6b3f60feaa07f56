"""Histograms of request times per step, read from a session's samples in chunks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from kvdeck.sessions.model.events import Round
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.recorder import bucket_edge, time_buckets
from kvdeck.sessions.store.event_log import spread_events

MOST_BYTES = 64 << 20
"""Maximum bytes read of a samples file; of a larger one, chunks spread over it, so that every step of a sweep is
sampled."""

Key = tuple[str, str, int | None, int | None]
"""Path, layout, block bytes and batch; the last two are null for transfer counts."""
Histogram = tuple[tuple[float, int], ...]
"""Lower bucket edges in seconds, and counts; 16 buckets per octave."""


def histograms(session: Session, samples: Path | None, most: int = MOST_BYTES) -> dict[Key, Histogram]:
    """Return a histogram per path, layout and size; the file is read in chunks, never loaded whole.

    Args:
        samples: The session's `samples.jsonl`, if it has one.
        most: Maximum bytes to read of it.
    """
    found: dict[Key, Histogram] = {(t.path, t.layout, None, None): t.times for t in session.transfer_counts if t.times}
    if samples is None or not session.results:
        return found
    buckets = _buckets_of_steps(samples, most)
    for result in session.results:
        counts = buckets.get(result.step)
        if counts:
            edges = tuple((bucket_edge(bucket), count) for bucket, count in sorted(counts.items()))
            found[result.path, result.layout, result.block_bytes, result.batch] = edges
    return found


def _buckets_of_steps(path: Path, most: int) -> dict[int, Counter[int]]:
    found: dict[int, Counter[int]] = {}
    for event in spread_events(path, most):
        if isinstance(event, Round) and len(event.post_ns) == len(event.transfer_ns):
            seconds = [(post + moved) * 1e-9 for post, moved in zip(event.post_ns, event.transfer_ns, strict=True)]
            found.setdefault(event.step, Counter()).update(time_buckets(seconds))
    return found
