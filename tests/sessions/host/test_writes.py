"""One way to replace a file, and one way to lock one."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvdeck.sessions.host.files import replace_file, write_output
from kvdeck.sessions.store.locks import lock


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, durable: bool):
    path = tmp_path / "a.json"
    replace_file(path, b"old", durable=durable)

    def torn() -> Iterator[bytes]:
        yield b"new"
        assert path.read_bytes() == b"old", "readers see the old one until the last piece"
        raise LookupError

    with pytest.raises(LookupError):
        replace_file(path, torn(), durable=durable)
    assert path.read_bytes() == b"old"
    replace_file(path, iter((b"n", b"ew")), durable=durable)
    assert path.read_bytes() == b"new"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_the_new_file_is_private_unless_asked(tmp_path: Path):
    umask = os.umask(0o022)
    try:
        for name, mode, expected in (("private", 0o600, 0o600), ("shared", 0o666, 0o644)):
            replace_file(tmp_path / name, b"", mode=mode)
            assert (tmp_path / name).stat().st_mode & 0o777 == expected
    finally:
        os.umask(umask)


def test_a_link_is_replaced_and_what_it_names_is_not(tmp_path: Path):
    (tmp_path / "target").write_bytes(b"kept")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    replace_file(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_bytes() == b"kept"
    assert not (tmp_path / "link").is_symlink()


def test_one_holds_a_lock_or_several_share_it(tmp_path: Path):
    path = tmp_path / "lock"
    files = [os.open(path, os.O_RDWR | os.O_CREAT) for _ in range(3)]
    assert lock(files[0]) == "held"
    assert lock(files[1]) == lock(files[1], shared=True) == "busy"
    os.close(files[0])
    assert lock(files[1], shared=True) == lock(files[2], shared=True) == "held"
    assert lock(files[2]) == "busy"
    os.close(files[1])
    assert lock(files[2], wait=True) == "held"
    os.close(files[2])


def test_an_output_that_is_a_pipe_or_device_is_written_to_and_stays(tmp_path: Path):
    regular, pipe = tmp_path / "regular", tmp_path / "pipe"
    write_output(regular, b"old")
    write_output(regular, iter((b"n", b"ew")))
    assert regular.read_bytes() == b"new"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="No such device"):
        write_output(pipe, b"nobody reads it")
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_output(pipe, b"text")
    assert os.read(reading, 10) == b"text"
    os.close(reading)
    assert pipe.is_fifo()
    with pytest.raises(OSError, match="regular"):
        write_output(tmp_path, b"a folder")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a device, or replace one")
def test_root_does_not_replace_a_device(tmp_path: Path):
    null = tmp_path / "null"
    try:
        os.mknod(null, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        write_output(null, b"text")
    except PermissionError:
        pytest.skip("this root may not make or open devices (a container)")
    assert null.is_char_device()
