"""What is typed as a source: what each text names, and why another isn't taken."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvdeck.engine.telemetry import discovery
from kvdeck.engine.telemetry.address import HOST_SOURCES, SourceAddress, source_address
from kvdeck.sessions.errors import UsageError

TEXTS = {
    ":8000": "http://127.0.0.1:8000/metrics",
    ":8000/m": "http://127.0.0.1:8000/m",
    "localhost:8000": "http://localhost:8000/metrics",
    "localhost:8000/metrics": "http://localhost:8000/metrics",
    "gpu-7.example:6880/": "http://gpu-7.example:6880/metrics",
    "10.0.0.7:9400": "http://10.0.0.7:9400/metrics",
    "[::1]:8000": "http://[::1]:8000/metrics",
    " host_a:80 ": "http://host_a:80/metrics",
    "http://gpu-7": "http://gpu-7/metrics",
    "https://gpu-7:1/x?module=a": "https://gpu-7:1/x?module=a",
    "disk-tier": "disk-tier",
    "disk tier": "disk-tier",
    "kvdeck runs": "runs",
    **{name: name for name in HOST_SOURCES},
}
REFUSED = {
    "": "give host:port",
    "vllm": "for an endpoint give its port, vllm:PORT; for a file its path, ./vllm",
    "localhost/metrics": "give its port, localhost:PORT/metrics",
    "disk": "did you mean disks?",
    "network-": "did you mean network?",
    "8000": "for a port of this host give :8000",
    "host:": "'' in the source 'host:' is not a port · fix: give a number from 1 to 65535",
    "host:0": "'0' in the source",
    "host:65536": "'65536' in the source",
    "host:8000x": "'8000x' in the source",
    ":²": "'²' in the source",
    "a b:80": "is not an address",
    "ftp://host/x": "is not an http address · fix: give http://host:port/metrics",
    "unix:///run/x.sock": "is not an http address · fix: give the path alone: /run/x.sock",
    "file:///nowhere": "give the path alone: /nowhere",
    "http://": "is not an http address",
    "http://[::1/x": "is not an address",
    "/nowhere/rings": "/nowhere/rings does not exist · fix: check the path",
    "./nowhere": "nowhere does not exist",
    "ring /nowhere/agent": "/nowhere/agent does not exist",
    "user:secret@host:80": "must not carry a user or password",
    "http://host:80/m?token=abc": "must not carry 'token'",
    "/nowhere\0": "has a character that is not allowed in paths",
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_names_a_source(text: str) -> None:
    assert source_address(text).text == TEXTS[text]


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_not_taken_says_why_and_how(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        source_address(text)
    assert REFUSED[text] in str(refused.value)
    assert refused.value.fix
    assert "secret" not in str(refused.value)
    assert "abc" not in str(refused.value)


def test_paths_are_absolute_and_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "bench.json").write_text("{}")
    (tmp_path / "agent").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    for text in ("bench.json", "./bench.json", str(tmp_path / "bench.json"), "~/bench.json", "session bench.json"):
        assert source_address(text) == SourceAddress("session", str(tmp_path / "bench.json"))
    assert source_address("agent") == SourceAddress("ring", str(tmp_path / "agent"))
    assert source_address("agent").listed == f"ring {tmp_path / 'agent'}"
    with pytest.raises(UsageError, match="has no telemetry ring"):
        source_address("empty")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("sock")
        with pytest.raises(UsageError, match="is a socket or device"):
            source_address("./sock")


def test_every_host_source_is_listed_under_its_name(tmp_path: Path) -> None:
    for name, listed in HOST_SOURCES.items():
        (source,) = discovery.named([name], tmp_path)
        assert source.name == listed == source_address(name).listed


def test_what_a_search_lists_can_be_named(tmp_path: Path) -> None:
    sources = [*discovery.host_sources(tmp_path), *discovery.file_sources()]
    assert [found.name for found in discovery.named([source.name for source in sources], tmp_path)] == [
        source.name for source in sources
    ]


_TEXT = st.one_of(
    st.text(max_size=30),
    st.from_regex(
        r"(http://|https://|ring |/|\./|)[a-z.:\[\]0-9-]{0,12}(:[0-9]{0,6})?(/[a-z?=&]{0,8})?", fullmatch=True
    ),
    st.sampled_from([*TEXTS, *REFUSED]),
)


@given(_TEXT)
def test_a_text_is_taken_or_refused_and_its_name_names_the_same(text: str) -> None:
    try:
        found = source_address(text)
    except UsageError:
        return
    assert source_address(found.text) == source_address(found.listed) == found
