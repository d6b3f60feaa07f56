"""All YAML and JSON that is read: one loader, with limits, and errors in one line.

`load_yaml` and `load_json` read what a person or another tool has written; `load_record` reads kvdeck's own records
and messages, and is fast.

YAML is read by YAML 1.2's core rules: `true` and `false` are the only booleans, dates are text, `010` is ten. What
could not mean anything here is refused: tags, repeated keys, what refers to itself or grows without end by aliases.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import yaml

MAX_YAML = 1 << 20
"""Bytes; parsing that many takes about half a second."""
MAX_JSON = 8 << 20
MAX_DEPTH = 64
MAX_VALUES = 200_000
"""Values that a document may hold, those that aliases repeat counted each time."""
_INT64 = (-(1 << 63), (1 << 64) - 1)
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_LONG = b"0" * 19
_LONG_INT = re.compile(rb"(?<![0-9.eE+])-?[0-9]{19,}(?![0-9.eE])")
_TAG = "tag:yaml.org,2002:"
_SCALARS = ("null", "bool", "int", "float", "str", "timestamp", "merge", "value")
_NULL = re.compile(r"|~|null|Null|NULL")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class DocumentError(ValueError):
    """What is wrong with a document, in one line, with the line where it is wrong."""


class RefusedError(DocumentError):
    """The document is whole, and holds what is refused here: a key twice, or a number that fits nowhere."""


def load_yaml(data: bytes, most: int = MAX_YAML) -> Any:
    """A YAML document's content; null for an empty one.

    Args:
        data: Its text.
        most: Largest number of bytes; more than `MAX_YAML` only of what kvdeck itself has written.

    Raises:
        DocumentError: It is no YAML, or holds what is refused here.
    """
    import yaml

    text = _text(data, most)
    # The C loader is several times as fast; a build of PyYAML may lack it.
    loader_type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        loader = loader_type(text)
        try:
            # Nodes, not values: the library's own constructor follows YAML 1.1, and expands aliases without a limit.
            node = loader.get_single_node()
        finally:
            loader.dispose()
        return None if node is None else _Composer().value(node, 1)
    except yaml.MarkedYAMLError as error:
        where = error.problem_mark or error.context_mark
        _fail(" ".join(str(error.problem or error.context or "can't be read").split()), where)
    except yaml.YAMLError as error:
        raise DocumentError(" ".join(str(error).split())[:200]) from error
    except (RecursionError, MemoryError) as error:
        raise DocumentError(f"it is nested deeper than {MAX_DEPTH}") from error


def dump_yaml(value: Any) -> str:
    """Plain values as YAML that `load_yaml` reads back the same, in the order that they have."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes what is text in YAML 1.1, by whose rules the library writes, and a number by those it is read by."""

    def text(dumper: yaml.SafeDumper, data: str) -> yaml.ScalarNode:
        return dumper.represent_scalar(_TAG + "str", data, None if _is_text(data) else "'")

    Dumper.add_representer(str, text)
    return str(yaml.dump(value, Dumper=Dumper, sort_keys=False))


def _is_text(text: str) -> bool:
    return not any(pattern.fullmatch(text) for pattern in (_NULL, _BOOL, _INT, _FLOAT))


def load_json(data: bytes, *, infinite: bool = False) -> Any:
    """A JSON document's content.

    Args:
        data: Its text.
        infinite: `Infinity` and `NaN` are numbers, as Python writes them: a model's config.json has them in limits.

    Raises:
        DocumentError: It is not JSON, or has content that isn't supported.
    """
    text = _text(data, MAX_JSON)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_int=_whole,
            parse_float=_finite,
            parse_constant=float if infinite else _no_constant,
        )
    except DocumentError:
        raise
    except json.JSONDecodeError as error:
        raise DocumentError(f"line {error.lineno}: {error.msg}") from error
    except RecursionError as error:
        raise DocumentError(f"it is nested deeper than {MAX_DEPTH}") from error
    _check_depth_and_text(value)
    return value


def load_record(data: bytes | str) -> Any:
    """One of kvdeck's own records or messages, or a line of a child's output; of a repeated key the last counts.

    Raises:
        ValueError: It is not JSON, or nested deeper than `MAX_DEPTH`.
    """
    import orjson  # the first screen draws without it

    value = orjson.loads(data)
    if isinstance(data, str):
        data = data.encode()
    # Counting brackets is far quicker than walking the value, and few records have as many.
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH:
        _check_depth(value)
    return value


def check_record(data: bytes) -> None:
    """Whether a record's text may be decoded by types: nested no deeper than `MAX_DEPTH`, integers within 64 bits.

    Raises:
        DocumentError: It may not.
    """
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and not _is_flat(data):
        depth = 0
        for bracket in _STRING.sub(b"", data).translate(None, _NO_BRACKETS):
            depth += 1 if bracket in b"[{" else -1
            if depth > MAX_DEPTH:
                raise DocumentError(f"it is nested deeper than {MAX_DEPTH}")
    # Digits after a point are many in every sample; the texts are only left out where a whole number may be too long.
    if _LONG in data.translate(_ZEROS) and _LONG_INT.search(data):
        for found in _LONG_INT.finditer(_STRING.sub(b"", data)):
            _whole(found[0].decode())


def _is_flat(data: bytes) -> bool:
    """Return True if brackets nest no deeper than `MAX_DEPTH`; False also if those inside of texts don't match."""
    brackets = data.translate(_ONE_KIND, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        inner = brackets.replace(b"[]", b"")
        if len(inner) == len(brackets):
            break
        brackets = inner
    return not brackets


def _text(data: bytes, limit: int) -> str:
    if len(data) > limit:
        raise DocumentError(f"it has more than {limit >> 20} MiB")
    try:
        # Editors on Windows put a byte order mark first, which neither format has.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DocumentError(f"line {line}: it is not UTF-8 (byte {error.start})") from error


def _fail(what: str, mark: yaml.Mark | None = None) -> NoReturn:
    raise DocumentError(f"line {mark.line + 1}: {what}" if mark is not None else what)


class _Composer:
    """Plain values of one document's nodes, within `MAX_VALUES` and `MAX_DEPTH`.

    A node that aliases repeat is composed once and counted each time, so a document that explodes is refused as soon
    as its size is known, whatever that size is.
    """

    def __init__(self) -> None:
        self._count = 0
        self._open: set[int] = set()
        self._composed: dict[int, tuple[Any, int, int]] = {}

    def value(self, node: yaml.Node, depth: int) -> Any:
        """Return a node's value; `depth` is 1 for the document's own."""
        import yaml

        if isinstance(node, yaml.ScalarNode):
            self._add(1, node)
            return _scalar(node)
        if id(node) in self._open:
            _fail("an alias refers to its own parent", node.start_mark)
        known = self._composed.get(id(node))
        _, count, height = known or (None, 1, 1)
        if depth + height - 1 > MAX_DEPTH:
            _fail(f"it is nested deeper than {MAX_DEPTH}", node.start_mark)
        self._add(count, node)
        return known[0] if known else self._compose(node, depth)

    def _compose(self, node: yaml.Node, depth: int) -> Any:
        import yaml

        before = self._count - 1
        self._open.add(id(node))
        value: Any
        if isinstance(node, yaml.SequenceNode):
            _check_tag(node, "seq")
            value = [self.value(item, depth + 1) for item in node.value]
            items = node.value
        else:
            _check_tag(node, "map")
            value = {}
            items = [item for _, item in node.value]
            for key_node, item in node.value:
                if not isinstance(key_node, yaml.ScalarNode):
                    _fail("a key is not a string", key_node.start_mark)
                key = _scalar(key_node)
                if key in value:
                    _fail(f"the key {key!r} occurs twice", key_node.start_mark)
                value[key] = self.value(item, depth + 1)
        self._open.discard(id(node))
        height = 1 + max((self._composed[id(item)][2] for item in items if id(item) in self._composed), default=0)
        self._composed[id(node)] = value, self._count - before, height
        return value

    def _add(self, count: int, node: yaml.Node) -> None:
        self._count += count
        if self._count > MAX_VALUES:
            _fail(f"it has more than {MAX_VALUES:,} values when its aliases are expanded", node.start_mark)


def _check_tag(node: yaml.Node, kind: str) -> None:
    if node.tag != _TAG + kind:
        _fail(f"the tag {node.tag.replace(_TAG, '!!')} is not supported", node.start_mark)


def _scalar(node: yaml.ScalarNode) -> Any:
    kind = node.tag.removeprefix(_TAG)
    if kind not in _SCALARS and node.tag != "!":
        _check_tag(node, "str")
    if node.style and kind in ("str", "timestamp", "merge", "value", "!"):  # quoted, or a block of text
        return node.value
    return _plain(node.value, node.start_mark)


def _plain(text: str, mark: yaml.Mark | None) -> Any:
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        try:
            return _whole(text)
        except DocumentError as error:
            _fail(str(error), mark)
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _whole(text: str) -> int:
    """An integer within 64 bits."""
    # Before `int`, whose time grows with the square of the digits.
    if len(text) <= 30:
        value = int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if _INT64[0] <= value <= _INT64[1]:
            return value
    shown = text if len(text) <= 30 else f"{text[:10]}… ({len(text):,} digits)"
    raise RefusedError(f"{shown} does not fit in 64 bits")


def _finite(text: str) -> float:
    value = float(text)
    # Neither infinite nor NaN: `1e999` is an infinity to `float`.
    if value - value != 0.0:
        raise RefusedError(f"{text[:30]} is too large a number")
    return value


def _no_constant(text: str) -> NoReturn:
    raise DocumentError(f"{text} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise RefusedError(f"the key {key[:60]!r} occurs twice")
            seen.add(key)
    return found


def _check_depth_and_text(value: Any) -> None:
    level: Iterable[Any] = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                _check_text(item)
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
            elif isinstance(item, str):
                _check_text((item,))
        if not below:
            return
        level = below
    raise DocumentError(f"it is nested deeper than {MAX_DEPTH}")


def _check_depth(value: Any) -> None:
    level: list[Any] = [value] if isinstance(value, (dict, list)) else []
    for _ in range(MAX_DEPTH):
        level = [
            below
            for holder in level
            for below in (holder.values() if isinstance(holder, dict) else holder)
            if isinstance(below, (dict, list))
        ]
        if not level:
            return
    raise DocumentError(f"it is nested deeper than {MAX_DEPTH}")


def _check_text(texts: Iterable[str]) -> None:
    for text in texts:
        # Such a string can't be encoded again: no file or terminal could take it.
        if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
            raise DocumentError("a string has an unpaired surrogate")
