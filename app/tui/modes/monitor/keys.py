"""The Monitor's keys."""

from __future__ import annotations

from textual.binding import Binding, BindingType

from kvdeck.app.tui.widgets.key_bar import MONITOR


def _key(
    keys: str, action: str, name: str, id: str, tooltip: str, *, show: bool = False, display: str | None = None
) -> Binding:
    return Binding(
        keys, action, name, show=show, key_display=display, id=f"monitor.{id}", tooltip=tooltip, group=MONITOR
    )


KEYS: list[BindingType] = [
    _key(
        "z",
        "zoom",
        "zoom",
        "zoom",
        "Zoom the pane, or chart the flow at the cursor; again: leave",
        show=True,
    ),
    _key("v", "view", "next", "view", "Show another pane in the place below the tiers", show=True),
    _key(
        "left_square_bracket", "step(-1)", "back", "back", "Go back 1 s (collection continues)", show=True, display="["
    ),
    _key("right_square_bracket", "step(1)", "on", "on", "Go forward 1 s", display="]"),
    _key("left_curly_bracket", "leap(-1)", "far back", "far-back", "Go back 30 s", display="{"),
    _key("right_curly_bracket", "leap(1)", "far forward", "far-on", "Go forward 30 s", display="}"),
    _key("home", "seek_begin", "begin", "begin", "Go to the oldest sample"),
    _key("end", "seek_end", "newest", "end", "Go to the newest sample"),
    _key("l", "live", "live", "live", "Go live, or close the recording", show=True),
    _key("a", "annotate", "mark", "annotate", "Annotate this moment: `load started`", show=True),
    _key("R", "record", "rec", "record", "Start or stop recording into a session", show=True),
    _key("s", "sources", "sources", "sources", "Select the sources to monitor", show=True),
    _key("b", "series", "series", "series", "List all series; space pins one", show=True),
    _key("minus", "faster(-1)", "slower", "slower", "Sample less often, or replay slower", display="-"),
    _key("plus,equals_sign", "faster(1)", "faster", "faster", "Sample more often, or replay faster", display="+"),
    _key("B", "block", "block bytes", "block", "Set the KVBM block size, to convert blocks to bytes"),
    _key("o", "open", "open recording", "open", "Open a recording and replay it"),
    _key("escape", "back", "Back", "escape", "Leave zoom, go live, close the recording"),
]
