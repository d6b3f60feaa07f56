"""Pages of memory in a result's settings, of this version and of earlier ones."""

from __future__ import annotations

from typing import Any

import pytest

from kvdeck.sessions.model.step_pages import pages_kind, pages_said

HUGE, PLAIN = "transparent huge pages", "4 KiB pages"


@pytest.mark.parametrize(
    ("settings", "said", "kind"),
    [
        ({"pages": [HUGE], "huge_pages": True}, HUGE, HUGE),
        ({"pages": [PLAIN], "huge_pages": False}, PLAIN, "plain pages"),
        ({"pages": [HUGE, PLAIN], "huge_pages": False}, f"{HUGE} and {PLAIN}", "partly huge pages"),
        ({"pages": [f"60 % {HUGE} and 40 % {PLAIN}"]}, f"60 % {HUGE} and 40 % {PLAIN}", "partly huge pages"),
        ({"huge_pages": True}, "huge pages, not checked", "huge pages, not checked"),
        ({"huge_pages": False}, "", "plain pages"),
        ({"pages": [], "huge_pages": True}, "", ""),
        ({}, "", ""),
    ],
)
def test_what_was_found_is_said_and_compared(settings: dict[str, Any], said: str, kind: str) -> None:
    assert (pages_said(settings), pages_kind(settings)) == (said, kind)
