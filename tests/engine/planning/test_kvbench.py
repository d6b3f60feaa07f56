"""KVBench's own figures, from its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvdeck.engine.planning import kvbench
from kvdeck.engine.planning.kvbench import ModelConfig, batch_size, io_size, kv_bytes, model_config
from kvdeck.engine.planning.model_files import read_model, read_yaml
from kvdeck.engine.planning.models import Architecture
from kvdeck.sessions.errors import UsageError
from tests.support.builders.models import ARCHITECTURES, write_architecture, write_config


@pytest.fixture
def model(tmp_path: Path):
    return lambda name: read_model(write_architecture(tmp_path, name))


@pytest.mark.parametrize(
    ("name", "fp8", "wide"),
    [
        ("DEEPSEEK_R1", 35136, 70272),
        ("LLAMA3.1_8B", 65536, 131072),
        ("LLAMA3.1_70B", 163840, 327680),
        ("GPT_OSS_120B", 36864, 73728),
        ("GPT_OSS_20B", 24576, 49152),
        ("QWEN3_235B_A22B", 96256, 192512),
        ("QWEN3_8B", 73728, 147456),
    ],
)
def test_bytes_of_a_token(model, name: str, fp8: int, wide: int) -> None:
    read: Architecture = model(name)
    assert kv_bytes(read, ModelConfig()) == fp8
    quant = {"kvcache_quant_mode": "fp16"} if name == "DEEPSEEK_R1" else {"model_quant_mode": "fp16"}
    assert kv_bytes(read, ModelConfig(**quant)) == wide


@pytest.mark.parametrize(
    ("access", "pp", "requests", "io", "batch"),
    [("block", 16, 10, 589824, 5958), ("layer", 16, 10, 147456, 23829), ("block", 32, 100, 294912, 119141),
     ("block", 8, 1, 1179648, 298), ("block", 8, 10, 1179648, 2979)],
)  # fmt: skip
def test_the_seeds_examples(model, access: str, pp: int, requests: int, io: int, batch: int) -> None:
    config = ModelConfig(pp_size=pp, isl=10000, page_size=256, num_requests=requests, access_pattern=access)
    assert io_size(model("DEEPSEEK_R1"), config) == io
    assert batch_size(model("DEEPSEEK_R1"), config, io) == batch


def test_iosize_is_of_one_token(model) -> None:
    assert io_size(model("DEEPSEEK_R1"), ModelConfig(pp_size=8, access_pattern="block", page_size=256), 1) == 4608


@pytest.mark.parametrize(("pp", "block"), [(2, 10240), (4, 5120), (8, 2560), (16, 1280), (32, 640)])
def test_its_own_tests_of_llama(model, pp: int, block: int) -> None:
    config = ModelConfig(tp_size=8, pp_size=pp)
    assert io_size(model("LLAMA3.1_70B"), config.overridden(access_pattern="block")) == block
    assert io_size(model("LLAMA3.1_70B"), config) == 256


@pytest.mark.parametrize(
    ("access", "tp", "pp", "io", "batch"),
    [("block", 1, 1, 562176, 625), ("block", 1, 8, 73728, 4766), ("block", 1, 16, 36864, 9532),
     ("block", 8, 2, 35712, 9839), ("block", 8, 8, 9216, 38125), ("block", 8, 32, 2304, 152500),
     ("layer", 1, 4, 9216, 38125), ("layer", 8, 4, 1152, 305000)],
)  # fmt: skip
def test_its_shipped_configs(model, tmp_path: Path, access: str, tp: int, pp: int, io: int, batch: int) -> None:
    path = write_config(tmp_path, access, tp, pp, isl=1000, page=16)
    config, ignored = model_config(read_yaml(path), str(path))
    assert ignored == ()
    assert io_size(model("DEEPSEEK_R1"), config) == io
    assert batch_size(model("DEEPSEEK_R1"), config, io) == batch


def test_the_config_that_is_unlike_the_others(model) -> None:
    config = ModelConfig(tp_size=8, pp_size=16, isl=8192, page_size=16, num_requests=10, access_pattern="block")
    assert io_size(model("DEEPSEEK_R1"), config) == 4608
    assert batch_size(model("DEEPSEEK_R1"), config, 4608) == 624640


def test_a_newer_example(model) -> None:
    config = ModelConfig(pp_size=8, isl=10000, page_size=512, num_requests=10, access_pattern="block")
    assert batch_size(model("DEEPSEEK_R1"), config, io_size(model("DEEPSEEK_R1"), config)) == 1490


def test_null_values_count_as_absent_and_unknown_keys_are_named(tmp_path: Path) -> None:
    path = write_architecture(tmp_path, "QWEN3_8B")
    path.write_text(path.read_text() + "gqa_num_queries_in_group: null\n")
    assert read_model(path).layers == 36
    path.write_text(path.read_text() + "num_leyers: 4\n")
    with pytest.raises(UsageError, match="num_leyers"):
        read_model(path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    for name in ARCHITECTURES:
        path = write_architecture(tmp_path, name)
        lines = path.read_text().splitlines()
        for at, line in enumerate(lines):
            path.write_text("\n".join(lines[:at] + lines[at + 1 :]))
            with pytest.raises(UsageError, match=line.split(":")[0].replace(".", r"\.") if at else "name"):
                read_model(path)


def test_a_config_says_what_it_passes_over() -> None:
    config, ignored = model_config({"strategy": {"tp_size": 2, "tp_sise": 4}, "runtme": {}}, "a file")
    assert (config.tp_size, ignored) == (2, ("runtme", "strategy.tp_sise"))


@pytest.mark.parametrize("data", [[], {"runtime": []}, {"runtime": {"isl": 0}}, {"strategy": {"tp_size": "two"}}])
def test_a_config_that_is_wrong(data) -> None:
    with pytest.raises(UsageError, match="a file"):
        model_config(data, "a file")


def test_it_knows_four_precisions(model) -> None:
    with pytest.raises(UsageError, match="fp4"):
        io_size(model("QWEN3_8B"), ModelConfig(model_quant_mode="fp4"))
    with pytest.raises(UsageError, match="TP 8"):
        io_size(model("GPT_OSS_20B"), kvbench.ModelConfig(tp_size=8, pp_size=999999, access_pattern="block"))


def test_the_key_of_kvbenchs_documentation_is_named(tmp_path: Path) -> None:
    file = write_architecture(tmp_path, "DEEPSEEK_R1")
    whole = file.read_text()
    file.write_text(whole.replace("model_name:", "model:"))
    with pytest.raises(UsageError, match="the key is model_name") as refused:
        read_model(file)
    assert refused.value.fix == "write model_name: DEEPSEEK_R1 for model: DEEPSEEK_R1"
    file.write_text(whole.partition("\n")[2])
    with pytest.raises(UsageError, match="lacks model_name"):
        read_model(file)
