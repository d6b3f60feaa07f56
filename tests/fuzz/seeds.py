"""Valid files and messages of every kind that kvdeck reads, as kvdeck and the other programs write them."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import orjson
from msgspec.structs import replace

from kvdeck.engine.daemon import recovery, runtime
from kvdeck.engine.protocol import EventMessage, SampleMessage, encode
from kvdeck.engine.telemetry.recording import TelemetryRecorder
from kvdeck.engine.telemetry.sample import take
from kvdeck.engine.telemetry.source import Reading
from kvdeck.engine.telemetry.sources.exposition import Parser
from kvdeck.engine.telemetry.tracker import Track
from kvdeck.sessions.formats import dynamo, exchange
from kvdeck.sessions.host.processes import ProcessIdentity, own_identity
from kvdeck.sessions.model.encoding import encode_document, encode_line
from kvdeck.sessions.model.events import Round, convert_event
from kvdeck.sessions.model.records import Session, TransferCounts
from kvdeck.sessions.model.transfer_counts import LAYOUTS
from kvdeck.sessions.recorder import TransferCounter
from kvdeck.sessions.store.index import summaries
from kvdeck.sessions.store.store import Store
from kvdeck.sessions.store.telemetry.annotations import Mark
from tests.support.builders import run as a_run
from tests.support.builders.models import ARCHITECTURES, write_config
from tests.support.programs.metrics_server import sample

from .trial import Files

RUN, OTHER, OPEN, COUNTED, SEEN = "run", "other", "open", "counted", "seen"
"""Sessions: two runs that ended, one that its engine left, one of counted transfers, and a recording."""
BEGIN = 1_767_268_800.0
PATHS = ("HostToDisk", "DeviceToHost", "HostToDevice")
SPEC = """\
paths: [HostToHost, host-to-disk]
layouts: [fc, "fc -> ls"]
sweep_block_sizes: {start: 131072, stop: 2097152, factor: 4}
sweep_batches: 1:16:4
effort: quick
page_size: 16
verify: true
params: {ucx_devices: eth0}
"""
CONFIG = "theme: light\nascii: false\nhz: 4\nblock_bytes: 2097152\nfolder: /var/tmp\nkeymap:\n  deck.quit: Q\n"
DECK = {
    "view": "sessions",
    "sort": "name",
    "hidden": ["log", "told"],
    "monitor": {"sources": ["http://127.0.0.1:8000/metrics"], "known": ["host"], "hz": 2.0, "pins": ["a"],
                "thresholds": {"flow": "> 3"}, "block_bytes": 2097152.0, "block_from": "plan", "pane": "checks"},
    "plan": {"model": "llama-3.1-8b", "strategy": {"tp_size": 2, "kvcache_quant_mode": "fp8"},
             "runtime": {"isl": 1000, "num_requests": 4}, "system": {"page_size": 16, "access_pattern": "block"},
             "figures": {"title": "llama", "block_bytes": 2097152}},
    "run": {"paths": ["HostToHost"], "block_size": 65536, "batch": 16, "effort": "quick"},
}  # fmt: skip
NIXLBENCH_ROWS = (("Block Size (B)", "Batch Size", "B/W (GB/Sec)", "Avg Lat. (us)", "Avg Prep (us)", "P99 Prep (us)",
                   "Avg Post (us)", "P99 Post (us)", "Avg Tx (us)", "P99 Tx (us)"),
                  (4096, 1, "0.512300", "8.0", "11.0", "11.0", "1.2", "3.0", "6.4", "9.9"),
                  (8192, 1, "1.024600", "8.0", "12.0", "12.0", "1.3", "3.1", "6.5", "10.0"))  # fmt: skip
NIXLBENCH = "\n".join(
    [
        "NIXLBench Configuration",
        f"{'Backend (--backend=[UCX,GDS,POSIX])':<60}: POSIX",
        f"{'Op type (--op_type=[READ,WRITE])':<60}: READ",
        f"{'Storage enable direct (--storage_enable_direct=[0,1])':<60}: 1",
        *("".join(f"{cell!s:<20}" for cell in row) for row in NIXLBENCH_ROWS),
        "",
    ]
)
NIXLBENCH_CSV = "block_size,batch_size,avg_lat,bw_mib_sec,bw_gib_sec,bw_gb_sec\n4096,1,6.5,600.0,0.5859,0.6291\n"
GQA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "torch_dtype": "bfloat16",
    "sliding_window": 4096, "layer_types": ["full_attention", "sliding_attention"] * 16, "vocab_size": 128256,
}  # fmt: skip
MLA = {
    "model_type": "deepseek_v3", "num_hidden_layers": 61, "hidden_size": 7168, "num_attention_heads": 128,
    "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "index_head_dim": 128,
}  # fmt: skip
HYBRID = {
    "model_type": "nemotron_h",
    "num_hidden_layers": 6,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hybrid_override_pattern": "M-M*M-",
    "mamba_num_heads": 128,
    "mamba_head_dim": 64,
    "ssm_state_size": 128,
    "n_groups": 8,
    "conv_kernel": 4,
}
VISION = {
    "model_type": "qwen3_vl",
    "text_config": {"model_type": "qwen3_next", "num_hidden_layers": 12, "hidden_size": 2048, "num_attention_heads": 16,
                    "num_key_value_heads": 2, "head_dim": 256, "full_attention_interval": 4, "linear_num_key_heads": 16,
                    "linear_num_value_heads": 32, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
                    "linear_conv_kernel_dim": 4},
}  # fmt: skip
HYBRIDS = {
    "chunked": {"attention_chunk_size": 8192, "no_rope_layers": [1, 1, 1, 0] * 2, "no_rope_layer_interval": 4},
    "sliding": {"sliding_window": 128, "sliding_window_pattern": 4, "num_kv_shared_layers": 2, "v_head_dim": 64},
    "mixed": {"sliding_window": 128, "use_sliding_window": True, "max_window_layers": 4, "swa_head_dim": 64,
              "swa_num_key_value_heads": 2, "num_global_key_value_heads": 4, "global_head_dim": 64},
    "periods": {"model_type": "jamba", "attn_layer_period": 4, "attn_layer_offset": 1, "mamba_d_state": 16,
                "mamba_d_conv": 4, "mamba_expand": 2},
    "linear": {"linear_attn_config": {"full_attn_layers": [4, 8], "kda_layers": [1, 2, 3], "num_heads": 16,
                                      "head_dim": 64, "short_conv_kernel_size": 4}},
    "falcon": {"model_type": "falcon", "num_kv_heads": 8, "multi_query": True, "new_decoder_architecture": True},
}  # fmt: skip
"""What other families say beside `SMALL`."""
SMALL = {"num_hidden_layers": 8, "hidden_size": 1024, "num_attention_heads": 8, "num_key_value_heads": 8}
OWN_MODEL = """\
name: mine
layers: 24
query_heads: 64
kinds:
  sliding: {kv_heads: 8, head_dim: 64, window: 128}
  full: {kv_heads: 8, head_dim: 64}
  mamba:
    state: {kind: gated_delta_net, num_k_heads: 8, num_v_heads: 16, head_k_dim: 64, head_v_dim: 64, conv_kernel: 4}
pattern: [sliding, full, mamba]
"""


def _made(make: Callable[[Path], None]) -> dict[str, bytes]:
    """The files that `make` leaves in a home."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir()
        make(home)
        return {str(path.relative_to(folder)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


@cache
def sessions() -> Files:
    """A home with sessions of every kind."""
    return _made(_keep_sessions)


def _keep_sessions(home: Path) -> None:
    store = Store(home)
    for name in (RUN, OTHER):
        store.create(name, {"paths": ["HostToHost"], "layouts": ["fc"]}, SPEC)
        session = replace(a_run.session(name), host={"hostname": platform.node(), "cpu": "x"}, note="a note")
        store.write(replace(session, tags=("cold", "nvme")))
        store.samples_path(name).write_bytes(events())
    store.create(OPEN, {"paths": ["HostToHost"]}, SPEC)
    store.write(replace(store.read(OPEN), state="running"))
    store.samples_path(OPEN).write_bytes(events(ended=False))
    store.keep(Session(COUNTED, "done", BEGIN, started=BEGIN, kind="trace"))
    recorder = TransferCounter(store.folder(COUNTED))
    for number in range(60):
        recorder.record(PATHS[number % 3], LAYOUTS[number % 3], 4096 << number % 4, 2, 0.001 + number * 1e-5, 64)
    recorder.failed(*_key())
    recorder.close()
    recording = TelemetryRecorder.begin(home, SEEN, sources=("http://127.0.0.1:8000/metrics",))
    for moment in moments():
        recording.take(moment)
    recording.mark(Mark(BEGIN + 3, "a mark"))
    recording.close()


def _key() -> tuple[str, str]:
    return PATHS[0], LAYOUTS[0]


def events(ended: bool = True) -> bytes:
    """`samples.jsonl` of a run."""
    lines = []
    for message in a_run.stream("done" if ended else None):
        if isinstance(message, EventMessage):
            event = convert_event(message.event)
            assert event is not None
            lines.append(encode_line(event))
        elif isinstance(message, SampleMessage):
            step, number = int(message.values[0] or 0), int(message.values[1] or 0)
            times = tuple(round(a_run.micros(a_run.plans()[step], number) * 1e3 + extra) for extra in range(8))
            lines.append(encode_line(Round(message.t, step, number, (2400,) * 8, times, sum(times), message.values)))
    return b"".join(lines[:60] + lines[-12:])


@cache
def moments() -> tuple[object, ...]:
    """A few moments of the Monitor, of what real engines said."""
    tracks = [Track("http://127.0.0.1:8000/metrics", "vllm"), Track("http://127.0.0.1:6880/metrics", "kvbm")]
    before = [Parser().parse(sample(f"{name}.prom").decode()).values
              for name in ("vllm032_nixl_d_before", "dynamo_kvbm_metrics_host_cold")]  # fmt: skip
    after = [Parser().parse(sample(f"{name}.prom").decode()).values
             for name in ("vllm032_nixl_d_after", "dynamo_kvbm_metrics_host_repeat")]  # fmt: skip
    found = []
    for second in range(8):
        now = (second + 1) * 1_000_000_000
        for track, values in zip(tracks, after if second % 4 == 3 else before, strict=True):
            track.took(Reading(now, values), now)
        found.append(take([(track, 1.0) for track in tracks], now, wall=BEGIN + second))
    return tuple(found)


@cache
def index() -> Files:
    """A home whose list was kept, and that list; most of what it names is gone since."""

    def make(home: Path) -> None:
        for number in range(66):
            folder = home / "sessions" / f"s{number}"
            folder.mkdir(parents=True)
            session = Session(f"s{number}", "done", BEGIN + number, tags=("t",), host={"hostname": "h"})
            (folder / "session.json").write_bytes(encode_document(session))
        summaries(home)
        for number in range(5, 66):
            shutil.rmtree(home / "sessions" / f"s{number}")

    return _made(make)


@cache
def owners() -> Files:
    """Runs that an engine left: what it noted of them, and what they hold."""

    def make(home: Path) -> None:
        store = Store(home)
        gone = ProcessIdentity(2**22 + 1, 1, "a boot", "a namespace", platform.node())
        for name in (RUN,):
            store.create(name, {"paths": ["HostToHost"]}, SPEC)
            store.write(replace(store.read(name), state="running"))
            store.samples_path(name).write_bytes(events(ended=False))
            recovery.write_owner(store, name, recovery.Owner(gone, None))

    return _made(make)


@cache
def imported() -> Files:
    """Files that `session import` and every verb that takes a session's file reads."""
    counts = dynamo.Counts("one", 12.5, transfer_counts())
    session = replace(a_run.session(), tags=("cold",))
    kept = Session("kept", "done", BEGIN, kind="imported", transfer_counts=transfer_counts())
    return {
        "tmp/nixlbench.txt": NIXLBENCH.encode(),
        "tmp/nixlbench.csv": NIXLBENCH_CSV.encode(),
        "tmp/dynamo.json": dynamo.encode(counts),
        "tmp/dynamo.csv": exchange.encode(kept, "csv"),
        "tmp/ours.json": exchange.encode(session, "kvdeck"),
        "tmp/counts.json": exchange.encode(kept, "kvdeck"),
        "tmp/table.parquet": exchange.encode(kept, "parquet"),
    }


def transfer_counts() -> tuple[TransferCounts, ...]:
    return tuple(
        TransferCounts(path, layout, transfers=3 + number, bytes=6145 << number, blocks=2, min_bytes=2048,
              max_bytes=4096, timed_transfers=3, timed_bytes=6000, timed_blocks=2, busy_s=0.002, sizes=((2048, 3),),
              times=((0.001, 3),))
        for number, (path, layout) in enumerate((path, layout) for path in PATHS for layout in LAYOUTS[:2])
    )  # fmt: skip


@cache
def dynamos() -> Files:
    """Dynamo's folders: sessions in the temp dir and in the home, and which one is active."""
    return {
        "tmp/dynamo_benchmark_one.json": dynamo.encode(dynamo.Counts("one", 12.5, transfer_counts())),
        "tmp/dynamo_benchmark_two.json": dynamo.encode(dynamo.Counts("two", 1.0, transfer_counts()[:2])),
        "user/.dynamo/bench_three.json": dynamo.encode(dynamo.Counts("three", 0.0)),
        "tmp/dynamo_benchmark_active_session.txt": b"one\n",
        "user/.dynamo/dynamo_benchmark_active_session.txt": b"three",
    }


@cache
def specs() -> Files:
    plain = {"paths": ["HostToDisk"], "block_size": 65536, "batch": 16, "blocks": 64, "direct": True, "api": "uring"}
    scheme = {"paths": ["HostToHost"], "scheme": "pairwise", "initiators": 2, "targets": 2, "mode": "MG"}
    return {
        "tmp/spec.yaml": SPEC.encode(),
        "tmp/plain.json.yaml": json.dumps(plain).encode(),
        "tmp/scheme.json": json.dumps(scheme).encode(),
    }


@cache
def models() -> Files:
    with tempfile.TemporaryDirectory() as folder:
        config = write_config(Path(folder), pp=2).read_bytes()
    files = {f"tmp/{name}.yaml": f"model_name: {name}\n{text}".encode() for name, text in ARCHITECTURES.items()}
    hub = {f"tmp/{name}/config.json": json.dumps(model, indent=1).encode()
           for name, model in (("gqa", GQA), ("mla", MLA), ("hybrid", HYBRID), ("vision", VISION),
                                *((name, {**SMALL, **more}) for name, more in HYBRIDS.items()))}  # fmt: skip
    return {**files, **hub, "tmp/own.yaml": OWN_MODEL.encode(), "tmp/run.model_config.yaml": config}


@cache
def settings() -> Files:
    return {"user/config.yaml": CONFIG.encode()}


@cache
def memory() -> Files:
    return {"home/deck.json": json.dumps(DECK, indent=1).encode()}


@cache
def expositions() -> Files:
    names = ("vllm032_nixl_d_after", "dynamo_kvbm_metrics_host_cold", "nixl_prom_agent", "lmcache056_exposition_idle")
    return {f"tmp/{name}.prom": _shortened(sample(f"{name}.prom")) for name in names}


def _shortened(data: bytes) -> bytes:
    """Fewer buckets: they are passed over, and most of an answer."""
    return (
        b"".join(line for line in data.splitlines(True) if b"_bucket" not in line)[:8_000].rpartition(b"\n")[0] + b"\n"
    )


@cache
def engine_record() -> Files:
    record = runtime.EngineRecord(own_identity(), BEGIN, "/nowhere", "0.1.0")
    return {"rt/engine.json": encode_line(record)}


@cache
def commands() -> Files:
    """What a client sends, a line each."""
    lines = [
        {"type": "status", "id": 1},
        {"type": "subscribe", "id": 2, "session": RUN, "from_seq": 3, "hz": 0.0},
        {"type": "subscribe", "id": 3, "session": None, "hz": 10.0, "readonly": False},
        {"type": "submit", "id": 4, "spec": {"paths": ["HostToHost"], "block_size": 65536}, "session": "mine"},
        {"type": "cancel", "id": 5, "session": "mine"},
        {"type": "watch", "id": 6, "hz": 0.0, "sources": ["host"], "block_bytes": 2097152.0, "pins": ["x"]},
        {"type": "record", "id": 7, "name": RUN, "hz": 1.0, "sources": ["host"], "limit_bytes": 67108864},
        {"type": "annotate", "id": 8, "name": "seen", "text": "a mark", "kind": "note"},
        {"type": "stop_recording", "id": 9, "name": "seen"},
        {"type": "stop", "id": 10, "force": False},
    ]
    frames = b"".join(json.dumps({"v": 1, **line}, separators=(",", ":")).encode() + b"\n" for line in lines)
    return {**{name: data for name, data in sessions().items() if f"/{RUN}/" in name}, "tmp/commands.jsonl": frames}


@cache
def answers() -> Files:
    """What the engine sends, a line each, the hello first."""
    hello = {"v": 1, "type": "hello", "version": 1, "engine_pid": os.getpid(), "kvdeck": "0.1.0", "started": BEGIN,
             "monotonic_ns": 1, "home": "/nowhere",
             "runs": [{"session": RUN, "state": "queued", "created": BEGIN}]}  # fmt: skip
    rows = [
        {"v": 1, "type": "reply", "id": 1, "ok": True, "data": {"session": RUN}},
        {"v": 1, "type": "runs", "runs": [{"session": RUN, "state": "queued", "created": BEGIN, "position": 1}]},
        {"v": 1, "type": "recordings", "recordings": [{"name": SEEN, "state": "running", "begin": BEGIN, "bytes": 7}]},
    ]
    lines = [json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in (hello, *rows)]
    stream = [encode(message) for message in a_run.stream()]
    lines += stream[:30] + stream[-12:]
    sampled = orjson.dumps({"v": 1, "type": "watch_sample", "missed": 0, "snapshot": moment_mapping()})
    return {"tmp/answers.jsonl": b"".join(lines) + sampled + b"\n"}


def moment_mapping() -> object:
    from kvdeck.engine.telemetry.sample import to_mapping

    return to_mapping(moments()[-1])  # type: ignore[arg-type]
