"""The real Dynamo 1.6.1 frontend and mock worker, in an environment of their own, started and ended by a test.

They need no GPU, no etcd and no NATS. The environment lies in the user's cache folder, outside the repository, and
is made once: about 4 s with an empty uv cache and a fast index, 160 MB to fetch, 510 MB on disk. All that can be
told to listens on the loopback; Dynamo's event plane binds its ZeroMQ publishers to all addresses whatever it is
told, on ports of the kernel's choice, for as long as the test runs.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from kvdeck.engine.telemetry.discovery import USUAL_PORTS
from kvdeck.engine.telemetry.listeners import listeners
from tests.surroundings import GIVEN

REQUIRED = "KVDECK_HEAVY"
"""Set to `required` (as CI does), an environment that can't be made fails the tests; else it skips them."""
VERSION = "1.6.1"
PACKAGES = (
    "aiohttp<4",
    "certifi",
    "kubernetes<33",
    "msgspec",
    "prometheus-client<1",
    "pyzmq",
    "redis<9",
    "tqdm",
    "transformers>=4.56",
    "zstandard",
    "pydantic<2.13.6",
    "uvloop",
)
ALONE = (f"ai-dynamo=={VERSION}", f"ai-dynamo-runtime=={VERSION}")
"""Installed without what they ask for: one of those packages is not to be had from the index."""
MODEL = "tiny"
READY_S = 60.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)

_MODEL_MAKER = """
import json, random, sys
from pathlib import Path
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
folder = Path(sys.argv[1])
chance = random.Random(7)
words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(6000)]
made = Tokenizer(models.BPE())
made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
made.decoder = decoders.ByteLevel()
alphabet = pre_tokenizers.ByteLevel.alphabet()
made.train_from_iterator([" ".join(words)], trainers.BpeTrainer(
    vocab_size=4096, show_progress=False, initial_alphabet=alphabet, special_tokens=["<s>", "</s>"]))
assert made.get_vocab_size() == 4096
made.save(str(folder / "tokenizer.json"))
(folder / "tokenizer_config.json").write_text(json.dumps({
    "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "model_max_length": 2048,
    "chat_template": "{% for message in messages %}{{ message.content }}{% endfor %}"}))
(folder / "config.json").write_text(json.dumps({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 4096, "hidden_size": 64,
    "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 2048, "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "bfloat16",
    "rms_norm_eps": 1e-5}))
"""


def environment() -> Path:
    """The Python of Dynamo's environment, made now if it is not there yet."""
    mark = hashlib.sha256("\n".join((*PACKAGES, *ALONE, sys.version)).encode()).hexdigest()[:12]
    cache = Path(GIVEN.get("XDG_CACHE_HOME") or Path(GIVEN.get("HOME", "/")) / ".cache") / "kvdeck-tests"
    folder = cache / f"dynamo-{VERSION}-{mark}"
    python, whole = folder / "bin/python", folder / "whole"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.exists():
            try:
                _make(folder, python)
            except (OSError, subprocess.SubprocessError) as error:
                shutil.rmtree(folder, ignore_errors=True)
                words = getattr(error, "stderr", None) or str(error)
                cannot(f"Dynamo's environment can't be made: {words.strip()[-600:]}")
            whole.touch()
    return python


def _make(folder: Path, python: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    uv = shutil.which("uv")
    if uv is None:
        raise OSError("there is no uv on the path")

    def call(*arguments: str) -> None:
        subprocess.run([uv, *arguments], check=True, capture_output=True, text=True, timeout=300, env=GIVEN)

    call("venv", "--quiet", "--no-project", "--python", sys.executable, str(folder))
    call("pip", "install", "--quiet", "--python", str(python), *PACKAGES)
    call("pip", "install", "--quiet", "--python", str(python), "--no-deps", *ALONE)


def cannot(why: str) -> None:
    if os.environ.get(REQUIRED) == "required":
        pytest.fail(why)
    pytest.skip(why)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, the usual ones of frontends and workers first."""
    taken = {listener.port for listener in listeners()}
    usual = [port for port in (8000, 8081, *USUAL_PORTS) if port not in taken]
    found: list[int] = []
    for port in dict.fromkeys(usual):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    while len(found) < count:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            found.append(probe.getsockname()[1])
    return found[:count]


class Dynamo:
    """A frontend and a mock worker that can be killed and started again."""

    def __init__(self, python: Path, folder: Path, ends: ExitStack) -> None:
        self._python = python
        self._folder = folder
        self._ends = ends
        self.frontend_port, self.worker_port = free_ports(2)
        self.worker: subprocess.Popen[bytes] | None = None
        for name in ("home", "discovery", "model"):
            (folder / name).mkdir()
        maker = [str(python), "-c", _MODEL_MAKER, str(folder / "model")]
        subprocess.run(maker, check=True, capture_output=True, timeout=60)
        self._run(
            "frontend", "-m", "dynamo.frontend", "--http-host", "127.0.0.1", "--http-port", str(self.frontend_port),
            "--discovery-backend", "file", "--router-mode", "kv",
        )  # fmt: skip

    @property
    def frontend_url(self) -> str:
        return f"http://127.0.0.1:{self.frontend_port}/metrics"

    @property
    def worker_url(self) -> str:
        return f"http://127.0.0.1:{self.worker_port}/metrics"

    def start_worker(self, host_blocks: int) -> None:
        """Start the worker, with so many blocks of host tier, and wait until the frontend offers its model."""
        tier = ["--num-host-blocks", str(host_blocks), "--kv-bytes-per-token", "262144"] if host_blocks else []
        self.worker = self._run(
            "worker", "-m", "dynamo.mocker", "--model-path", str(self._folder / "model"), "--model-name", MODEL,
            "--discovery-backend", "file", "--block-size", "16", "--num-gpu-blocks-override", "64",
            "--max-model-len", "2048", *tier,
        )  # fmt: skip
        end = time.monotonic() + READY_S
        while not self._answers():
            assert self.worker.poll() is None, self.last_words()
            assert time.monotonic() < end, self.last_words()
            time.sleep(0.05)

    def kill_worker(self) -> None:
        """kill -9: nothing is said to anybody. Its entries are taken away, as their expiry would some seconds later."""
        assert self.worker is not None
        _end(self.worker)
        for kind in ("instances", "mdc"):
            for entry in (self._folder / "discovery/v1" / kind).iterdir():
                entry.unlink(missing_ok=True)

    @contextmanager
    def hanging_worker(self) -> Iterator[None]:
        """The worker stands still: it holds its connections and answers nobody."""
        assert self.worker is not None
        self.worker.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.worker.send_signal(signal.SIGCONT)

    def ask(self, prompt: str, max_tokens: int = 8) -> dict[str, Any]:
        """The usage of one completion."""
        body = json.dumps({"model": MODEL, "prompt": prompt, "max_tokens": max_tokens}).encode()
        headers = {"Content-Type": "application/json"}
        url = f"http://127.0.0.1:{self.frontend_port}/v1/completions"
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as answer:
            usage: dict[str, Any] = json.load(answer)["usage"]
        return usage

    def last_words(self) -> str:
        """The end of both logs."""
        return "\n".join(path.read_text(errors="replace")[-1500:] for path in sorted(self._folder.glob("*.log")))

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.frontend_port}/v1/models", timeout=5) as answer:
                if not json.load(answer)["data"]:
                    return False
            with urllib.request.urlopen(self.worker_url, timeout=5) as answer:
                return bool(answer.read())
        except (urllib.error.URLError, OSError):
            return False

    def _run(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        loopback = ("DYN_TCP_RPC_HOST", "DYN_TCP_RESPONSE_STREAM_HOST", "DYN_EVENT_PLANE_HOST", "DYN_SYSTEM_HOST")
        settings = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self._folder / "home"),
            "HF_HUB_OFFLINE": "1",
            "DYN_DISCOVERY_BACKEND": "file",
            "DYN_FILE_KV": str(self._folder / "discovery"),
            "DYN_REQUEST_PLANE": "tcp",
            "DYN_EVENT_PLANE": "zmq",
            **dict.fromkeys(loopback, "127.0.0.1"),
        }
        if name == "worker":
            settings |= {"DYN_SYSTEM_PORT": str(self.worker_port), "DYN_SYSTEM_STARTING_HEALTH_STATUS": "ready"}
        with (self._folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(self._python), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=settings,
                cwd=self._folder,
                start_new_session=True,
                preexec_fn=_die_with_the_test,
            )
        self._ends.callback(_end, process)
        return process


def _die_with_the_test() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait(timeout=10)


@contextmanager
def dynamo(folder: Path, host_blocks: int = 1024) -> Iterator[Dynamo]:
    """Both at work, and ended at last whatever happens."""
    python = environment()
    with ExitStack() as ends:
        running = Dynamo(python, folder, ends)
        running.start_worker(host_blocks)
        yield running


def prompt(number: int) -> str:
    """A prompt of some 36 blocks of 16 tokens that shares nothing with any other."""
    chance = random.Random(number)
    return " ".join("".join(chance.choices("abcdefghij", k=5)) for _ in range(200))
