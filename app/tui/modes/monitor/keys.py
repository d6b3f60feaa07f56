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
    _key("z", "zoom", "zoom", "zoom", "This pane alone, and back", show=True),
    _key("v", "view", "next", "view", "Another pane below the tiers, where there is room for one", show=True),
    _key("left_square_bracket", "step(-1)", "back", "back", "A second back; the data goes on", show=True, display="["),
    _key("right_square_bracket", "step(1)", "on", "on", "A second on", display="]"),
    _key("left_curly_bracket", "leap(-1)", "far back", "far-back", "Half a minute back", display="{"),
    _key("right_curly_bracket", "leap(1)", "far on", "far-on", "Half a minute on", display="}"),
    _key("home", "seek_begin", "begin", "begin", "To the first moment that is kept"),
    _key("end", "seek_end", "newest", "end", "To the newest moment"),
    _key("l", "live", "live", "live", "To what is now, and out of a recording", show=True),
    _key("a", "annotate", "mark", "annotate", "Note this moment: `load started`", show=True),
    _key("R", "record", "rec", "record", "Record what is watched into a session, or end that", show=True),
    _key("s", "sources", "sources", "sources", "What is found on this host, and what of it to watch", show=True),
    _key("b", "series", "series", "series", "Every series, known or not; space pins one", show=True),
    _key("minus", "faster(-1)", "slower", "slower", "Ask less often, or replay slower", display="-"),
    _key("plus,equals_sign", "faster(1)", "faster", "faster", "Ask more often, or replay faster", display="+"),
    _key("B", "block", "block bytes", "block", "Bytes of a KVBM block: its blocks become bytes"),
    _key("o", "open", "open recording", "open", "Replay a recording here"),
    _key("escape", "back", "Back", "escape", "Out of the zoom, to what is now, out of a recording"),
]
