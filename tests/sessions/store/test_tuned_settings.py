"""Settings that tuning found: kept by host and path, replaced by newer ones, forgotten; a damaged file is said."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.model.records import Interval
from kvdeck.sessions.store.tuned_settings import FILE, TunedSettings, forget_tuned, keep_tuned, load_tuned, tuned_for


def found(host: str, path: str, wall: float = 1.0) -> TunedSettings:
    return TunedSettings(host, path, {"threads": 2, "params": {"kernel_queue_size": "1024"}}, "s", wall, "1.5.1", 4096,
                         16, Interval(0.5, 0.4, 0.6))  # fmt: skip


def test_a_newer_one_replaces_that_of_the_same_host_and_path(tmp_path: Path) -> None:
    assert load_tuned(tmp_path) == ()
    keep_tuned(tmp_path, [found("a", "HostToHost"), found("b", "HostToHost"), found("a", "HostToDisk")])
    keep_tuned(tmp_path, [found("a", "HostToHost", 2.0)])
    assert tuned_for(tmp_path, "a") == {
        "HostToDisk": found("a", "HostToDisk"), "HostToHost": found("a", "HostToHost", 2.0),
    }  # fmt: skip
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_what_was_found_with_a_peer_is_kept_apart(tmp_path: Path) -> None:
    near, far = found("a", "HostToHost"), msgspec.structs.replace(found("a", "HostToHost"), peer="node2")
    keep_tuned(tmp_path, [near, far])
    assert tuned_for(tmp_path, "a") == {"HostToHost": near}
    assert tuned_for(tmp_path, "a", "node2") == {"HostToHost": far}


def test_what_is_forgotten_is_that_host_s(tmp_path: Path) -> None:
    keep_tuned(tmp_path, [found("a", "HostToHost"), found("b", "HostToHost"), found("a", "HostToDisk")])
    assert forget_tuned(tmp_path, "a", ["HostToDisk"]) == (found("a", "HostToDisk"),)
    assert forget_tuned(tmp_path, "a") == (found("a", "HostToHost"),)
    assert load_tuned(tmp_path) == (found("b", "HostToHost"),)


@pytest.mark.parametrize("data", [b"", b"{", b'{"tuned": 1}', b'{"tuned": [{"host": 1}]}', b"[" * 100_000])
def test_a_damaged_file_is_an_error_and_is_left_as_it_is(tmp_path: Path, data: bytes) -> None:
    (tmp_path / FILE).write_bytes(data)
    with pytest.raises(KvdeckError, match="kept settings"):
        keep_tuned(tmp_path, [found("a", "HostToHost")])
    assert (tmp_path / FILE).read_bytes() == data
