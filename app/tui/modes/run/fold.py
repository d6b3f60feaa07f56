"""The form folded to what was run: the block, the paths and their backends, in two lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvdeck.app.tui.modes.run.steps import backend_text
from kvdeck.app.tui.widgets.lines import Lines, Row, cell, heading
from kvdeck.sessions.units import count_text, many, short_layout_name, size_text

if TYPE_CHECKING:
    from kvdeck.sessions.model.run_state import RunState


class FoldedForm(Lines):
    """What the followed run measures; `f` unfolds the form."""

    run: RunState | None = None

    def apply(self, run: RunState | None) -> None:
        self.run = run
        self.redraw()

    def rows(self, width: int, height: int) -> list[Row]:
        return [heading("What is run", width, note="f form"), *((cell(f" {t}", width),) for t in self._lines())]

    def _lines(self) -> list[str]:
        run = self.run
        if run is None or not run.steps:
            return ["the engine plans the steps"]
        shapes = dict.fromkeys((step.plan.block_bytes, step.plan.batch) for step in run.steps)
        if len(shapes) == 1:
            size, batch = next(iter(shapes))
            block = f"block {size_text(size)} · {many(batch, 'block')} per request"
        else:
            block = f"{many(len(shapes), 'shape')} of block and batch"
        counts = dict.fromkeys((step.plan.layout, step.plan.descriptors_per_block) for step in run.steps)
        layouts = ", ".join(f"{short_layout_name(layout).upper()} {count_text(count)}" for layout, count in counts)
        paths = dict.fromkeys((step.plan.path, backend_text(step)) for step in run.steps)
        return [
            f"{block} · descriptors per block: {layouts}",
            " · ".join(f"{path} {backend}" for path, backend in paths),
        ]
