"""`kvdeck plan`, `kvcache` and `iosize` against KVBench's own words and figures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kvdeck.app.cli.main import call
from kvdeck.engine.planning.nixlbench import BACKENDS, CHOICES, DEFAULTS, command_line, nixlbench_params, rounds
from kvdeck.sessions.errors import UsageError
from tests.support.builders.models import write_architecture, write_config

RULE = "=" * 80
SEED = """\
{rule}
Model Config: ./examples/{file}
ISL: 10000 tokens
Page Size: 256
Requests: {requests}
TP: 1
PP: {pp}
{rule}
nixlbench \\
    --backend GDS \\
    --max_batch_size {batch} \\
    --max_block_size {io} \\
    --start_batch_size {batch} \\
    --start_block_size {io} \\
    --target_seg_type VRAM

"""
R1 = ["--model", "./examples/model_deepseek_r1.yaml"]


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Callable[..., str]:
    """Calls the command line where KVBench's examples lie, and gives what it prints."""
    examples = tmp_path / "examples"
    examples.mkdir()
    write_architecture(examples, "DEEPSEEK_R1")
    write_architecture(examples, "LLAMA3.1_70B")
    for access in ("block", "layer"):
        for pp in (8, 16):
            write_config(examples, access, 1, pp)
    monkeypatch.chdir(tmp_path)

    def calling(*arguments: str, status: int = 0) -> str:
        assert call(list(arguments)) == status
        done = capsys.readouterr()
        return done.out if not status else done.err

    return calling


@pytest.mark.parametrize("spelling", ["--etcd-endpoint", "--etcd-endpoints", "--etcd_endpoints"])
@pytest.mark.parametrize(
    ("file", "more", "pp", "requests", "batch", "io"),
    [
        ("block-tp1-pp16.yaml", [], 16, 10, 5958, 589824),
        ("layer-tp1-pp16.yaml", [], 16, 10, 23829, 147456),
        ("block-tp1-pp8.yaml", ["--pp", "32", "--num_requests", "100"], 32, 100, 119141, 294912),
    ],
)
@pytest.mark.parametrize("compat", [[], ["--compat", "kvbench"]])
def test_the_seeds_plans_byte_for_byte(said, spelling, file, more, pp, requests, batch, io, compat) -> None:
    shown = said("plan", *R1, "--model_config", f"./examples/{file}", "--backend", "GDS", "--source", "gpu", spelling,
                 "http://localhost:2379", *more, "--for", "seed", *compat)  # fmt: skip
    assert shown == SEED.format(rule=RULE, file=file, requests=requests, pp=pp, batch=batch, io=io)


def test_for_nixlbench_as_it_is(said) -> None:
    shown = said("plan", *R1, "--model-config", "examples/block-tp1-pp16.yaml", "--backend", "gds", "--source", "gpu")
    assert shown.splitlines()[8:] == [
        "nixlbench \\",
        "    --backend GDS \\",
        "    --initiator_seg_type VRAM \\",
        "    --max_batch_size 5958 \\",
        "    --max_block_size 589824 \\",
        "    --start_batch_size 5958 \\",
        "    --start_block_size 589824 \\",
        "    --total_buffer_size 3514171392",
        "",
    ]


def test_kvcache_and_iosize_of_the_seed(said) -> None:
    config = [*R1, "--model_config", "./examples/block-tp1-pp8.yaml"]
    assert said("kvcache", *config, "--num_requests", "1") == said("kvcache", *config, "--for", "seed") == (
        "Model                  : DEEPSEEK_R1\nInput Sequence Length  : 10000\n"
        "Batch Size             : 298\nIO Size                : 1.12 MB\n"
    )  # fmt: skip
    assert "Batch Size             : 2979\n" in said("kvcache", *config)
    assert said("iosize", *config) == "IO Size per GPU: 4608\n"
    assert said("iosize", *config, "--compat", "kvbench") == "IO Size per GPU: 4608\n"


def test_json_is_kvbenchs_array(said) -> None:
    (plan,) = json.loads(said("plan", *R1, "--model_config", "examples/block-tp1-pp16.yaml", "--format", "json"))
    assert list(plan) == [*DEFAULTS, "config_file"]
    assert plan["config_file"] == "examples/block-tp1-pp16.yaml"
    assert (plan["start_block_size"], plan["max_batch_size"], plan["backend"]) == (589824, 5958, "UCX")


def test_csv_has_the_model_and_its_columns_in_order(said) -> None:
    text = said("plan", *R1, "--model_configs", "examples/*-tp1-*.yaml", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["config_file"] for row in rows] == [
        f"examples/{access}-tp1-pp{pp}.yaml" for access in ("block", "layer") for pp in (16, 8)
    ]
    assert {row["model"] for row in rows} == {"DEEPSEEK_R1"}
    assert rows[0]["model_runtime_isl"] == "10000"
    assert text == said("plan", *R1, "--model_configs", "examples/*-tp1-*.yaml", "--format", "csv")


def test_a_file_named_twice_is_planned_once_and_a_wrong_one_holds_up_no_other(said, tmp_path: Path) -> None:
    one = "examples/block-tp1-pp8.yaml"
    assert said("plan", *R1, "--model_config", one, "--model_configs", one).count("nixlbench \\") == 1
    (tmp_path / "examples/block-wrong.yaml").write_text("runtime: {isl: none}\n")
    error = said("plan", *R1, "--model_configs", "examples/block-*.yaml", status=1)
    assert error.startswith("kvdeck: isl in examples/block-wrong.yaml")


def test_kvbenchs_figures_with_its_switch(said) -> None:
    llama = ["--model", "examples/model_llama3.1_70b.yaml", "--isl", "1000", "--page_size", "1", "--tp", "8"]
    assert said("iosize", *llama, "--pp", "32", "--compat", "kvbench") == "IO Size per GPU: 640\n"
    assert said("iosize", *llama, "--pp", "32") == "IO Size per GPU: 768\n"
    wide = [*llama, "--precision", "bf16"]
    assert said("iosize", *wide, "--compat", "kvbench") == "IO Size per GPU: 20480\n"
    assert said("iosize", *wide) == "IO Size per GPU: 40960\n"


def test_kvcache_tells_more_in_json(said) -> None:
    (row,) = json.loads(said("kvcache", *R1, "--model_config", "examples/block-tp1-pp16.yaml", "--format", "json"))
    assert (row["kv_bytes_per_token"], row["block_bytes"], row["regions_per_block"]) == (35136, 589824, 4)
    assert (row["gpu_blocks"], row["all_blocks"]) == (400, 6400)
    assert row["stage_layers"] == [4] * 13 + [3] * 3


def test_a_saved_plan_names_its_model(said, tmp_path: Path) -> None:
    (tmp_path / "saved.yaml").write_text("model: qwen3-8b\nruntime: {isl: 100}\ntransfer: {path: HostToDisk}\n")
    assert said("iosize", "--model_config", "saved.yaml") == "IO Size per GPU: 2048\n"


def test_models_are_listed(said) -> None:
    listed = said("plan", "--models")
    assert "deepseek-r1" in listed
    assert "18 layers · GQA, 8 KV heads × 64, window 128; 18 layers · GQA, 8 KV heads × 64" in listed


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "--model"),
        (["--model", "llama-9"], "llama-9"),
        (["--model", "llama-3.1-8b"], "--isl"),
        (["--model", "llama-3.1-8b", "--isl", "0"], "--isl"),
        (["--model", "llama-3.1-8b", "--isl", "10", "--tp", "3"], "TP 3"),
        (["--model", "llama-3.1-8b", "--isl", "10", "--precision", "fp7"], "fp7"),
        (["--model", "config.json", "--isl", "10"], "BertModel"),
        (["--model", "llama-3.1-8b", "--model_config", "none.yaml"], "none.yaml"),
        (["--model", "llama-3.1-8b", "--model_configs", "none*.yaml"], "none*.yaml"),
        (["--model", "llama-3.1-8b", "--model_config", "examples/model_deepseek_r1.yaml"], "none of the sections"),
        (
            ["--model", "llama-3.1-8b", "--isl", "9", "--backend", "UCX", "--source", "file"],
            "UCX moves between memories",
        ),
        (["--model", "llama-3.1-8b", "--isl", "9", "--backend", "UCX_MO"], "UCX_MO"),
        (["--model", "llama-3.1-8b", "--isl", "9", "--backend", "POSIX", "--source", "gpu"], "host memory only"),
        (
            ["--model", "llama-3.1-8b", "--isl", "9", "--backend", "GDS", "--source", "gpu", "--destination", "gpu"],
            "file",
        ),
        (["--model", "llama-3.1-8b", "--isl", "9", "--total_buffer_size", "7"], "total_buffer_size 7"),
        (["--model", "llama-3.1-8b", "--isl", "9", "--compat", "kvbench", "--model_quant_mode", "fp4"], "fp4"),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(said, tmp_path: Path, arguments: list[str], named: str) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"], "num_hidden_layers": 2}')
    (line,) = said("plan", *arguments, status=2).splitlines()
    assert named in line
    assert " · " in line


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("source", [None, "file", "memory", "gpu"])
@pytest.mark.parametrize("destination", [None, "file", "memory", "gpu"])
def test_every_command_is_one_that_nixlbench_takes(backend: str, source, destination) -> None:
    try:
        params = nixlbench_params(589824, 100, {"backend": backend, "num_threads": 4}, source, destination)
    except UsageError as error:
        refused = str(error)
        assert " · " in refused
        return
    for name, choices in CHOICES.items():
        assert params[name] in choices
    assert params["backend"] == backend
    need = params["max_block_size"] * params["max_batch_size"]
    assert need <= params["total_buffer_size"] // 4
    assert params["total_buffer_size"] % 4 == 0
    assert "FILE" not in command_line(params)


def test_the_scheme_tp_sets_the_devices() -> None:
    params = nixlbench_params(4096, 10, {"backend": "UCX", "scheme": "tp"}, tp=8)
    assert (params["num_initiator_dev"], params["num_target_dev"]) == (1, 8)
    assert params["total_buffer_size"] == 4096 * 10 * 8
    assert nixlbench_params(4096, 10, {"scheme": "tp", "num_target_dev": 2}, tp=8)["num_target_dev"] == 2


def test_sweeps_that_were_asked_for_stay() -> None:
    params = nixlbench_params(589824, 5958, {"start_block_size": 4096, "max_block_size": 65536, "max_batch_size": 8,
                                             "start_batch_size": 1})  # fmt: skip
    assert "--max_block_size 65536" in command_line(params)
    assert params["total_buffer_size"] == 65536 * 8


def test_iterations_as_nixlbench_rounds_them() -> None:
    params = nixlbench_params(4096, 1, {"num_threads": 3})
    assert rounds(params, 1 << 20) == (1008, 144)
    assert rounds(params, (1 << 20) + 1) == (63, 9)
    assert rounds(DEFAULTS, 4096) == (1008, 112)


def test_a_hybrids_state_is_said_apart(said, capsys) -> None:
    asked = ["--model", "qwen3-next-80b-a3b", "--isl", "4096", "--tp", "2"]
    assert call(["plan", *asked]) == 0
    done = capsys.readouterr()
    assert "37.7 MiB per request, at most 18.8 MiB per GPU" in done.err
    assert "recurrent" not in done.out
    (row,) = json.loads(said("kvcache", *asked, "--format", "json"))
    assert row["state_bytes_per_request"] == 39_518_208
    assert row["state_bytes_per_layer"] == {"linear": 1_097_728}
    assert row["kv_bytes_per_request"] == 12_288 * 4096
    (planned,) = json.loads(said("plan", *asked, "--format", "json"))
    assert planned["gpu_state_bytes"] == 39_518_208 // 2
    assert "37.69 MB per request, apart from these" in said("kvcache", *asked)
    for more in (["--compat", "kvbench"], ["--for", "seed"]):
        assert "Recurrent" not in said("kvcache", *asked, *more)


def test_stages_are_given_or_by_an_engines_rule(said, capsys) -> None:
    asked = ["--model", "deepseek-r1", "--isl", "1000", "--format", "json"]
    (row,) = json.loads(said("kvcache", *asked, "--pp", "4", "--pp-rule", "vllm"))
    assert (row["stage_layers"], row["stage_rule"][:4]) == ([15, 15, 16, 15], "vLLM")
    (row,) = json.loads(said("kvcache", *asked, "--pp_layers", "20,20,21"))
    assert (row["pp"], row["stage_layers"]) == (3, [20, 20, 21])
    assert row["stage_request_bytes"] == [576 * 1000 * layers for layers in (20, 20, 21)]
    for wrong, named in (("20,20", "adds up to 40"), ("20;41", "pp_layers"), ("-1,62", "pp_layers")):
        assert named in said("kvcache", *asked, "--pp-layers", wrong, status=2)
    assert call(["plan", "--model", "deepseek-r1", "--isl", "9", "--pp", "4", "--pp-rule", "sglang"]) == 0
    assert "layers per stage 15,15,15,16 · SGLang's rule" in capsys.readouterr().err


def test_the_kv_precision_is_said_and_read_from_the_file(said, tmp_path: Path, capsys) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/config.json").write_text(
        '{"model_type": "llama", "num_hidden_layers": 2, "num_attention_heads": 8, "hidden_size": 1024,'
        ' "num_key_value_heads": 8, "torch_dtype": "bfloat16"}'
    )
    own = ["--model", "own", "--isl", "10"]
    assert "KV Precision           : bf16 (torch_dtype)\n" in said("kvcache", *own)
    assert "KV Precision           : fp8 (KVBench's default;" in said("kvcache", "--model", "qwen3-8b", "--isl", "10")
    (row,) = json.loads(said("kvcache", *own, "--format", "json"))
    assert (row["precision"], row["precision_source"], row["kv_bytes_per_token"]) == ("bf16", "torch_dtype", 8192)
    (row,) = json.loads(said("plan", *own, "--format", "json"))
    assert (row["precision"], row["max_block_size"]) == ("bf16", 8192 * 16)
    (row,) = json.loads(said("iosize", *own, "--format", "json"))
    assert (row["precision"], row["io_size"]) == ("bf16", 8192)
    for verb in ("plan", "iosize"):
        assert call([verb, *own]) == 0
        assert "kvdeck: KV precision bf16 (torch_dtype)" in capsys.readouterr().err
    for more in (["--compat", "kvbench"], ["--for", "seed"]):
        assert "Precision" not in said("kvcache", *own, *more)
    assert call(["kvcache", *own, "--compat", "kvbench"]) == 0
    assert "fp8" in capsys.readouterr().err


def test_copies_and_packings_are_said(said, capsys) -> None:
    for verb in ("plan", "kvcache", "iosize"):
        assert call([verb, "--model", "llama-3.1-8b", "--isl", "10", "--tp", "16"]) == 0
        assert "each of 2 TP ranks has the same copy: fewer KV heads than ranks" in capsys.readouterr().err
    asked = ["--model", "deepseek-v3.2", "--isl", "1", "--page_size", "1", "--tp", "2"]
    (row,) = json.loads(said("kvcache", *asked, "--format", "json"))
    assert "MLA's latent isn't split" in row["replication"]
    assert any("656 B" in note for note in row["notes"])
    (row,) = json.loads(said("kvcache", *asked, "--precision", "fp8_ds_mla", "--format", "json"))
    assert row["kv_bytes_per_token"] == 61 * (656 + 132)
    assert "has none" in said("plan", "--model", "qwen3-8b", "--isl", "1", "--precision", "fp8_ds_mla", status=2)


def test_a_name_of_hugging_face_says_what_was_taken(said, capsys) -> None:
    assert call(["kvcache", "--model", "Qwen/Qwen3-8B", "--isl", "10"]) == 0
    assert "Qwen/Qwen3-8B is the catalogue's qwen3-8b" in capsys.readouterr().err
    assert "use qwen3-8b" in said("plan", "--model", "Qwen/Qwen3-9B", "--isl", "10", status=2)
