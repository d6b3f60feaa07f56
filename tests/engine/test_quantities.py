"""Sizes, counts and ranges as they are typed, and the largest ones that every place takes."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from kvdeck.app import config
from kvdeck.app.cli.plan import plan
from kvdeck.app.tui.modes.monitor import alerts
from kvdeck.engine.quantities import MOST, Range, parse_count, parse_range, parse_size
from kvdeck.engine.telemetry import block_size
from kvdeck.sessions.errors import UsageError

HUGE = ["9223372036854775808", "9" * 24, "9" * 5000]


@pytest.mark.parametrize(("text", "size"), [("4096", 4096), ("64K", 65536), ("2MiB", 2 << 20), ("1gb", 1 << 30)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5M", "M", "two", "²"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


def test_ranges() -> None:
    assert parse_range("4K:64K:4").values() == (4096, 16384, 65536)
    assert Range(1, 5).values() == (1, 2, 4)
    assert parse_range("7").values() == (7,)


@pytest.mark.parametrize("text", [*HUGE, "999999999999999999G", "8589934592G", "9" * 5000 + "K"])
def test_a_size_above_64_bits_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"does not fit in 64 bits · fix: give at most 8589934591G"):
        parse_size(text)
    with pytest.raises(UsageError, match="does not fit in 64 bits"):
        parse_range(f"1:{text}")


def test_the_largest_size_is_one_that_json_takes() -> None:
    assert orjson.dumps(parse_size("8589934591G")) == b"9223372035781033984"
    assert parse_count(f"{MOST:,}") == parse_size(str(MOST)) == parse_size("000" + str(MOST)) == MOST


@pytest.mark.parametrize("text", ["", "0", "²", "-1", "1.5", "two", *HUGE])
def test_no_place_takes_what_is_no_count(text: str) -> None:
    with pytest.raises(UsageError):
        parse_count(text)
    with pytest.raises(UsageError):
        block_size.told(text, Path("nowhere"))
    assert config.with_values(config.Config(), {"block_bytes": text}, "a file").block_bytes is None


@pytest.mark.parametrize("text", HUGE)
def test_an_option_of_plan_takes_no_more(text: str) -> None:
    done = CliRunner().invoke(plan, ["--isl", text, "--model", "llama-3.1-8b"])
    assert done.exit_code == 2
    assert "--isl" in done.output


@pytest.mark.parametrize("text", [f"> {'9' * 24} GB/s", f"< {'9' * 400}", "> 9223372036854775808 B"])
def test_an_alert_takes_no_more(text: str) -> None:
    with pytest.raises(UsageError, match="does not fit in 64 bits"):
        alerts.parse(text)
