"""A row drawn column by column; later text overwrites earlier text."""

from __future__ import annotations

from kvdeck.app.tui.widgets.lines import Row, Span


class Cells:
    """`width` columns of one character each, each with a style."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._characters = [" "] * width
        self._styles = [""] * width

    def put(self, x: int, text: str, style: str = "") -> None:
        """Write text from column x; text outside the row is clipped."""
        for place, character in enumerate(text, x):
            if 0 <= place < self.width:
                self._characters[place], self._styles[place] = character, style

    def middle(self, x: int, text: str, style: str = "") -> None:
        """Write text centred on column x."""
        self.put(x - len(text) // 2, text, style)

    def right(self, x: int, text: str, style: str = "") -> None:
        """Write text that ends before column x."""
        self.put(x - len(text), text, style)

    def at(self, x: int) -> str:
        """Return the character in column x; a space outside the row."""
        return self._characters[x] if 0 <= x < self.width else " "

    def row(self) -> Row:
        """Return the row with runs of one style merged; blanks join the run before them."""
        spans: list[Span] = []
        styles, start = self._styles, 0
        text = "".join(self._characters)
        while start < self.width:
            end = start + 1
            style = styles[start]
            while end < self.width and (styles[end] == style or self._characters[end] == " "):
                end += 1
            spans.append((text[start:end], style))
            start = end
        return tuple(spans)
