"""One way to replace a file, and one way to lock one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvdeck.sessions.host.files import replace_file
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
