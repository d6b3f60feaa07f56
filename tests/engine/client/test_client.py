"""Attaching, starting, and the ways in which that fails with a clear word."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kvdeck.engine.children import doctor_report as asking
from kvdeck.engine.children.doctor_report import doctor_report
from kvdeck.engine.client import launch
from kvdeck.engine.client.client import Client, EngineGone
from kvdeck.engine.daemon import runtime
from kvdeck.sessions.errors import EngineError, KvdeckError, UsageError
from kvdeck.sessions.host import processes
from tests.engine.conftest import DEADLINE, alive, eventually, kill_engine, lines_until_end, submit


def test_four_starters_at_once_get_one_engine(folders: Path):
    with ThreadPoolExecutor(4) as pool:
        clients = list(pool.map(lambda _: Client.connect(timeout=DEADLINE), range(4)))
    assert len({client.hello.engine_pid for client in clients}) == 1
    assert clients[0].status()["clients"] == 4
    # None is left that would come up once this one is stopped.
    assert [engine.pid for engine in launch._started if engine.poll() is None] == [clients[0].hello.engine_pid]
    for client in clients:
        client.close()


def test_a_stale_socket_is_no_engine(client: Client, folders: Path):
    kill_engine(client)
    assert runtime.socket_path(folders / "rt").exists()
    with pytest.raises(EngineGone):
        client.receive(DEADLINE)
    record = runtime.read_record(folders / "rt")
    assert record is not None
    assert record.process.gone
    with pytest.raises(EngineError, match="no engine is running"):
        Client.connect(start=False)
    with Client.connect() as again:
        assert again.hello.engine_pid != client.hello.engine_pid


def test_a_pid_that_came_round_again_is_not_taken_for_the_engine():
    me = processes.own_identity()
    assert me.alive
    assert not me.gone
    other = processes.ProcessIdentity(me.pid, me.start - 1, me.boot, me.namespace, me.host)
    rebooted = processes.ProcessIdentity(me.pid, me.start, "another-boot", me.namespace, me.host)
    elsewhere = processes.ProcessIdentity(me.pid, me.start, "another-boot", me.namespace, "another-host")
    assert (other.gone, rebooted.gone, elsewhere.gone) == (True, True, False)
    assert not elsewhere.alive


def test_a_runtime_folder_that_others_can_enter_is_refused(folders: Path):
    (folders / "rt").mkdir(mode=0o700)
    (folders / "rt").chmod(0o755)
    with pytest.raises(EngineError, match=rf"{folders / 'rt'} is open to other users \(mode 0755\).*chmod 700"):
        Client.connect()
    (folders / "rt").rmdir()
    (folders / "rt").touch()
    with pytest.raises(EngineError, match="can't create"):
        Client.connect()


def test_a_linked_default_runtime_folder_is_refused(tmp_path: Path):
    (tmp_path / "theirs").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    with pytest.raises(EngineError, match="is not a folder"):
        runtime.prepare_runtime(tmp_path / "link")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_another_users_runtime_folder_is_refused(folders: Path):
    (folders / "rt").mkdir(mode=0o700)
    os.chown(folders / "rt", 12345, -1)
    with pytest.raises(EngineError, match="belongs to user 12345"):
        Client.connect()


def test_a_runtime_folder_too_long_for_a_socket_is_named(folders: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KVDECK_RUNTIME", str(folders / ("x" * 100)))
    with pytest.raises(EngineError, match=r"too long for a socket's path.*shorter"):
        Client.connect()


def test_an_engine_that_cannot_come_up_is_quoted(folders: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KVDECK_IDLE_EXIT", "soon")
    with pytest.raises(EngineError, match=r"status 2.*KVDECK_IDLE_EXIT is 'soon'"):
        Client.connect()


def test_a_home_that_cannot_be_written_is_named(folders: Path, monkeypatch: pytest.MonkeyPatch):
    (folders / "file").touch()
    monkeypatch.setenv("KVDECK_HOME", str(folders / "file" / "home"))
    with pytest.raises(UsageError, match=r"file/home is not a folder.*KVDECK_HOME"):
        Client.connect()
    monkeypatch.setenv("KVDECK_HOME", "/proc/home")
    with pytest.raises(EngineError, match=r"can't create /proc/home.*KVDECK_HOME"):
        Client.connect()


def test_an_engine_with_another_home_is_not_used_by_mistake(client: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KVDECK_HOME", "/elsewhere")
    with pytest.raises(EngineError, match="KVDECK_HOME is /elsewhere"):
        Client.connect()
    monkeypatch.delenv("KVDECK_HOME")
    with Client.connect() as second:
        assert second.home == client.home
    monkeypatch.setenv("KVDECK_HOME", str(client.home))


def test_a_hung_engine_is_named(client: Client):
    os.kill(client.hello.engine_pid, signal.SIGSTOP)
    try:
        with pytest.raises(EngineError, match=f"engine {client.hello.engine_pid} doesn't answer"):
            Client.connect(timeout=0.3)
    finally:
        os.kill(client.hello.engine_pid, signal.SIGCONT)


def test_threads_share_a_client(client: Client):
    session = submit(client, rounds=1000, every=0.01)
    client.subscribe(session)
    ends: list[object] = []
    reader = threading.Thread(target=lambda: ends.append(lines_until_end(client)[-1]))
    reader.start()
    with ThreadPoolExecutor(4) as pool:
        states = list(pool.map(lambda _: client.status()["pid"], range(40)))
    assert set(states) == {client.hello.engine_pid}
    client.cancel(session)
    reader.join(DEADLINE)
    assert len(ends) == 1


def test_close_wakes_a_reader_in_another_thread(client: Client):
    got: list[object] = []
    with Client.connect(start=False) as other:
        reader = threading.Thread(target=lambda: got.append(list(other.messages())))
        reader.start()
        other.close()
        reader.join(DEADLINE)
    assert got == [[]]


def test_a_relative_folder_is_the_clients(client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    session = client.submit({"folder": "here"})
    assert client.store.read(session).spec["folder"] == str(tmp_path / "here")


def test_a_refused_user_gets_no_word(client: Client, folders: Path):
    """With the socket's folder open, another user's process still gets nothing out of the engine."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    for folder in (folders / "rt", folders, *Path(os.path.realpath(folders)).parents):
        if folder.stat().st_uid == 0 and not folder.stat().st_mode & 0o001:
            folder.chmod(0o711)
    runtime.socket_path(folders / "rt").chmod(0o777)
    child = os.fork()
    if child == 0:
        try:
            os.setuid(12345)
            with socket.socket(socket.AF_UNIX) as raw:
                raw.connect(str(runtime.socket_path(folders / "rt")))
                os._exit(0 if raw.recv(1) == b"" else 1)
        finally:
            os._exit(2)  # whatever happens, this copy of pytest runs no further
    assert os.waitpid(child, 0)[1] == 0
    assert client.status()["clients"] == 1


def test_the_engine_is_no_child_of_the_screens_terminal(client: Client):
    pid = client.hello.engine_pid
    assert os.getsid(pid) == pid
    assert Path(f"/proc/{pid}/cwd").resolve() == Path("/")
    kill_engine(client)
    eventually(lambda: not alive(pid))


PYTHON = sys.executable


def fake_doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """A Python whose doctor does what `body` says."""
    script = tmp_path / "python"
    script.write_text(f"#!{PYTHON}\nimport sys, time\n{body}\n")
    script.chmod(0o755)
    monkeypatch.setattr(asking.sys, "executable", str(script))


def test_the_doctor_is_asked_in_a_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fake_doctor(tmp_path, monkeypatch, "import json; print(json.dumps({'argv': sys.argv[1:]}))")
    argv = doctor_report(str(tmp_path))["argv"]
    assert argv == ["-m", "kvdeck.engine.doctor.report", "--json", "--folder", str(tmp_path)]


def test_a_doctor_that_hangs_or_dies_is_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fake_doctor(tmp_path, monkeypatch, "time.sleep(600)")
    with pytest.raises(KvdeckError, match=r"took more than 0\.2 s"):
        doctor_report(timeout=0.2)
    fake_doctor(tmp_path, monkeypatch, "sys.exit('no driver')")
    with pytest.raises(KvdeckError, match="ended with status 1: no driver"):
        doctor_report()
