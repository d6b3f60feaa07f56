"""The module that starts children: time limits, bounded output, groups, ends; lines from pipes; threads that report."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvdeck.engine.children.child import DEVNULL, PIPE, Child, exit_reason, last_line, run, shell_status
from kvdeck.engine.children.pipes import started
from kvdeck.engine.lines import LineBuffer
from kvdeck.engine.ranks.board import Board
from kvdeck.engine.ranks.seat import open_seat
from kvdeck.engine.threads import start_thread
from tests.engine.conftest import DEADLINE, alive, eventually

DESCENDANT = "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid, flush=True);"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_child_s_output_and_the_end_of_its_stderr():
    code = "import sys; print('out'); sys.stderr.write('x' * 99999 + '\\nlast\\n\\n'); sys.exit(3)"
    done = run(python(code), DEADLINE)
    assert (done.status, done.output, last_line(done.errors)) == (3, b"out\n", "last")
    merged = run(python("import sys; sys.stderr.write('err')"), DEADLINE, merge_stderr=True)
    assert (merged.status, merged.output, merged.errors) == (0, b"err", b"")


def test_a_child_that_does_not_end_is_killed_with_its_descendants():
    done = run(python(f"{DESCENDANT} import time; time.sleep(600)"), 1.0)
    assert done.status is None
    eventually(lambda: not alive(int(done.output)))


def test_a_child_that_closes_its_output_and_goes_on_is_killed():
    done = run(python("import os, time; os.write(1, b'out'); os.close(1); os.close(2); time.sleep(600)"), 1.0)
    assert (done.status, done.output) == (None, b"out")


def test_a_child_that_writes_without_end_is_killed():
    done = run(python("while True: print('x' * 9999)"), DEADLINE, most_output=100_000)
    assert done.status is None
    assert 100_000 < len(done.output) < 1_000_000


def test_a_descendant_that_holds_the_pipe_open_is_not_waited_for():
    done = run(python(DESCENDANT), DEADLINE)
    assert done.status == 0
    eventually(lambda: not alive(int(done.output)))


def test_a_program_that_is_not_there_is_an_error():
    with pytest.raises(FileNotFoundError):
        run(["/nowhere/program"], 1.0)


@pytest.mark.parametrize(
    ("number", "reason"), [(9, "died of SIGKILL"), (35, "died of SIGRTMIN+1"), (64, "died of SIGRTMAX")]
)
def test_an_end_by_any_signal_has_a_reason(number: int, reason: str):
    status = run(python(f"import os; os.kill(os.getpid(), {number})"), DEADLINE).status
    assert status == -number
    assert (exit_reason(status), shell_status(status)) == (reason, 128 + number)
    assert (exit_reason(3), shell_status(3)) == ("ended with status 3", 3)


def test_a_child_is_given_its_variables_umask_and_mask():
    code = (
        "import os, signal; print(os.environ['MORE'], os.umask(0), sorted(signal.pthread_sigmask(0, ())), os.getsid(0))"
    )
    child = Child(python(code), stdout=PIPE, env={"MORE": "yes"}, umask=0o27, signal_mask={signal.SIGUSR1})
    words = child.stdout.read().decode().split()
    assert child.wait() == 0
    child.close()
    assert (words[0], int(words[1], 10), int(words[-1])) == ("yes", 0o27, child.pid)
    assert "SIGUSR1" in " ".join(words)
    same = Child(python("import os; print(os.getsid(0))"), stdout=PIPE, own_group=False)
    assert int(same.stdout.read()) == os.getsid(0)
    assert same.wait() == 0
    same.close()


def test_a_child_s_exit_is_seen_without_reaping_it():
    child = Child(python(DESCENDANT), stdout=PIPE, stderr=DEVNULL)
    descendant = int(child.stdout.readline())
    eventually(child.exited)
    assert child.status is None
    assert alive(descendant)
    assert child.kill() == 0, "its own status, though its group was killed"
    eventually(lambda: not alive(descendant))
    child.close()


def test_a_child_dies_with_its_parent():
    follower = "from kvdeck.engine.children.child import die_with_parent; die_with_parent(); print(flush=True); input()"
    starter = (
        "import os, subprocess, sys\n"
        f"argv = [sys.executable, '-c', {follower!r}]\n"
        "child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "os.set_inheritable(child.stdin.fileno(), True)\n"
        "child.stdout.readline(); print(child.pid, flush=True); os.read(0, 1)\n"
    )
    reading, writing = os.pipe()
    parent = Child(python(starter), stdin=reading, stdout=PIPE)
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.kill()
    eventually(lambda: not alive(pid))
    os.close(reading)
    os.close(writing)
    parent.close()


@given(st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), max_size=8), st.data())
def test_lines_are_the_same_however_their_bytes_arrive(lines: list[bytes], data: st.DataObject):
    sent = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=6)))
    buffer, got = LineBuffer(most=8), []
    for begin, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        got += buffer.take(sent[begin:end])
    assert got == [line for line in lines if len(line) <= 8]
    assert buffer.dropped == sum(len(line) > 8 for line in lines)


def test_a_line_without_its_end_is_kept_to_the_last():
    buffer = LineBuffer()
    assert buffer.take(b"one\ntw") == [b"one"]
    assert (buffer.rest(), buffer.rest()) == (b"tw", b"")


def test_a_thread_reports_what_kills_it(caplog: pytest.LogCaptureFixture):
    failures: list[Exception] = []
    with caplog.at_level(logging.CRITICAL, "kvdeck.engine"):
        start_thread("number", lambda: [][0], failures.append).join(DEADLINE)
    assert [type(error) for error in failures] == [IndexError]
    assert "thread number died" in caplog.text
    assert "IndexError" in caplog.text


def test_closing_the_rendezvous_ends_its_threads(tmp_path: Path):
    others = set(threading.enumerate())

    def waiting() -> set[str]:
        mine = set(threading.enumerate()) - others
        return {thread.name for thread in mine if thread.name.startswith("rendezvous")}

    board = Board()
    seat = open_seat(board.address, "a rank")
    seat.put("key", 1)
    assert board.get("key", DEADLINE) == 1
    assert waiting() == {"rendezvous", "rendezvous-rank", "rendezvous-writer"}
    seat.leave()
    begun = time.monotonic()
    board.leave()
    assert time.monotonic() - begun < DEADLINE
    eventually(lambda: not waiting())
    assert board.lost is None


async def test_a_process_whose_start_is_no_longer_awaited_is_ended() -> None:
    begun, may_go = threading.Event(), threading.Event()
    made: list[Child] = []

    def make() -> Child:
        begun.set()
        assert may_go.wait(30)
        made.append(Child(["/bin/sleep", "60"]))
        return made[0]

    starting = asyncio.ensure_future(started(make))
    await asyncio.to_thread(begun.wait, 30)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    may_go.set()
    while not made or made[0].status is None:
        await asyncio.sleep(0.01)
    assert made[0].status == -signal.SIGKILL
