"""Limits of the checks on latencies, queues and the like, by default those of vLLM's alert rules for Kubernetes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from kvdeck.sessions.errors import UsageError

ENOUGH_BYTES = 64 << 20
ENOUGH_BLOCKS = 64
"""Minimum growth since sampling began for a check of transfers to conclude anything."""


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """ServiceLimits above which a check warns, over the sampler's window."""

    ttft_p99_s: float = 30.0
    itl_p99_s: float = 1.0
    e2e_p99_s: float = 120.0
    kv_usage: float = 0.95
    """Share of the device's KV cache, 0 to 1."""
    waiting: float = 50.0
    """Requests that wait at one engine."""
    preemptions_per_s: float = 1.0
    failed_share: float = 0.05
    """Share of the requests that ended with an error, 0 to 1."""

    @classmethod
    def of(cls, given: Mapping[str, float]) -> ServiceLimits:
        """Return the limits with some of them set.

        Raises:
            UsageError: A name is unknown, or a value is negative or not finite.
        """
        names = [field.name for field in fields(cls)]
        for name, value in given.items():
            if name not in names:
                raise UsageError(f"unknown limit {name!r}", f"use one of {', '.join(names)}")
            if not math.isfinite(value) or value < 0:
                raise UsageError(f"the limit {name} can't be {value!r}", "give a number from 0")
        return cls(**given)
