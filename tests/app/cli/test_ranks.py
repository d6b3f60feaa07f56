"""`kvdeck run` as ranks started by torchrun's variables and by hand on two hosts, and by real srun and mpirun."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from kvdeck.app.cli.profile import profile
from kvdeck.app.cli.ranks import traces_text
from kvdeck.engine.launchers import SECRET_VARIABLE
from kvdeck.sessions.store.store import Store
from tests.support.hosts import KVDECK, Host, Pair, reason_to_skip, two_hosts
from tests.support.programs.etcd import free_port, needs_etcd
from tests.support.programs.slurm import reason_without_slurm, slurm

RUN = (
    "--path",
    "HostToHost",
    "--block-size",
    "65536",
    "--batch",
    "4",
    "--seconds",
    "0.3",
    "--layout",
    "fc",
    "--blocks",
    "64",
)
SECRET = {SECRET_VARIABLE: "0123456789abcdef0123456789abcdef"}
LONG = 180.0
skipped = reason_to_skip()
on_hosts = pytest.mark.skipif(bool(skipped), reason=skipped or "they can be made")


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with two_hosts(7) as made:
        yield made


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """Environment of both hosts, which have one file system: a home of its own for each rank would hide a mistake."""
    return {"KVDECK_HOME": str(tmp_path / "home"), "KVDECK_RUNTIME": str(tmp_path / "run"), **SECRET}


def until(true: Callable[[], bool]) -> None:
    """Wait for something outside this process that sends no message."""
    end = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)


def kvdeck_run(*words: str) -> list[str]:
    return [sys.executable, "-m", "kvdeck.app.cli.main", "run", *RUN, *words]


def started(host: Host, environment: dict[str, str], *words: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        host.argv(*kvdeck_run(*words)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    host.started.append(process)
    return process


def only_session(home: dict[str, str]) -> dict[str, object]:
    """The one session that the run wrote, as JSON."""
    (folder,) = (Path(home["KVDECK_HOME"]) / "sessions").iterdir()
    found = json.loads((folder / "session.json").read_text())
    assert isinstance(found, dict)
    return found


@on_hosts
def test_torchrun_s_variables_on_two_hosts_are_a_run_between_them(pair: Pair, home: dict[str, str]):
    home |= {"WORLD_SIZE": "2", "MASTER_ADDR": pair.a.address, "MASTER_PORT": str(free_port())}
    target = started(pair.b, {**home, "RANK": "1"}, "--launcher", "torch")
    before = pair.a.carried()[0]
    done = pair.a.run(*kvdeck_run("--launcher", "torch"), env={**home, "RANK": "0"}, timeout=LONG)
    out, err = target.communicate(timeout=LONG)
    assert (done.returncode, target.returncode) == (0, 0), (done.stderr, err)
    assert b"serves until rank 0 ends" in err
    assert out == b""
    session = only_session(home)
    (result,) = session["results"]
    assert (result["status"], result["verified"]) == ("ok", True)
    assert result["settings"]["peer"]["hostnames"] == ["hostB"]
    assert session["host"]["hostname"] == "hostA"
    assert [peer["host"]["hostname"] for peer in session["host"]["peers"]] == ["hostB"]
    assert pair.a.carried()[0] - before > result["iterations"] * 4 * 65536
    assert pair.a.processes() == pair.b.processes() == []


@on_hosts
@needs_etcd
def test_the_same_command_on_two_hosts_meets_by_etcd(pair: Pair, home: dict[str, str], tmp_path: Path):
    with etcd_on(pair.a, tmp_path) as endpoint:
        words = ("--etcd-endpoints", endpoint)
        target = started(pair.b, home, *words, "--role", "target")
        done = pair.a.run(*kvdeck_run(*words, "--role", "initiator"), env=home, timeout=LONG)
        _, err = target.communicate(timeout=LONG)
        assert (done.returncode, target.returncode) == (0, 0), (done.stderr, err)
        (result,) = only_session(home)["results"]
        assert result["settings"]["peer"]["hostnames"] == ["hostB"]
        keys = pair.b.run(sys.executable, "-c", LEFT, endpoint)
        assert keys.stdout.strip() == "[]", keys.stderr


@on_hosts
@needs_etcd
def test_nixlbench_s_flags_mean_the_same(pair: Pair, home: dict[str, str], tmp_path: Path):
    """A sweep over 1 MiB is two runs: the first process of the group is the initiator of both."""
    with etcd_on(pair.a, tmp_path) as endpoint:
        words = ["profile", "--model", "qwen3-0.6b", "--isl", "64", "--num_iter", "16", "--warmup_iter", "16",
                 "--start_block_size", str(1 << 20), "--max_block_size", str(1 << 21), "--runtime_type", "ETCD",
                 "--etcd_endpoints", endpoint, "--benchmark_group", "mine"]  # fmt: skip
        argv = [sys.executable, "-m", "kvdeck.app.cli.main", *words]
        ranks = [
            subprocess.Popen(
                host.argv(*argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env={**os.environ, **home},
            )
            for host in (pair.a, pair.b)
        ]  # fmt: skip
        ended = [rank.communicate(timeout=LONG) for rank in ranks]
        assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(part for pair in ended for part in pair)
    tables = [out for out, _ in ended if "In nixlbench's columns:" in out]
    assert len(tables) == 1, "only the initiator prints"
    assert tables[0].count("In nixlbench's columns:") == 2
    store = Store(Path(home["KVDECK_HOME"]))
    assert len({store.load(name).host["hostname"] for name in store.names()}) == 1
    assert len(store.names()) == 2


SCHEMES = {"pairwise": (2, 2), "manytoone": (2, 1), "onetomany": (1, 2), "tp": (2, 4)}


@on_hosts
def test_a_plan_s_schemes_run_with_a_peer(pair: Pair, home: dict[str, str]):
    words = ["profile", "--model", "qwen3-0.6b", "--isl", "64", "--num_iter", "16", "--warmup_iter", "16", "--mode",
             "SG", "--check_consistency", "--peer", "hostb"]  # fmt: skip
    script = "".join(
        f'"$0" "$@" --session {name} --scheme {name} --num_initiator_dev {here} --num_target_dev {there} || exit 1\n'
        for name, (here, there) in SCHEMES.items()
    )
    environment = {**home, "PATH": pair.environment["PATH"]}
    done = pair.a.run("sh", "-c", script, str(KVDECK), *words, env=environment, timeout=LONG)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert done.stdout.count("In nixlbench's columns:") == 2, "nixlbench has no row of onetomany and tp in SG"
    for name, devices in SCHEMES.items():
        (result,) = Store(Path(home["KVDECK_HOME"])).load(name).results
        assert (result.status, result.verified) == ("ok", True)
        asked, peer = result.settings["scheme"], result.settings["peer"]
        assert (asked["scheme"], asked["initiators"], asked["targets"]) == (name, *devices)
        assert peer["hostnames"] == ["hostB"]
        assert 1.0 <= peer["carried_part"] < 1.1


def test_a_plan_s_peers_must_have_targets():
    for words, said in (
        (["--peer", "a", "--peer", "b"], "2 peers for 1 target"),
        (["--peer-timeout", "9"], "--peer-timeout is about a peer"),
        (["--peer", "a", "--exec", "nixlbench"], "exclude each other"),
        (["--peer", "a", "--etcd_endpoints", "http://e:2379"], "exclude each other"),
        (["--peer", "-oProxyCommand=id"], "is no host"),
        (["--peer", "a", "--backend", "POSIX", "--op_type", "WRITE"], "doesn't go to another host"),
    ):
        done = CliRunner().invoke(profile, ["--model", "qwen3-0.6b", "--isl", "64", *words])
        assert said in str(done.exception), (words, done.output)


@contextlib.contextmanager
def etcd_on(host: Host, folder: Path) -> Iterator[str]:
    """Run an etcd on a host's address; yield its endpoint."""
    client, peer = f"http://{host.address}:{free_port()}", f"http://127.0.0.1:{free_port()}"
    etcd = host.popen("etcd", "--data-dir", str(folder / "etcd"), "--listen-client-urls", client,
                      "--advertise-client-urls", client, "--listen-peer-urls", peer, "--name", "e",
                      "--initial-advertise-peer-urls", peer, "--initial-cluster", f"e={peer}",
                      stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        yield client
    finally:
        etcd.kill()
        etcd.wait(LONG)


LEFT = """
import sys
import time
from kvdeck.engine.ranks.etcd_gateway import EtcdGateway, etcd_access
print(EtcdGateway(etcd_access(sys.argv[1:], {})).read("/kvdeck/", below=True)[0])
"""


@on_hosts
@pytest.mark.parametrize(
    ("victim", "number", "statuses"),
    [(0, signal.SIGKILL, (-9, 1)), (1, signal.SIGKILL, (1, -9)), (0, signal.SIGTERM, (130, 0))],
    ids=["rank 0 killed", "rank 1 killed", "rank 0 cancelled"],
)
def test_a_rank_that_ends_ends_the_others(
    pair: Pair, home: dict[str, str], victim: int, number: signal.Signals, statuses: tuple[int, int]
):
    home |= {"WORLD_SIZE": "2", "MASTER_ADDR": pair.a.address, "MASTER_PORT": str(free_port())}
    ranks = [
        started(host, {**home, "RANK": str(rank)}, "--launcher", "torch", "--seconds", "60")
        for rank, host in enumerate((pair.a, pair.b))
    ]
    sessions = Path(home["KVDECK_HOME"]) / "sessions"
    until(lambda: any(b'"round"' in path.read_bytes() for path in sessions.glob("*/samples.jsonl")))
    (command,) = [pid for pid in (pair.a, pair.b)[victim].processes() if b"--launcher" in words_of(pid)]
    os.kill(command, number)
    ended = [rank.communicate(timeout=LONG) for rank in ranks]
    found = [rank.returncode for rank in ranks]
    assert found[1 - victim] == statuses[1 - victim], ended
    assert found[victim] == statuses[victim] or number == signal.SIGKILL
    until(lambda: pair.a.processes() == pair.b.processes() == [])
    session = only_session(home)
    if number == signal.SIGTERM:
        assert session["state"] == "cancelled"
    elif victim == 1:
        assert session["state"] == "failed"
        assert "rank 1 on hostB" in session["reason"]
    if victim == 1 or number == signal.SIGTERM:
        assert session["results"][0]["iterations"] > 0, "what was measured is kept"


def words_of(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def run_here(home: dict[str, str], *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **home, **variables}
    return subprocess.run(kvdeck_run(*words), capture_output=True, text=True, timeout=LONG, env=environment)


@pytest.mark.parametrize(
    ("words", "variables", "said"),
    [
        (["--launcher", "torch"], {SECRET_VARIABLE: ""}, "export KVDECK_RENDEZVOUS_SECRET=$(openssl rand -hex 32)"),
        (["--launcher", "torch", "--peer", "hostb"], {}, "--peer is not for a run by ranks"),
        (["--launcher", "torch", "--path", "HostToDisk"], {}, "doesn't go to another host"),
        (["--launcher", "slurm"], {}, "SLURM_PROCID"),
        (["--etcd-endpoints", "http://u:p@h"], {}, "KVDECK_ETCD_USER"),
    ],
)
def test_what_can_t_be_is_refused_with_2(home: dict[str, str], words: list[str], variables: dict[str, str], said: str):
    given = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", **variables}
    done = run_here(home, *words, **given)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "fix: " in done.stderr
    assert not (Path(home["KVDECK_HOME"]) / "sessions").exists() or not Store(Path(home["KVDECK_HOME"])).names()


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed (Debian: openmpi-bin)")
def test_mpirun_s_ranks_run_together(home: dict[str, str]):
    argv = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-np", "2",
            *kvdeck_run("--launcher", "mpi", "--rendezvous", f"127.0.0.1:{free_port()}")]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LONG, env={**os.environ, **home})
    assert done.returncode == 0, done.stderr
    assert "rank 1 of 2 serves until rank 0 ends" in done.stderr
    (result,) = only_session(home)["results"]
    assert (result["status"], result["verified"]) == ("ok", True)
    assert len(result["settings"]["peer"]["hosts"]) == 1


without_slurm = reason_without_slurm()


@pytest.mark.skipif(bool(without_slurm), reason=without_slurm or "it can be started")
def test_srun_s_four_tasks_run_together(home: dict[str, str]):
    """One initiator thread for each of the three targets; nobody says where they meet."""
    argv = ["srun", "--immediate=60", "-n", "4", "-O",
            *kvdeck_run("--launcher", "auto")]  # fmt: skip
    with slurm() as environment:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=LONG, env={**os.environ, **home, **environment}
        )
    assert done.returncode == 0, done.stderr
    for rank in (1, 2, 3):
        assert f"rank {rank} of 4 serves until rank 0 ends" in done.stderr
    (result,) = only_session(home)["results"]
    assert (result["status"], result["verified"]) == ("ok", True)
    assert result["settings"]["threads"] == len(result["settings"]["peer"]["hosts"]) == 3


def test_without_launcher_its_variables_are_named(monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in os.environ if name.startswith(("SLURM_", "OMPI_", "PMI", "LWS_", "JOB_"))]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("RANK", raising=False)
    assert traces_text() == ""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert traces_text() == "SLURM_JOB_ID set: runs on this host only; with --launcher slurm, its ranks run together"
