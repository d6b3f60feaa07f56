"""A row that is drawn into, column by column: what comes later lies over what was there."""

from __future__ import annotations

from kvdeck.app.tui.widgets.lines import Row, Span


class Cells:
    """So many columns of characters of one column each, with a style for each."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._characters = [" "] * width
        self._styles = [""] * width

    def put(self, x: int, text: str, style: str = "") -> None:
        """Write a text; what lies outside is left out."""
        for place, character in enumerate(text, x):
            if 0 <= place < self.width:
                self._characters[place], self._styles[place] = character, style

    def middle(self, x: int, text: str, style: str = "") -> None:
        """Write a text around a column."""
        self.put(x - len(text) // 2, text, style)

    def right(self, x: int, text: str, style: str = "") -> None:
        """Write a text that ends before a column."""
        self.put(x - len(text), text, style)

    def row(self) -> Row:
        """The row, runs of one style merged; blanks go with what stands before them."""
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
