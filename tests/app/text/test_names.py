"""Names are the field's."""

from __future__ import annotations

from kvdeck.app.text.names import layout_slug, path_slug
from kvdeck.engine.planning.layout import FULLY_CONTIGUOUS, LAYER_SEPARATE, LAYER_SEPARATE_OUTER, LayoutPair


def test_a_layout_has_a_colour_of_its_own():
    layouts = (FULLY_CONTIGUOUS, LAYER_SEPARATE, LAYER_SEPARATE_OUTER, LayoutPair(LAYER_SEPARATE, FULLY_CONTIGUOUS))
    assert len({layout_slug(str(layout)) for layout in layouts}) == 4


def test_small_words():
    assert path_slug("HostToDisk") == "host-to-disk"
