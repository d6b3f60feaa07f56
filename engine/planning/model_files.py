"""Readers of models: the catalogue, YAML (kvdeck's or KVBench's fields) and Hugging Face's `config.json`."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from kvdeck.engine.planning import huggingface, kvbench
from kvdeck.engine.planning.layer_caches import compressed_kind, shared_vector
from kvdeck.engine.planning.model_numbers import checked_count, checked_layers, cut
from kvdeck.engine.planning.models import Architecture, Kind, keys_and_values, latent
from kvdeck.engine.planning.published_precision import QUANTIZATION_FILE
from kvdeck.engine.planning.recurrent_state import State, state_of
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.host.documents import DocumentError, load_json, load_yaml
from kvdeck.sessions.host.files import is_folder, is_regular, read_regular
from kvdeck.sessions.host.user_home import expanded

CATALOGUE = Path(__file__).parent / "catalogue"
MODEL_FILES = ("config.json", "params.json")
"""Files that describe a model in its repository: Hugging Face's, and Mistral's own."""
_ENDING = re.compile(r"[-_](instruct|it|chat|hf|base|thinking|fp8|bf16|nvfp4|\d{4})(?=$|[-_])")
"""Parts of a repository's name that don't change the KV cache."""
_FIELDS = ("name", "title", "source", "layers", "query_heads", "parameters", "kinds", "pattern")
_KIND_FIELDS = ("kv_heads", "head_dim", "value_dim", "shared_kv", "window", "chunked", "compressed", "latent", "rope",
                "indexer_bytes", "state")  # fmt: skip


_NO_COUNTS = ("chunked", "state", "shared_kv", "compressed")


@lru_cache(maxsize=1)
def catalogue() -> dict[str, Architecture]:
    """Return the catalogue's models by name, in file order."""
    found = [from_mapping(entry, path.name) for path in sorted(CATALOGUE.glob("*.yaml")) for entry in read_yaml(path)]
    return {model.name: model for model in found}


def find_model(text: str) -> Architecture:
    """Return the model of a catalogue name, a Hugging Face name in the catalogue, or a path.

    A path is that of a YAML file, a `config.json` or `params.json`, the folder that holds one, or a repository's
    folder in Hugging Face's cache.

    Raises:
        UsageError: There is no such model, or its file is invalid; the message names the key.
    """
    path = expanded(text)
    if is_folder(path):
        return read_model(_file_in(path, text))
    if is_regular(path):
        return read_model(path)
    wanted = _squeezed(text)
    for name, model in catalogue().items():
        if wanted in (_squeezed(name), _squeezed(model.title)):
            return model
    if (of_catalogue := _of_repository(text)) is not None:
        return replace(of_catalogue, notes=(f"{text} is the catalogue's {of_catalogue.name}", *of_catalogue.notes))
    near = ", ".join(_near(text)[:6])
    if path.suffix in (".yaml", ".yml", ".json") or text.startswith((".", "/", "~")) or text.count("/") > 1:
        raise UsageError(f"model file {text} does not exist", "give a YAML file, a config.json, or a catalogue name")
    if "/" in text:
        raise UsageError(
            f"{text} is neither a file nor a model of the catalogue",
            f"use {near}, or the path of its config.json" if near else "download its config.json and give its path",
        )
    raise UsageError(f"unknown model {text!r}", f"use {near}" if near else "see `kvdeck plan --models`")


def _file_in(folder: Path, text: str) -> Path:
    """Return the model's file in a folder, or in the newest snapshot of Hugging Face's cache below it."""
    snapshots = folder / "snapshots"
    below = sorted(snapshots.iterdir(), key=lambda path: path.name) if is_folder(snapshots) else []
    main = folder / "refs" / "main"
    commit = read_regular(main).decode("utf-8", "replace").strip() if is_regular(main) else ""
    below.sort(key=lambda path: path.name != commit)
    for place in (folder, *below):
        for name in MODEL_FILES:
            if is_regular(place / name):
                return place / name
    raise UsageError(f"folder {text} has no {' or '.join(MODEL_FILES)}", "give the model's folder, or its file")


def model_name(path: Path) -> str:
    """Return the name of the model in a file: that of its folder, or of its repository in Hugging Face's cache."""
    if path.name not in MODEL_FILES:
        return path.stem
    # A relative path's folder may have no name, and a snapshot is a link in a folder named after a commit.
    folder = Path(os.path.abspath(path)).parent  # noqa: PTH100
    if folder.parent.name == "snapshots" and (repository := folder.parent.parent.name).startswith("models--"):
        return repository.split("--")[-1]
    return folder.name or path.stem


def _of_repository(text: str) -> Architecture | None:
    """Return the catalogue's model of a Hugging Face name, `OWNER/NAME`."""
    if text.count("/") != 1:
        return None
    named = text.lower()
    stem = re.sub(r"^meta-", "", named.split("/")[1])
    for model in catalogue().values():
        if f"huggingface.co/{named}/" in model.source.lower():
            return model
    squeezed = [_squeezed(one) for one in (stem, _ENDING.sub("", stem))]
    return next((model for name, model in catalogue().items() if _squeezed(name) in squeezed), None)


def _near(text: str) -> list[str]:
    """Return the catalogue's names that resemble a text, the closest first."""
    last = text.split("/")[-1]
    wanted = _squeezed(last)
    if not wanted:
        return []
    contained = [name for name in catalogue() if wanted in _squeezed(name) or _squeezed(name) in wanted]
    contained.sort(key=lambda name: -len(_squeezed(name)) if _squeezed(name) in wanted else len(name))
    close = difflib.get_close_matches(last.lower(), list(catalogue()), n=4, cutoff=0.6)
    return list(dict.fromkeys((*contained, *close)))


def _squeezed(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def read_model(path: Path) -> Architecture:
    """Return the model in a file: JSON as in Hugging Face, YAML with kvdeck's, KVBench's or Hugging Face's fields.

    Raises:
        UsageError: The file can't be read, or a key is missing, unknown or invalid.
    """
    try:
        return _read_model(path)
    except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError) as error:
        # Foreign files have hundreds of keys; the readers don't check the type of each one.
        raise UsageError(
            f"{path} has an invalid value: {error}", "compare it with the model's published file"
        ) from error


def _read_model(path: Path) -> Architecture:
    if path.suffix == ".json":
        beside = path.with_name(QUANTIZATION_FILE)
        return huggingface.architecture(
            _read_json(path), model_name(path), _read_json(beside) if is_regular(beside) else None
        )
    data = read_yaml(path)
    if not isinstance(data, Mapping):
        raise UsageError(f"{path} is not a mapping", "write one `key: value` per line")
    if "model_name" in data:
        return kvbench.architecture(data, str(path))
    if "architectures" in data or "model_type" in data:
        return huggingface.architecture(data, path.stem)
    kvbench.check_name_key(data, str(path))
    return from_mapping(data, str(path))


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        data = load_json(read_regular(path), infinite=True)
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}", "give the path of a config.json") from error
    except DocumentError as error:
        raise UsageError(f"{path} is not valid JSON: {error}", "correct the file") from error
    if not isinstance(data, Mapping):
        raise UsageError(f"{path} is not a JSON object", "give a model's config.json")
    return data


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file.

    Raises:
        UsageError: The file can't be read or is not YAML.
    """
    try:
        return load_yaml(read_regular(path))
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}", "give the path of a YAML file") from error
    except DocumentError as error:
        raise UsageError(f"{path} is not valid YAML: {error}", "correct the file") from error


def from_mapping(data: Mapping[str, Any], source: str) -> Architecture:
    """Return the model in a mapping with kvdeck's fields, as in the catalogue.

    Args:
        source: Name of the file in error messages.

    Raises:
        UsageError: A key is missing, unknown or invalid.
    """
    kvbench.check_keys(data, _FIELDS, ("name", "layers", "kinds"), source)
    name, layers = str(data["name"]), checked_layers("layers", data["layers"], source)
    if not isinstance(data["kinds"], Mapping) or not data["kinds"]:
        raise UsageError(f"kinds in {source} is not a mapping", "write kinds: {full: {kv_heads: 8, head_dim: 128}}")
    kinds = {str(word): _kind(str(word), fields, source) for word, fields in data["kinds"].items()}
    listed = data.get("pattern") or list(kinds)[:1]
    if not isinstance(listed, list):
        raise UsageError(f"pattern in {source} is {cut(listed)}", f"list kinds: [{', '.join(kinds)}]")
    pattern = [str(word) for word in listed]
    if unknown := [word for word in pattern if word not in kinds]:
        raise UsageError(f"pattern in {source} names {unknown[0]!r}", f"use {', '.join(kinds)}")
    heads, parameters = data.get("query_heads"), data.get("parameters")
    return Architecture(
        name,
        tuple(kinds.values()),
        bytes(list(kinds).index(pattern[layer % len(pattern)]) for layer in range(layers)),
        None if heads is None else checked_count("query_heads", heads, source),
        None if parameters is None else checked_count("parameters", parameters, source),
        str(data.get("source") or source),
        str(data.get("title") or name),
    )


def _kind(word: str, fields: Any, source: str) -> Kind:
    if not isinstance(fields, Mapping):
        raise UsageError(f"kind {word} in {source} is not a mapping", "write {kv_heads: 8, head_dim: 128}")
    kvbench.check_keys(fields, _KIND_FIELDS, (), f"kind {word} of {source}")
    if not fields:
        return Kind(word, ())
    state = _state(word, fields["state"], source) if "state" in fields else None
    if set(fields) == {"state"}:
        return Kind(word, (), state=state)
    counts = {key: checked_count(key, value, source) for key, value in fields.items() if key not in _NO_COUNTS}
    window = counts.pop("window", None)
    if "compressed" in fields or fields.get("shared_kv"):
        return _shared_kind(word, fields, counts, window, source)
    if "latent" in counts:
        parts = latent(counts["latent"], counts.get("rope", 0), counts.get("indexer_bytes", 0))
    else:
        kvbench.check_keys(fields, _KIND_FIELDS, ("kv_heads", "head_dim"), f"kind {word} of {source}")
        parts = keys_and_values(counts["kv_heads"], counts["head_dim"], counts.get("value_dim"))
    return Kind(word, parts, window, bool(fields.get("chunked")), state)


def _shared_kind(word: str, fields: Mapping[str, Any], counts: Mapping[str, int], window: int | None,
                 source: str) -> Kind:  # fmt: skip
    """Return a kind whose K and V are one vector, with compressed entries beside its window if it has them."""
    where = f"kind {word} of {source}"
    allowed = ("kv_heads", "head_dim", "shared_kv", "window", "rope", "compressed")
    kvbench.check_keys(fields, allowed, ("kv_heads", "head_dim", "shared_kv"), where)
    vector = shared_vector(counts["kv_heads"], counts["head_dim"], counts.get("rope", 0))
    entries = fields.get("compressed")
    if entries is None:
        return Kind(word, (vector,), window)
    if not isinstance(entries, Mapping):
        raise UsageError(f"compressed in {where} is not a mapping", "write {every: 4, indexer_bytes: 132}")
    kvbench.check_keys(entries, ("every", "indexer_bytes"), ("every",), f"compressed in {where}")
    numbers = {key: checked_count(key, value, source) for key, value in entries.items()}
    if window is None or numbers["every"] < 2:
        raise UsageError(f"compressed in {where} needs a window, and every of 2 or more", "add them")
    return compressed_kind(word, vector, window, numbers["every"], numbers.get("indexer_bytes", 0))


def _state(word: str, fields: Any, source: str) -> State:
    if not isinstance(fields, Mapping) or "kind" not in fields:
        raise UsageError(f"state of {word} in {source} is not a mapping with a kind", "write {kind: mamba2, …}")
    return state_of(str(fields["kind"]), {key: value for key, value in fields.items() if key != "kind"}, source)
