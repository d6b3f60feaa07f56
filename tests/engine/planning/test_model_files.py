"""Models by name, folder and file: what is found, what it is called, and what is offered instead."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvdeck.engine.planning.model_files import catalogue, find_model, from_mapping
from kvdeck.engine.planning.precision import PRECISIONS
from kvdeck.sessions.errors import UsageError

BF16 = PRECISIONS["bf16"]
QWEN = {"model_type": "qwen3", "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8,
        "head_dim": 128, "hidden_size": 4096}  # fmt: skip
PARAMS = {"dim": 5120, "n_layers": 40, "head_dim": 128, "n_heads": 32, "n_kv_heads": 8}
V4 = {"kv_heads": 1, "head_dim": 512, "shared_kv": True, "rope": 64, "window": 128}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Qwen/Qwen3-8B", "qwen3-8b"),
        ("qwen/qwen3-8b", "qwen3-8b"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("meta-llama/Meta-Llama-3.1-8B", "llama-3.1-8b"),
        ("Qwen/Qwen3-8B-FP8", "qwen3-8b"),
        ("deepseek-ai/DeepSeek-R1", "deepseek-r1"),
        ("openai/gpt-oss-20b", "gpt-oss-20b"),
    ],
)
def test_a_name_as_people_use_it_is_the_catalogue_s(text: str, name: str) -> None:
    model = find_model(text)
    assert model.name == name
    assert model.notes == (f"{text} is the catalogue's {name}",)


@pytest.mark.parametrize(
    ("text", "offered"),
    [("Qwen/Qwen3-9B", "qwen3-8b"), ("qwen3-9b", "qwen3-8b"), ("meta-llama/Llama-3.1-7B", "llama-3.1-8b"),
     ("qwen3", "qwen3-0.6b")],
)  # fmt: skip
def test_a_near_miss_offers_what_is_there(text: str, offered: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_model(text)
    assert offered in caught.value.fix


@pytest.mark.parametrize("text", ["./none/Qwen3-8B", "models/qwen/config.json", "/none/at/all", "none.yaml"])
def test_a_path_that_leads_nowhere_is_a_path(text: str) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        find_model(text)


def test_a_folder_of_any_spelling_gives_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "My-Model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(QWEN))
    monkeypatch.chdir(folder)
    for text in (".", "./", "config.json", "./config.json", "../My-Model", str(folder), f"{folder}/config.json"):
        assert find_model(text).name == "My-Model", text


def test_a_repository_in_hugging_face_s_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "models--Qwen--Qwen3-8B"
    for commit, layers in (("aaa", 1), ("bbb", 36), ("ccc", 2)):
        snapshot = repository / "snapshots" / commit
        snapshot.mkdir(parents=True)
        blob = repository / f"blob-{commit}"
        blob.write_text(json.dumps({**QWEN, "num_hidden_layers": layers}))
        (snapshot / "config.json").symlink_to(blob)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("bbb\n")
    for text in (str(repository), f"{repository}/snapshots/bbb", f"{repository}/snapshots/bbb/config.json"):
        model = find_model(text)
        assert (model.name, model.layers) == ("Qwen3-8B", 36)
    monkeypatch.chdir(repository / "snapshots" / "ccc")
    assert (find_model(".").name, find_model(".").layers) == ("Qwen3-8B", 2)


def test_mistral_s_own_file(tmp_path: Path) -> None:
    (tmp_path / "params.json").write_text(json.dumps(PARAMS))
    assert find_model(str(tmp_path)).token_bytes(BF16) == 163_840
    assert find_model(str(tmp_path / "params.json")).name == tmp_path.name
    (tmp_path / "config.json").write_text(json.dumps(QWEN))
    assert find_model(str(tmp_path)).layers == 36


def test_an_error_names_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**QWEN, "num_hidden_layers": "x"}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=tmp_path.name):
        find_model("config.json")
    with pytest.raises(UsageError, match=r"config\.json or params\.json"):
        find_model(str(tmp_path.parent))


def test_compressed_kinds_in_yaml() -> None:
    layers = {"sparse": {**V4, "compressed": {"every": 4, "indexer_bytes": 132}}, "window": V4}
    model = from_mapping({"name": "x", "layers": 2, "kinds": layers, "pattern": ["sparse", "window"]}, "x.yaml")
    assert model.request_bytes(BF16, 1) == 2 * 1_024
    assert model.request_bytes(BF16, 1_000) == 2 * 128 * 1_024 + 250 * (1_024 + 132)
    assert model.token_bytes(BF16) == 2 * 1_024 + (1_024 + 132) // 4
    assert model.compressed


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"compressed": 4}, "compressed"),
        ({"compressed": {"every": 1}}, "every of 2"),
        ({"compressed": {"indexer_bytes": 1}}, "every"),
        ({"window": None, "compressed": {"every": 4}}, "window"),
        ({"latent": 512}, "latent"),
        ({"shared_kv": False, "compressed": {"every": 4}, "rank": 1}, "rank"),
    ],
)
def test_what_is_wrong_in_a_compressed_kind_is_named(more: dict[str, object], named: str) -> None:
    fields = {key: value for key, value in {**V4, **more}.items() if value is not None}
    with pytest.raises(UsageError, match=named):
        from_mapping({"name": "x", "layers": 2, "kinds": {"k": fields}}, "x.yaml")


def test_the_catalogue_s_compressed_models_are_as_published() -> None:
    flash, pro = catalogue()["deepseek-v4-flash"], catalogue()["deepseek-v4-pro"]
    assert (flash.layers, flash.request_bytes(BF16, 100_000)) == (43, 628_530_976)
    assert (pro.layers, pro.request_bytes(BF16, 100_000)) == (61, 899_787_456)


def test_a_pattern_of_a_wrong_type_is_named() -> None:
    with pytest.raises(UsageError, match=r"pattern in x\.yaml is 3"):
        from_mapping({"name": "x", "layers": 2, "kinds": {"k": V4}, "pattern": 3}, "x.yaml")
