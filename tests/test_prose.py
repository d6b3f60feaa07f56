"""Words that don't belong in texts, docstrings, comments or documents, and participles as module names."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("app", "engine", "sessions")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

EVERYWHERE = re.compile(
    r"\b(?:"
    r"for ever|for aye|deed|whoever|whomever|nobody|somebody|everybody"
    r"|mends?|mended|mending"
    r"|as far as (?:it|they|one|anything) (?:is|are|can)"
    r"|a hand on|of what (?:is|was|it|there)|for what it|says? nothing|said nothing|nothing of it|no more than a"
    r"|walk(?:s|ed)? over|goes on|go on|going on|goes on as|so many times|so much as"
    r"|(?:is|are|was|were|as it is|unless it is|not|been) (?:told|asked of|wanted)"
    r"|without a word|by hand|at hand|in all(?= [,.)])|(?:some|any)thing else than|other than it should"
    r"|all the same|no sooner|gone backwards|went backwards|counted anew|made anew"
    r"|made durable|(?:taken|takes it|take it) away|set aside|left alone|this is a fault of|the fullest"
    r"|is no (?:whole|JSON|folder|mapping|object|text|number|list|regular|telemetry|address|http)"
    r"|are no multiple"
    r")\b",
    re.IGNORECASE,
)
"""Phrases of no plain technical English; each has a plain one in its place (see the design's list of words)."""

TEXTS = re.compile(
    r"\b(?:"
    r"told|(?<!can't )tells?(?! me)|asked|(?<!: )wanted|moments?|unwatched|watched"
    r"|(?:bytes|blocks?|descriptors?|requests?|samples?|times|rows?|one) an? (?:second|block|request|line)"
    r"|once a second|try:"
    r")\b",
    re.IGNORECASE,
)
"""Further words that an operator must not meet: everyday verbs for data, and rates without `per`."""

QUOTED = ("this moment", "watched", "a moment ago")
"""Texts in which a word of TEXTS is plain English, or an argument that a user types."""

NAMED_FOR_WHAT_IT_DOES = re.compile(r"(?:ing|ed)$")
NOUNS = {
    "planning": "the field's noun: engine/planning computes plans",
    "encoding": "the field's noun: how records are written and read",
    "tracing": "the field's noun: engine/tracing counts the transfers of other programs",
    "meeting": "a noun: where the ranks of a run meet",
    "recording": "a noun: a telemetry session of the Monitor",
    "pacing": "the field's noun: pacing of a terminal's output",
    "tuning": "the field's noun: choice of settings before a run",
    "nixl_ring": "a ring buffer",
    "unfinished": "partial results of a run that didn't finish",
}
"""Module names that end like a participle and are nouns of the field, with the reason."""


def _literals(source: str) -> Iterator[tuple[int, str, bool]]:
    """Yield line, text and whether an operator may see it, of every string and comment in a source file."""
    tree = ast.parse(source)
    docstrings = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value, id(node) not in docstrings and " " in node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string, False


def _without_names(text: str) -> str:
    """Return a text without names in backticks, and "" for the old JSON field `mend`."""
    return "" if text == "mend" else re.sub(r"`[^`\n]*`", lambda name: "_" * len(name[0]), text)


def faults(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and phrase for every phrase in a source file that doesn't belong."""
    for line, text, shown in _literals(source):
        for found in EVERYWHERE.finditer(_without_names(text)):
            yield line + text.count("\n", 0, found.start()), found[0]
        if shown and not any(quoted in text for quoted in QUOTED):
            for found in TEXTS.finditer(text):
                yield line, found[0]


def test_texts_docstrings_and_comments_are_plain() -> None:
    wrong = [f"{path.relative_to(ROOT)}:{line}: {word}" for path in FILES for line, word in faults(path.read_text())]
    assert not wrong, "\n".join(wrong)


def test_documents_are_plain() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {found[0]}"
        for path in DOCUMENTS
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for found in EVERYWHERE.finditer(_without_names(line))
    ]
    assert not wrong, "\n".join(wrong)


def test_modules_are_nouns() -> None:
    names = {path.stem for path in FILES} | {path.parent.name for path in FILES}
    participles = {name for name in names if NAMED_FOR_WHAT_IT_DOES.search(name.rpartition("_")[2])}
    assert participles - NOUNS.keys() == set()
    assert NOUNS.keys() <= names, "an exception without a module"


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ('"""It runs for ever."""', "for ever"),
        ("x = 1  # what mends it", "mends"),
        ('say("PCIe throughput is not told")', "not told"),
        ('say("2 moments left")', "moments"),
        ('say(f"{n} blocks a request")', "blocks a request"),
        ('def f():\n    """One.\n\n    A run is going on.\n    """', "going on"),
    ],
)
def test_such_words_are_found(source: str, word: str) -> None:
    assert word in [found for _, found in faults(source)]


def test_plain_words_are_not_found() -> None:
    plain = 'x = "file not found"  # keep it open\nasked = {"watched": 1, "moments": []}\n"""Return a block."""\n'
    assert list(faults(plain)) == []
