"""Messages that are pushed to the screens, and those by which one mode reaches another.

A message that carries a state may be replaced by a newer one of its type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:
    from kvdeck.app.tui.current_plan import BlockChoice
    from kvdeck.app.tui.state import EngineState
    from kvdeck.engine.protocol import RecordingState
    from kvdeck.engine.telemetry.sample import Snapshot as Sample


@dataclass
class EngineChanged(Message):
    """A newer state of the engine and its runs."""

    state: EngineState

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, EngineChanged)


@dataclass
class TelemetrySampled(Message, bubble=False):
    """The newest telemetry sample, or why there is none."""

    sample: Sample
    error: str = ""
    packed: bytes = b""
    """The sample compressed for the history, if that is done already."""

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, TelemetrySampled)


@dataclass
class PastSampled(Message, bubble=False):
    """A sample that the engine took before the screen received samples; older ones come first."""

    sample: Sample
    packed: bytes
    """The sample compressed for the history."""
    left: int
    """Number of past samples that follow."""


@dataclass
class RecordingsSeen(Message, bubble=False):
    """The telemetry recordings of the engine."""

    recordings: tuple[RecordingState, ...]

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, RecordingsSeen)


@dataclass
class ReplayAsked(Message, bubble=False):
    """Request to open a recording in the Monitor."""

    name: str


@dataclass
class BlockChosen(Message, bubble=False):
    """Request to take a plan's block into the Run form."""

    block: BlockChoice
