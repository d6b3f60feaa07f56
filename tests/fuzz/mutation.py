"""Mutations of a file or a message: of bytes, of words, of values, and of the whole; the same for the same seed."""

from __future__ import annotations

import gzip
import json
import random
import re
import zlib
from collections.abc import Callable
from typing import Any

import yaml

WORDS = re.compile(rb"[A-Za-z_]+|[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|[^\sA-Za-z0-9_]|\n")
RAW = (
    *(b"", b"0", b"-1", b"1e308", b"1e400", b"-0.0", b"1_0", b"0x10", b"9223372036854775808", b"18446744073709551616"),
    *(b"9" * 25, b"9" * 5000, b"NaN", b"Infinity", b"-Infinity", b".nan", b".inf", b"null", b"true", b"~", b"[]"),
    *(b'""', b'"\\ud800"', b'"\\u0000"', b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\x1b]52;c;eA==\x07"),
    *(b"\xe2\x80\xae", b"{}"),
    *(b"[" * 100, b"[" * 5000, b'{"a":' * 300, b"\n", b"\r\n", b"\t", b"'", b'"', b"|", b",", b":", b"# ", b"---\n"),
    *(b"&a [*a]", b"*a", b"!!timestamp 2001-01-01", b"2001-01-01", b"!!python/object:os.system {}", b"!!binary aGk="),
    *(b"<<: ", b"%TAG ! x\n", b"? ", b"=cmd|' /C calc'!A0", b"../../x", b"x" * 70_000),
)  # fmt: skip
"""What is put in place of a word, or between words."""
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 0.5, -0.0, 1e308, -1e308, 5e-324, float("nan"), float("inf"), float("-inf")),
    *(2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**30, 10**400),
    *("", " ", "x", "0", "-1", "1e9", "9" * 5000, "NaN", "null", "a\nb", "\x00", "\x1b[31m", "\u202eabc", "\ud800"),
    *("💥", "../../x", "/dev/zero", "user:secret@host", "x" * 70_000, "HostToHost", "running", "queued"),
    *("watched", "telemetry", "recorded", "trace"),
    *([], {}, [[]], [None], [{}], {"": None}, {"kind": "x"}, [1, "2", None], [0] * 3000, {"a": {"b": {"c": []}}}),
)  # fmt: skip
"""What is put in place of a value."""


def mutated(name: str, data: bytes, rng: random.Random) -> bytes:
    """The file's bytes, changed in one to three places.

    Args:
        name: Says by its end whether it holds JSON, lines of JSON, YAML or text, and whether it is packed.
    """
    packed = name.endswith(".gz")
    if packed and rng.random() < 0.7:
        data = _unpacked(data)
        return gzip.compress(mutated(name.removesuffix(".gz"), data, rng), 1, mtime=0)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(_OF_VALUES if rng.random() < 0.6 else _OF_TEXT)(name, data, rng)
    return data


def _unpacked(data: bytes) -> bytes:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return data


# --- bytes and words ---


def _bytes(_: str, data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    way = rng.randrange(4)
    if way == 0:
        return data[:place] + rng.randbytes(rng.randrange(1, 9)) + data[place + 1 :]
    if way == 1:
        return (
            data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]
            if data[place:]
            else b"\x00"
        )
    end = min(len(data), place + rng.choice((1, 8, 64, 512)))
    return data[:place] + data[end:] if way == 2 else data[:end] + data[place:end] * rng.choice((1, 2, 50)) + data[end:]


def _cut(_: str, data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    return rng.choice(
        (data[:place], data[place:], b"", data + data, b"\xef\xbb\xbf" + data, data.decode("latin-1").encode("utf-16"))
    )


def _word(_: str, data: bytes, rng: random.Random) -> bytes:
    found, other = (WORDS.search(data, rng.randrange(len(data) + 1)) for _ in range(2))
    if found is None:
        return data + rng.choice(RAW)
    way = rng.randrange(4)
    new = other[0] if way == 0 and other is not None else rng.choice(RAW)
    start, end = found.span()
    return data[: end if way == 1 else start] + new + data[end:]


def _line(_: str, data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    place, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    way = rng.randrange(4)
    if way == 0:
        del lines[place]
    elif way == 1:
        lines.insert(other, lines[place])
    elif way == 2:
        lines[place], lines[other] = lines[other], lines[place]
    else:
        lines[place] = lines[place] * rng.choice((2, 30))
    return b"\n".join(lines)


# --- values ---


def _value(name: str, data: bytes, rng: random.Random) -> bytes:
    """Change a value inside, at random depth."""
    kind = next((kind for kind in (".jsonl", ".json", ".yaml") if kind in name), "")
    if kind == ".jsonl":
        lines = data.split(b"\n")
        place = rng.randrange(len(lines))
        lines[place] = _json_changed(lines[place], rng)
        return b"\n".join(lines)
    if kind == ".json":
        return _json_changed(data, rng)
    return _yaml_changed(data, rng) if kind == ".yaml" else _word(name, data, rng)


def _json_changed(data: bytes, rng: random.Random) -> bytes:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return _word("", data, rng)
    try:
        return json.dumps(_changed(value, rng), separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        return data


def _yaml_changed(data: bytes, rng: random.Random) -> bytes:
    try:
        value = yaml.load(data, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return yaml.safe_dump(_changed(value, rng), sort_keys=False, allow_unicode=True).encode(
            "utf-8", "surrogatepass"
        )
    except (yaml.YAMLError, ValueError, RecursionError, TypeError):
        return _word("", data, rng)


def _changed(value: Any, rng: random.Random) -> Any:
    """The value with one of its parts, or itself, replaced."""
    places = list(_places(value))
    if not places:
        return rng.choice(VALUES)
    holder, key = rng.choice(places)
    way = rng.randrange(10)
    if way == 0:
        del holder[key]
    elif way == 1 and isinstance(holder, dict):
        holder[rng.choice(("x", "", key + "_", "\u202e", "kind", "state"))] = holder.pop(key)
    elif way == 2:
        other, name = rng.choice(places)
        if name in (other if isinstance(other, dict) else range(len(other))):
            holder[key] = json.loads(json.dumps(other[name]))
    elif way == 3 and isinstance(holder, list):
        holder.extend([holder[key]] * rng.choice((1, 2, 1000)))
    elif way == 4:
        holder[key] = _deep(holder[key], rng.choice((2, 70, 260, 900)))
    elif way == 5 and isinstance(holder[key], (int, float)) and not isinstance(holder[key], bool):
        number = holder[key]
        if isinstance(number, int) and number.bit_length() > 1000:  # no float holds it, and its text may be refused
            holder[key] = rng.choice((number * -1, number * 10**9, number // 7, str(number % 10**9), [number]))
        else:
            holder[key] = rng.choice((number * -1, number * 1e9, number / 7, str(number), [number]))
    else:
        holder[key] = rng.choice(VALUES)
    return value


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every holder and key below a value."""
    found: list[tuple[Any, Any]] = []
    open_values = [value]
    while open_values and len(found) < 5000:
        holder = open_values.pop()
        if isinstance(holder, (dict, list)):
            keys = list(holder) if isinstance(holder, dict) else range(len(holder))
            found += [(holder, key) for key in keys]
            open_values += [holder[key] for key in keys]
    return found


def _deep(value: Any, depth: int) -> Any:
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


_OF_TEXT: tuple[Callable[[str, bytes, random.Random], bytes], ...] = (_bytes, _bytes, _cut, _word, _word, _word, _line)
_OF_VALUES: tuple[Callable[[str, bytes, random.Random], bytes], ...] = (_value,)
