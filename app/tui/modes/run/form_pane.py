"""The Run screen's form pane: paths, the block, and the run settings."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from kvdeck.app.tui.form_fields import Field
from kvdeck.app.tui.modes.run.form import Form, remembered
from kvdeck.app.tui.modes.run.form_fields import COLUMNS, TABLE
from kvdeck.app.tui.state import Doctor, PeerState
from kvdeck.app.tui.widgets.fields import FieldsPane
from kvdeck.app.tui.widgets.lines import Row, cell
from kvdeck.engine.spec import parse_host
from kvdeck.sessions.errors import KvdeckError, UsageError
from kvdeck.sessions.model.records import PATHS

if TYPE_CHECKING:
    from kvdeck.app.tui.app import Deck

KEPT = "run"
"""Key of the form in the deck's UI state."""


PEERS = "peers"
"""Key of the remembered peers in the deck's UI state."""
MOST_PEERS = 8


def _hosts(kept: object) -> tuple[str, ...]:
    """Return the remembered hosts; without what isn't one."""
    found = []
    for text in kept if isinstance(kept, list) else ():
        with contextlib.suppress(UsageError):
            found.append(parse_host(str(text)))
    return tuple(found[:MOST_PEERS])


class FormPane(FieldsPane[Form]):
    """Holds the form and a cursor in it; `r` launches `form`, and the UI state saves it."""

    app: Deck
    columns = COLUMNS
    titles = tuple(TABLE.pages[0])

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(Form(), id=id)
        self.page = 0

    def on_mount(self) -> None:
        self.form = replace(remembered(self.app.memory.get(KEPT)), used_peers=_hosts(self.app.memory.get(PEERS)))

    def turn(self) -> None:
        """Switch to the next page of fields."""
        pages = self.form.table.pages
        self.page = (self.page + 1) % len(pages)
        page = pages[self.page]
        self.columns, self.titles = tuple(page.values()), tuple(page)
        self.column = min(self.column, len(page) - 1)
        self.typing = None
        self.action_move(0, 0)

    def reset(self) -> None:
        """Restore all defaults."""
        self.become(Form(doctor=self.form.doctor, used_peers=self.form.used_peers))

    def apply_doctor(self, doctor: Doctor) -> None:
        """Use doctor's newest report on each path."""
        super().become(replace(self.form, doctor=doctor))

    def keep_peers(self) -> None:
        """Remember the form's peers for later runs, the newest first."""
        hosts = tuple(dict.fromkeys((*(self.form.spec.peer or ()), *self.form.used_peers)))[:MOST_PEERS]
        self.app.memory[PEERS] = list(hosts)
        self.form = replace(self.form, used_peers=hosts)

    async def _try_peer(self, host: str, command: str) -> None:
        try:
            found = await self.app.requests.try_peer(host, command)
        except KvdeckError as error:
            found = PeerState(host, reason=error.what, fix=error.fix)
        if self.form.spec.peer == (host,):  # otherwise another was chosen meanwhile
            super().become(replace(self.form, peer=found))

    def become(self, form: Form) -> None:
        self.app.memory[KEPT] = form.kept()
        host = form.spec.peer[0] if form.spec.peer is not None and len(form.spec.peer) == 1 else form.peer.host
        if host != form.peer.host:
            command = form.spec.peer_command
            form = replace(form, peer=PeerState(host, looking=True))
            self.app.ask(lambda: self._try_peer(host, command))
        if form == self.form and self.at.kind == "toggle":
            self.notify(
                self.form.hint(self.at), title=f"{self.at.label} can't run here", severity="warning", markup=False
            )
        super().become(form)

    def widths(self, width: int) -> tuple[int, ...]:
        if self.page:
            return super().widths(width)
        block, run = (24, 20) if width < 110 else (32, 30) if width < 160 else (52, 48)
        return width - block - run, block, run

    def toggle_row(self, item: Field, width: int) -> Row:
        if item.key not in PATHS:
            return super().toggle_row(item, width)
        box, label = self.form.text(item), 20 if width > 50 else 16
        row = self.form.doctor.best(item.key)
        if row is None:
            text, tone = ("checking" if self.form.doctor.looking else "", "dim")
        elif row.state == "ready":
            text, tone = (f"ready {row.backend}", "ok")
        else:
            text, tone = (f"! {row.reason}", "warn") if row.state == "degraded" else (row.reason, "dim")
        name = f"path:{item.key}" if self.form.available(item.key) else "dim"
        return (cell(f"{box} ", 4), cell(item.label, label, name), cell(text, width - 4 - label, tone))
