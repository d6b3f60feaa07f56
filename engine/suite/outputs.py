"""Rates in the output of a benchmark program, whichever of the known ones it is."""

from __future__ import annotations

from dataclasses import dataclass

from kvdeck.engine.suite.fi_pingpong import read_pingpong, seems_pingpong
from kvdeck.engine.suite.judgement import Evidence
from kvdeck.engine.suite.nccl_tests import NcclRow, read_nccl, seems_nccl
from kvdeck.engine.suite.ucx_perftest import UcxPerftestLog, read_ucx_perftest, seems_ucx_perftest
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.units import many


@dataclass(frozen=True, slots=True)
class OutputRate:
    """One result."""

    program: str
    name: str
    message_bytes: int | None
    bytes_per_s: float
    """Of one direction, from the first byte to the last."""
    evidence: Evidence


def read_rates(text: str, name: str) -> tuple[OutputRate, ...]:
    """Return the rates in an output.

    Raises:
        UsageError: It is no known output, or holds no result; quotes the program's own error.
    """
    if seems_pingpong(text):
        found = tuple(
            OutputRate("fi_pingpong", "", row.message_bytes, rate, Evidence("fi_pingpong", row.message_bytes))
            for row in read_pingpong(text)
            if (rate := row.bytes_per_s) is not None
        )
    elif seems_nccl(text):
        found = tuple(
            OutputRate("nccl-tests", "", row.message_bytes, row.bus_bytes_per_s, _nccl_evidence(row))
            for row in read_nccl(text)
        )
    elif seems_ucx_perftest(text):
        found = _ucx(read_ucx_perftest(text), name)
    else:
        raise UsageError(
            f"{name} is no output of ucx_perftest, fi_pingpong or nccl-tests", "give what the client printed"
        )
    if not found:
        raise UsageError(f"{name} holds no result", "give what the client printed, to its end")
    return found


def _nccl_evidence(row: NcclRow) -> Evidence:
    fault = f"nccl-tests found {many(row.wrong, 'wrong element')}" if row.wrong else ""
    return Evidence("nccl", row.message_bytes, fault=fault)


def _ucx(log: UcxPerftestLog, name: str) -> tuple[OutputRate, ...]:
    if log.errors and not log.rows:
        raise UsageError(f"{name}: ucx_perftest failed: {log.errors[-1]}", "remove the cause, and measure again")
    rates = []
    for row in log.rows:
        size = log.message_bytes or row.message_bytes
        posted = row.percentile_us if log.times_posting and row.percent == 50 else None
        evidence = Evidence(log.test, size, posted)
        rates.append(OutputRate("ucx_perftest", row.name or log.test, size, row.bytes_per_s, evidence))
    return tuple(rates)
