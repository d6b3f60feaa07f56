"""The verbs of the command line: one row per verb, whose module is imported when the verb is used.

To add a verb, write its module and add a row to `VERBS` (for `kvdeck session …`, to the table of that group).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True, slots=True)
class Verb:
    """What `--help` of a group lists of a verb, and where the verb's command is."""

    name: str
    place: str
    """Module below `kvdeck.app.cli` and name of the click command in it, as `MODULE:NAME`."""
    topic: str
    """Heading of `--help` under which the verb is listed."""
    help: str
    """One line for that list; `kvdeck VERB --help` prints the command's docstring."""

    def load(self) -> click.Command:
        """Import the verb's module and return its command."""
        module, _, name = self.place.partition(":")
        command: click.Command = getattr(importlib.import_module(f"kvdeck.app.cli.{module}"), name)
        return command


VERBS = (
    Verb("plan", "plan:plan", "Plan", "Plan a model's KV cache; print the nixlbench command that transfers it."),
    Verb("kvcache", "plan:kvcache", "Plan", "Show a model's KV cache as KVBench does."),
    Verb("iosize", "plan:iosize", "Plan", "Show the bytes of one token's I/O on one GPU."),
    Verb("profile", "profile:profile", "Plan", "Run a plan's sweep in kvdeck's engine or in an installed nixlbench."),
    Verb("run", "run:run", "Measure", "Measure transfers over NIXL, and compare layouts."),
    Verb("tune", "tune:tune", "Measure", "Show the settings that `kvdeck run --tune` found fastest on this host."),
    Verb("ct-perftest", "perftest:ct_perftest", "Measure", "Measure one traffic pattern between ranks."),
    Verb(
        "sequential-ct-perftest",
        "perftest:sequential_ct_perftest",
        "Measure",
        "Measure traffic patterns alone and in sequence.",
    ),
    Verb("matgen", "matgen:matgen", "Measure", "Generate matrices of the KV that prefill sends to decode."),
    Verb(
        "suite", "suite:suite", "Measure", "Run benchmarks in order; judge figures by expectations and physical bounds."
    ),
    Verb("attach", "runs:attach", "Measure", "Follow a run, or print the report of a finished one."),
    Verb("cancel", "runs:cancel", "Measure", "Cancel a run, or stop a telemetry session; results are saved."),
    Verb("monitor", "monitor:monitor", "Observe", "Show live KV transfers between tiers; record or replay them."),
    Verb("trace", "trace:trace", "Observe", "Run a command and count the NIXL transfers in it."),
    Verb("session", "session:session", "Results", "List, show, compare, export and edit sessions."),
    Verb("doctor", "doctor:doctor", "This host", "Find which transfer paths work here, and what the others lack."),
    Verb("engine", "engine:engine", "This host", "Start, stop and inspect the background engine."),
    Verb("config", "config:config", "This host", "Show the settings in effect and where each comes from."),
    Verb("serve", "serve:serve", "This host", "Serve the deck to a browser."),
)

HIDDEN = (Verb("rank", "rank:rank", "", "Take part in a run of another host."),)
"""Verbs that other programs call; `--help` doesn't list them."""

ALIASES = {
    ("session", "record"): ("trace",),
    ("session", "report"): ("session", "show"),
    ("report",): ("session", "show"),
    ("sessions",): ("session", "list"),
}
"""Earlier spellings, which work like the canonical ones; `--help` doesn't list them."""


class VerbGroup(click.Group):
    """A click group whose commands are the rows of a table."""

    def __init__(self, *args: Any, verbs: Sequence[Verb], unlisted: Sequence[Verb] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.verbs = {verb.name: verb for verb in verbs}
        self.unlisted = {verb.name: verb for verb in unlisted}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names of the verbs, in the order of the table."""
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return a verb's command; None for an unknown name."""
        verb = self.verbs.get(cmd_name) or self.unlisted.get(cmd_name)
        return None if verb is None else verb.load()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the verbs under their topics, without importing them."""
        widest = max(map(len, self.verbs))
        for topic in dict.fromkeys(verb.topic for verb in self.verbs.values()):
            rows = [(name.ljust(widest), verb.help) for name, verb in self.verbs.items() if verb.topic == topic]
            with formatter.section(topic):
                formatter.write_dl(rows)


class AliasedGroup(VerbGroup):
    """The top group, which also accepts the earlier spellings."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Replace an earlier spelling by the canonical words, then find the command."""
        for old, words in ALIASES.items():
            if tuple(args[: len(old)]) == old:
                args = [*words, *args[len(old) :]]
                break
        return super().resolve_command(ctx, args)
