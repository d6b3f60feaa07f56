"""etcd's JSON gateway against a real etcd: leases, watches over a restart, TLS, users, and answers of strangers."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvdeck.engine.ranks.etcd_gateway import EtcdGateway, EtcdGoneError, EtcdRefusedError, etcd_access
from kvdeck.sessions.errors import UsageError
from tests.engine.conftest import DEADLINE
from tests.support.programs.etcd import EtcdServer, etcd_server, free_port, needs_etcd


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EtcdServer]:
    with etcd_server(tmp_path) as running:
        yield running


@needs_etcd
def test_keys_belong_to_leases(server: EtcdServer):
    gateway = EtcdGateway(server.access())
    lease = gateway.grant(4)
    gateway.put("/k/1", b"one", lease)
    gateway.put("/k/2", b"\x00\xff", lease, without="/k/1")
    entries, _ = gateway.read("/k/", below=True)
    assert [(entry.key, entry.value, entry.lease) for entry in entries] == [("/k/2", b"\x00\xff", lease)]
    assert gateway.keep_alive(lease)
    left, whole = gateway.remaining(lease)
    assert (whole, left <= 4) == (4, True)
    gateway.revoke(lease)
    gateway.revoke(lease)
    assert not gateway.keep_alive(lease)
    assert gateway.remaining(lease)[0] == -1
    assert gateway.read("/k/", below=True)[0] == []
    with pytest.raises(EtcdRefusedError, match="lease not found"):
        gateway.put("/k/3", b"", lease)


@needs_etcd
def test_a_key_is_created_once_and_only_if_another_is_as_expected(server: EtcdServer):
    gateway = EtcdGateway(server.access())
    lease, other = gateway.grant(60), gateway.grant(60)
    assert gateway.create("/c", b"1", lease) == (True, None)
    assert gateway.create("/c", b"1", lease) == (True, None), "a request that is sent again is no conflict"
    created, present = gateway.create("/c", b"1", other)
    assert not created
    assert present is not None
    assert (present.value, present.lease) == (b"1", lease)
    assert gateway.create("/d", b"2", lease, only_if=("/c", b"other")) == (False, None)
    assert gateway.create("/d", b"2", lease, only_if=("/c", b"1")) == (True, None)
    gateway.remove("/d", b"another value")
    assert gateway.read("/d")[0]
    gateway.remove("/d", b"2")
    assert not gateway.read("/d")[0]


@needs_etcd
def test_a_watch_ends_with_etcd_and_the_next_one_misses_nothing(server: EtcdServer):
    gateway, watching = EtcdGateway(server.access()), EtcdGateway(server.access())
    lease = gateway.grant(60)
    gateway.put("/w/1", b"before", lease)
    watch = watching.watch("/w/", 1)
    seen: list[tuple[str, bytes | None]] = []
    revision, first = 0, threading.Event()

    def follow() -> None:
        nonlocal revision
        for entries, at in watch.changes():
            seen.extend((entry.key, entry.value) for entry in entries)
            revision = max(revision, at)
            if seen:
                first.set()

    following = threading.Thread(target=follow)
    following.start()
    assert first.wait(DEADLINE)
    gateway.put("/w/2", b"during", lease)  # seen by this watch or by the next one
    server.kill()
    following.join(DEADLINE)
    assert not following.is_alive()
    watch.free()
    assert seen[0] == ("/w/1", b"before")
    server.start()
    gateway.put("/w/3", b"after", lease)
    later = EtcdGateway(server.access()).watch("/w/", revision + 1)
    while len(seen) < 3:
        entries, _ = next(later.changes())
        seen += [(entry.key, entry.value) for entry in entries]
    assert seen == [("/w/1", b"before"), ("/w/2", b"during"), ("/w/3", b"after")]
    later.free()


@needs_etcd
def test_what_was_compacted_is_said(server: EtcdServer):
    gateway = EtcdGateway(server.access())
    lease = gateway.grant(60)
    for number in range(3):
        gateway.put("/x", str(number).encode(), lease)
    revision = gateway.read("/x")[1]
    gateway._ask("kv/compaction", {"revision": revision})
    watch = EtcdGateway(server.access()).watch("/x", 1)
    assert list(watch.changes())[1:] == []
    assert watch.compacted == revision
    watch.free()


@needs_etcd
def test_users_and_passwords(server: EtcdServer, tmp_path: Path):
    gateway = EtcdGateway(server.access())
    for name, password in (("root", "r00t"), ("kv", "s3cret")):
        gateway._ask("auth/user/add", {"name": name, "password": password})
    gateway._ask("auth/user/grant", {"user": "root", "role": "root"})
    gateway._ask("auth/enable", {})
    private = tmp_path / "user"
    private.write_text("root:r00t\n")
    private.chmod(0o600)
    allowed = EtcdGateway(server.access({"KVDECK_ETCD_USER_FILE": str(private)}))
    lease = allowed.grant(60)
    allowed.put("/u", b"1", lease)
    allowed._token = "a token that has expired"
    assert allowed.read("/u")[0][0].value == b"1"
    for environment, words in (
        ({}, "user name is empty"),
        ({"KVDECK_ETCD_USER": "kv:s3cret"}, "permission denied"),
        ({"KVDECK_ETCD_USER": "root:wrong"}, "authentication failed"),
    ):
        with pytest.raises(EtcdRefusedError, match=words) as refused:
            EtcdGateway(server.access(environment)).put("/u", b"2", lease)
        assert "KVDECK_ETCD_USER" in str(refused.value)
        assert "s3cret" not in str(refused.value)
    assert "r00t" not in repr(allowed.access)


@needs_etcd
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes the certificates, is not installed")
def test_tls_with_certificates_of_both_ends(tmp_path: Path):
    certificates = made_certificates(tmp_path)
    server = EtcdServer(
        tmp_path, "--cert-file", certificates["server.crt"], "--key-file", certificates["server.key"],
        "--trusted-ca-file", certificates["ca.crt"], "--client-cert-auth", scheme="https",
    )  # fmt: skip
    environment = {
        "KVDECK_ETCD_CACERT": certificates["ca.crt"],
        "KVDECK_ETCD_CERT": certificates["client.crt"],
        "KVDECK_ETCD_KEY": certificates["client.key"],
    }
    try:
        server.start(environment)
        gateway = EtcdGateway(server.access(environment))
        lease = gateway.grant(60)
        gateway.put("/t", b"1", lease)
        assert gateway.read("/t")[0][0].value == b"1"
        with pytest.raises(UsageError, match=r"certificate is refused.* fix: set KVDECK_ETCD_CACERT"):
            EtcdGateway(server.access({}), 1.0).read("/t")
        with pytest.raises(EtcdGoneError):
            EtcdGateway(server.access({"KVDECK_ETCD_CACERT": certificates["ca.crt"]}), 1.0).read("/t")
        Path(certificates["client.key"]).chmod(0o644)
        with pytest.raises(UsageError, match="other users can read"):
            server.access(environment)
    finally:
        server.stop()


def made_certificates(folder: Path) -> dict[str, str]:
    """Make a CA, and a certificate by it for the server at 127.0.0.1 and for the client."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=ca", "-days", "2")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    for name in ("server", "client"):
        openssl("req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                "-out", f"{name}.crt", "-days", "2", "-extfile", "names")  # fmt: skip
    return {path.name: str(path) for path in folder.iterdir() if path.suffix in (".crt", ".key")}


@pytest.mark.parametrize(
    ("endpoints", "found"),
    [
        (["h"], (("h", 2379),)),
        (["http://h:1,https://h:2"], None),
        (["http://h:1, http://i:2", "http://j"], (("h", 1), ("i", 2), ("j", 2379))),
        (["[::1]:5"], (("::1", 5),)),
        (["http://user:pass@h"], None),
        (["ftp://h"], None),
        (["http://h:70000"], None),
        (["http://h/path"], None),
        ([""], None),
        ([], None),
    ],
)
def test_endpoints(endpoints: list[str], found: tuple[tuple[str, int], ...] | None):
    if found is None:
        with pytest.raises(UsageError, match="fix: ") as refused:
            etcd_access(endpoints, {})
        assert "pass" not in str(refused.value).replace("password", "")
    else:
        assert etcd_access(endpoints, {}).endpoints == found


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"",
    ],
)
def test_what_is_no_etcd_counts_as_gone(answer: bytes):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(DEADLINE)
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                connection, _ = listening.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(answer)

        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        gateway = EtcdGateway(etcd_access([f"127.0.0.1:{listening.getsockname()[1]}"], {}), 0.3)
        with pytest.raises(EtcdGoneError, match=r"has not answered for 0.3 s"):
            gateway.read("/")
        ended.set()
        with socket.create_connection(listening.getsockname()) as last:
            last.sendall(b"x")
        serving.join(DEADLINE)


def test_another_service_s_refusal_is_no_etcd():
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nnot found")

        serving = threading.Thread(target=serve)
        serving.start()
        with pytest.raises(EtcdRefusedError, match="no answer of etcd's JSON gateway"):
            EtcdGateway(etcd_access([f"127.0.0.1:{listening.getsockname()[1]}"], {}), 0.3).read("/")
        serving.join(DEADLINE)


def test_nothing_listens():
    with pytest.raises(EtcdGoneError, match="Connection refused"):
        EtcdGateway(etcd_access([f"127.0.0.1:{free_port()}"], {}), 0.3).read("/")
