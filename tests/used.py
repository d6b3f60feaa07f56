"""Run a command on a machine that others have used: `python -m tests.used COMMAND…`.

Plants odd sessions, Dynamo's files, settings and variables in a home and a temp dir, and runs the command with them:
tests that pass only on a fresh machine fail here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ODD = b'{"session_name": 5, "session_duration_secs": "long", "metrics": []'
VARIABLES = {
    "KVDECK_THEME": "nonsense", "KVDECK_HZ": "fast", "KVDECK_ASCII": "1", "KVDECK_BELL": "1", "KVDECK_GRACE": "x",
    "KVDECK_WORKER": "/bin/false", "KVDECK_SCRATCH": "/nowhere", "KVDECK_IDLE_EXIT": "never",
    "DYNAMO_BENCHMARK_SESSION": "odd", "NIXL_PLUGIN_DIR": "/nowhere", "NIXL_LOG_LEVEL": "nonsense",
    "UCX_TLS": "rc", "UCX_NET_DEVICES": "mlx5_9:1", "FI_PROVIDER": "efa", "CUDA_VISIBLE_DEVICES": "7",
    "CUFILE_ENV_PATH_JSON": "/nowhere.json", "TERM": "dumb", "COLUMNS": "20", "LINES": "5", "NO_COLOR": "1",
    "FORCE_COLOR": "1", "COLORTERM": "truecolor", "XDG_CONFIG_HOME": "/nowhere", "XDG_DATA_HOME": "/nowhere",
    "XDG_RUNTIME_DIR": "/nowhere", "LC_ALL": "C", "TZ": "Asia/Kathmandu", "TMUX": "/nowhere,1,0",
}  # fmt: skip


def plant(root: Path) -> dict[str, str]:
    """Make a used home and temp dir below `root`; the variables that go with them."""
    home, temp = root / "home", root / "tmp"
    for place, prefix in ((temp, "dynamo_benchmark_"), (home / ".dynamo", "bench_")):
        place.mkdir(parents=True)
        for name, data in (("odd", ODD), ("empty", b""), ("a b\x1b[2J", ODD), ("test_session", ODD)):
            (place / f"{prefix}{name}.json").write_bytes(data)
        (place / "dynamo_benchmark_active_session.txt").write_bytes(b"odd\n")
        (place / f"{prefix}folder.json").mkdir()
        os.mkfifo(place / f"{prefix}fifo.json")
    for kept in (home / ".local/share/kvdeck", temp / "kvdeck"):
        session = kept / "sessions/odd"
        session.mkdir(parents=True)
        (session / "session.json").write_bytes(b'{"name": 5, "state": "running", "created": "yesterday"}')
        (kept / "deck.json").write_bytes(b'{"view": ["sessions"], "hidden": 5}')
        (kept / "sessions.index").write_bytes(b"[]")
    settings = home / ".config/kvdeck/config.yaml"
    settings.parent.mkdir(parents=True)
    settings.write_bytes(b"theme: [pink]\nhz: 1000\nascii: maybe\n")
    runtime = temp / f"kvdeck-{os.getuid()}"
    runtime.mkdir(mode=0o700)
    (runtime / "engine.json").write_bytes(b'{"process": 5}')
    own = {"HOME": home, "TMPDIR": temp, "KVDECK_HOME": temp / "kvdeck", "KVDECK_RUNTIME": runtime}
    return {**VARIABLES, **{name: str(path) for name, path in own.items()}, "KVDECK_CONFIG": str(settings)}


def main() -> int:
    """Run the command; its exit status. Caches stay where they were, so that nothing is fetched anew."""
    if len(sys.argv) < 2:
        print("usage: python -m tests.used COMMAND…", file=sys.stderr)
        return 2
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    settings = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    with tempfile.TemporaryDirectory(prefix="ku") as folder:
        environ = {**os.environ, **plant(Path(folder)), "XDG_CACHE_HOME": cache}
        uv = Path(settings) / "uv/uv.toml"
        if uv.is_file():
            environ.setdefault("UV_CONFIG_FILE", str(uv))
        return subprocess.run(sys.argv[1:], env=environ, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
