"""Only cells that differ are sent, and the terminal shows the same as if all were."""

from __future__ import annotations

import os

import pyte
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.color import ColorSystem
from rich.control import Control
from rich.segment import Segment
from rich.style import Style

from kvdeck.app.tui.terminal_picture import TerminalPicture
from tests.support.programs.terminal import Terminal

WIDTH, HEIGHT = 12, 3
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


texts = st.text("ab –", min_size=WIDTH, max_size=WIDTH)
frames = st.lists(
    st.lists(st.tuples(texts, st.sampled_from(STYLES), st.sampled_from(STYLES), st.integers(0, WIDTH)), min_size=HEIGHT,
             max_size=HEIGHT),
    min_size=1, max_size=4,
)  # fmt: skip


@given(frames)
@settings(max_examples=60)
def test_the_terminal_shows_each_frame_as_if_it_was_sent_as_a_whole(found):
    picture, screen, plain = TerminalPicture(), pyte.Screen(WIDTH, HEIGHT), pyte.Screen(WIDTH, HEIGHT)
    changed, sent = pyte.Stream(screen), pyte.Stream(plain)
    for frame in found:
        rows = [[(text[:cut], left), (text[cut:], right)] for text, left, right, cut in frame]
        changed.feed(picture.sequence(whole(rows), ColorSystem.TRUECOLOR))
        sent.feed(TerminalPicture().sequence(whole(rows), ColorSystem.TRUECOLOR))
        assert cells(screen) == cells(plain)
        for y, row in enumerate(rows):
            assert "".join(screen.buffer[y][x].data for x in range(WIDTH)) == "".join(text for text, _ in row)
        assert picture.sequence(whole(rows), ColorSystem.TRUECOLOR) == ""


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
