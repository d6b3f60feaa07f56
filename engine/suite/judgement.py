"""Judgement of a measured rate: against what is expected, and against what physics allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kvdeck.engine.suite.bounds import Bound, known_bounds
from kvdeck.sessions.units import exact_size_text, figure, percent_text, ratio_figure, time_text

Status = Literal["PASS", "DEGRADED", "FAIL", "SUSPECT", "XFAIL", "SKIP"]
DEGRADED_FROM = 0.5
"""Below this part of the expected value a result fails."""
TOLERANCE = 0.1
_SAME = 0.05
_PUTS = ("ucp_put_bw", "put_bw", "tag_bw", "stream_bw", "ucp_am_bw", "am_bw")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of how a rate was measured; None and empty for what isn't."""

    test: str = ""
    message_bytes: int | None = None
    post_us: float | None = None
    """Time to post one message, where the program prints that as a percentile."""
    fault: str = ""
    """What the program itself found wrong with the result, such as wrong bytes; a result with a fault fails."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A status with its reasons, one sentence each."""

    status: Status
    score: float | None
    """Measured over expected; None without an expected value."""
    efficiency: float | None
    """Measured over the bound; None without a bound."""
    reasons: tuple[str, ...]


def judge(
    bytes_per_s: float | None,
    *,
    expected: float | None = None,
    tolerance: float = TOLERANCE,
    bound: Bound | None = None,
    evidence: Evidence | None = None,
) -> Judgement:
    """Return the judgement of a rate in bytes per second; SKIP where nothing was measured or nothing can be compared.

    Args:
        bytes_per_s: What was measured, or None.
        expected: Bytes per second at least.
        tolerance: How far below `expected` a result passes, as a fraction.
        bound: What physics allows. A measured or expected rate above it is SUSPECT, whatever else holds.
        evidence: How it was measured.
    """
    if bytes_per_s is None:
        return Judgement("SKIP", None, None, ("nothing was measured",))
    evidence = evidence or Evidence()
    if evidence.fault:
        return Judgement("FAIL", None, None, (evidence.fault,))
    score = bytes_per_s / expected if expected else None
    efficiency = bytes_per_s / bound.bytes_per_s if bound else None
    if bound and bytes_per_s > bound.bytes_per_s:
        return Judgement(
            "SUSPECT", score, efficiency, (above(bytes_per_s, bound), *causes(bytes_per_s, bound, evidence))
        )
    if bound and expected and expected > bound.bytes_per_s:
        reasons = (f"expected: {above(expected, bound)}", *causes(expected, bound, Evidence()))
        return Judgement("SUSPECT", score, efficiency, reasons)
    if score is None:
        return Judgement("SKIP", None, efficiency, ("no expected value was given",))
    if score >= 1 - tolerance:
        return Judgement("PASS", score, efficiency, ())
    status: Status = "DEGRADED" if score >= DEGRADED_FROM else "FAIL"
    return Judgement(status, score, efficiency, (f"{percent_text(score)} of the expected rate",))


def above(bytes_per_s: float, bound: Bound) -> str:
    """Return the arithmetic of a rate above its bound."""
    return (
        f"{both_units(bytes_per_s)} over {bound.what}: at most {both_units(bound.bytes_per_s)}, "
        f"{ratio_figure(bytes_per_s / bound.bytes_per_s)} times less"
    )


def causes(bytes_per_s: float, bound: Bound, evidence: Evidence) -> tuple[str, ...]:
    """Return the known mistakes that would explain a rate above its bound, those that the evidence shows first."""
    found: list[str] = []
    if evidence.post_us and evidence.message_bytes:
        posted = evidence.message_bytes / evidence.post_us * 1e6
        if abs(posted / bytes_per_s - 1) <= _SAME:
            found.append(
                f"posting time taken for transfer time: {exact_size_text(evidence.message_bytes)} over the "
                f"{time_text(evidence.post_us)} to post a message are {both_units(posted)}"
            )
    if bound.bytes_per_s < bytes_per_s <= 2 * bound.bytes_per_s:
        found.append(f"perhaps both directions added: half of it is {both_units(bytes_per_s / 2)}")
    if (smaller := bytes_per_s / 1000) <= bound.bytes_per_s < bytes_per_s / 2:
        found.append(
            f"perhaps MB/s read as GB/s: {both_units(smaller)} would be "
            f"{percent_text(smaller / bound.bytes_per_s)} of the bound"
        )
    nvlink = max(row.bytes_per_s for name, row in known_bounds().items() if name.startswith("nvlink"))
    if bytes_per_s <= nvlink:
        found.append("perhaps the bytes took another way: cuda_ipc over NVLink, or both sides on one host")
    if evidence.test in _PUTS or not evidence.test:
        found.append("perhaps local completion: the sender's time ended before the bytes had arrived")
    return tuple(found)


def both_units(bytes_per_s: float) -> str:
    """Return a rate in GB/s and Gb/s, both of powers of 1000."""
    return f"{figure(bytes_per_s / 1e9)} GB/s ({figure(bytes_per_s * 8 / 1e9)} Gb/s)"
