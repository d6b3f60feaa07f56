"""Only cells that differ are sent, and the terminal shows the same as if all were."""

from __future__ import annotations

import os
import unicodedata

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.color import ColorSystem
from rich.control import Control
from rich.segment import Segment
from rich.style import Style

from kvdeck.app.tui.terminal_picture import TerminalPicture
from tests.support.programs.terminal import Terminal

WIDTH, HEIGHT = 12, 3
HANGUL = "\u1112\u1161\u11ab"
"""One syllable of two columns, as three characters; macOS names its files so."""
MOST_BYTES = 15_000
OPENED = {
    "?": "Esc closes",
    "x": "Cancel",
    ":": "Search for commands",
    "1": "KV cache",
    "4": "session yet",
    "9": "plugins",
    "2": "Steps",
}
"""Keys, and what stands on the screen that they open."""
LIVE = """
from kvdeck.app.tui.messages import EngineChanged
from kvdeck.app.tui.app import Deck
from kvdeck.app.tui.requests import Requests
from tests.support.builders import run as a_run
class Live(Deck):
    def on_mount(self):
        super().on_mount()
        self.doctor = a_run.doctor()
        self.post_message(EngineChanged(a_run.live()))
Live(requests=Requests(live=False)).run()
"""
STYLES = [
    Style(),
    Style(color="#ff0000", bgcolor="#000000"),
    Style(color="#00ff00", bgcolor="#000000", bold=True),
    Style(color="#00ff00", bgcolor="#202020"),
    Style(reverse=True),
    Style(underline=True, color="#0000ff"),
]


def whole(rows: list[list[tuple[str, Style]]]) -> list[Segment]:
    found = []
    for y, row in enumerate(rows):
        found += [Control.move_to(0, y).segment, *(Segment(text, style) for text, style in row)]
    return found


def cells(screen: pyte.Screen) -> list[list[tuple[object, ...]]]:
    """What can be seen of each cell: the ink of a blank can't, unless it is underlined or reversed."""
    found = []
    for y in range(HEIGHT):
        row = []
        for x in range(WIDTH):
            cell = screen.buffer[y][x]
            shown = cell.underscore, cell.reverse
            ink = (cell.fg, cell.bold) if cell.data != " " or any(shown) else None
            row.append((cell.data, cell.bg, *shown, ink))
        found.append(row)
    return found


class Composing(pyte.Screen):
    """A terminal that draws a decomposed syllable as one character, as real ones do.

    It is a column wider than what is drawn: pyte wraps a mark behind the last column.
    """

    def __init__(self) -> None:
        super().__init__(WIDTH + 1, HEIGHT)

    def draw(self, data: str) -> None:
        super().draw(unicodedata.normalize("NFC", data))


def as_rich_renders(segments: list[Segment]) -> str:
    return "".join(
        segment.text if segment.control else (segment.style or Style()).render(segment.text, legacy_windows=False)
        for segment in segments
    )


def filled(pieces: list[str]) -> list[str]:
    """The pieces that fit the width, and blanks; a row's first character is no mark."""
    while pieces and (sum(map(cell_len, pieces)) > WIDTH or not cell_len(pieces[0])):
        pieces = pieces[1:]
    return pieces + [" "] * (WIDTH - sum(map(cell_len, pieces)))


texts = st.lists(st.sampled_from(["a", "b", " ", "–", "漢", "\u0301", HANGUL]), max_size=WIDTH).map(filled)
frames = st.lists(
    st.lists(st.tuples(texts, st.sampled_from(STYLES), st.sampled_from(STYLES), st.integers(0, WIDTH)), min_size=HEIGHT,
             max_size=HEIGHT),
    min_size=1, max_size=4,
)  # fmt: skip


@given(frames)
@settings(max_examples=100)
def test_the_terminal_shows_each_frame_as_if_it_was_sent_as_a_whole(found):
    picture, screen, plain = TerminalPicture(), Composing(), Composing()
    changed, sent = pyte.Stream(screen), pyte.Stream(plain)
    for frame in found:
        rows = [[("".join(text[:cut]), left), ("".join(text[cut:]), right)] for text, left, right, cut in frame]
        changed.feed(picture.sequence(whole(rows), ColorSystem.TRUECOLOR))
        sent.feed(as_rich_renders(whole(rows)))
        assert cells(screen) == cells(plain)
        for y, row in enumerate(rows):
            shown = "".join(screen.buffer[y][x].data for x in range(WIDTH))
            assert shown == unicodedata.normalize("NFC", "".join(text for text, _ in row))
        assert picture.sequence(whole(rows), ColorSystem.TRUECOLOR) == ""


@pytest.mark.parametrize(
    "text", ["\u1100\u1161", HANGUL, "1\ufe0f\u20e3 ", "漢\u0301", "👨\u200d👩\u200d👧", "e\u0301", "\u0301"]
)
def test_what_stands_behind_a_character_of_several_is_sent_to_its_own_column(text: str):
    """Whatever a text takes, Textual counts it with `cell_len`, and so does the picture."""
    picture = TerminalPicture()
    picture.sequence(whole([[(text + "abc", STYLES[1])]]), ColorSystem.TRUECOLOR)
    sent = picture.sequence(whole([[(text + "abX", STYLES[1])]]), ColorSystem.TRUECOLOR)
    assert sent.startswith(f"\x1b[1;{cell_len(text) + 3}H")


def test_a_wide_character_that_gives_way_leaves_no_half():
    picture, screen = TerminalPicture(), pyte.Screen(WIDTH, HEIGHT)
    stream = pyte.Stream(screen)
    for text in ("漢字ab", "a漢字b", "abcdef"):
        stream.feed(picture.sequence(whole([[(text, STYLES[1])]]), ColorSystem.TRUECOLOR))
        assert screen.display[0].startswith(text)


def test_a_forgotten_picture_is_sent_again():
    picture = TerminalPicture()
    frame = whole([[("ab", STYLES[1])]])
    first = picture.sequence(frame, ColorSystem.TRUECOLOR)
    assert picture.sequence(frame, ColorSystem.TRUECOLOR) == ""
    picture.forget()
    assert picture.sequence(frame, ColorSystem.TRUECOLOR) == first


def test_opening_a_dialog_or_a_mode_sends_few_bytes():
    deck = Terminal((120, 40), program=LIVE)
    try:
        assert deck.shows("HostToDisk"), "the run is not shown"
        rest(deck)
        spent = {}
        for key, shown in OPENED.items():
            os.write(deck.master, key.encode())
            assert deck.shows(shown), shown
            spent[key] = rest(deck)
            if not key.isdigit():
                os.write(deck.master, b"\x1b")
                assert deck.hides(shown), shown
                spent[f"{key}, closed"] = rest(deck)
        assert max(spent.values()) <= MOST_BYTES, spent
    finally:
        deck.close()


def rest(deck: Terminal) -> int:
    """Take what still comes; return the bytes since the last rest."""
    while deck.read(0.3):
        pass
    count, deck.taken = len(deck.taken), b""
    return count
