"""Lines that a worker prints beside its events, with a log that is slow, full or gone."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

from kvdeck.engine.children.stray_lines import MOST_PENDING, StrayLines


async def test_lines_are_written_in_their_order_before_it_returns(tmp_path: Path) -> None:
    with (tmp_path / "log").open("ab", 0) as log:
        strays = StrayLines(log)
        running = asyncio.ensure_future(strays.run())
        for number in range(0, 100, 2):
            strays.add([b"%d" % number, b"%d" % (number + 1)])
            await asyncio.sleep(0)
        strays.close()
        await running
    assert (tmp_path / "log").read_bytes() == b"".join(b"%d\n" % number for number in range(100))


async def test_a_log_that_hangs_holds_up_nobody_and_loses_what_is_too_much(tmp_path: Path) -> None:
    read, write = os.pipe()
    line = b"x" * 1023
    with os.fdopen(write, "wb", 0) as log:
        strays = StrayLines(log)
        running = asyncio.ensure_future(strays.run())
        strays.add([line] * (2 * MOST_PENDING // 1024))  # a pipe holds 64 KiB: the write waits for the reader
        await asyncio.sleep(0)
        strays.add([b"later"])
        strays.close()
        assert not running.done()
        got = b""
        while not got.endswith(b"later\n"):
            got += await asyncio.to_thread(os.read, read, 1 << 20)
        await running
    os.close(read)
    (dropped,) = re.findall(rb"kvdeck: (\d+) lines that followed were dropped", got)
    assert 0 < got.count(line + b"\n") <= MOST_PENDING // 1024
    assert got.count(line + b"\n") + int(dropped) == 2 * MOST_PENDING // 1024


async def test_a_full_disk_ends_nothing() -> None:
    with Path("/dev/full").open("ab", 0) as log:
        strays = StrayLines(log)
        strays.add([b"lost"])
        strays.close()
        await strays.run()
