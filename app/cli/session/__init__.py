"""`kvdeck session …`: the group and its verbs, those of Dynamo's bench_layout_transfers among them."""

from __future__ import annotations

import click

from kvdeck.app.cli.verbs import Verb, VerbGroup

VERBS = (
    Verb("list", "session.show:list_", "Read", "List sessions, newest first; words filter them."),
    Verb("show", "session.show:show", "Read", "Print a session's report, with the results so far."),
    Verb("compare", "session.show:compare", "Read", "Compare two sessions, or two layouts of one."),
    Verb("export", "session.show:export", "Read", "Write a session to a file, in one of several formats."),
    Verb("import", "session.edit:import_", "Change", "Import a file as a session."),
    Verb("rename", "session.edit:rename", "Change", "Give a session another name."),
    Verb("tag", "session.edit:tag", "Change", "Add tags to a session, or print them."),
    Verb("note", "session.edit:note", "Change", "Write a session's note, or print it."),
    Verb("delete", "session.edit:delete", "Change", "Delete sessions with all their files."),
    Verb("init", "session.count:init", "Count transfers", "Create or reopen a trace and make it the active session."),
    Verb("status", "session.count:status", "Count transfers", "Print counts, and which session is active and why."),
    Verb("enable", "session.count:enable", "Count transfers", "Resume counting, also in running processes."),
    Verb("disable", "session.count:disable", "Count transfers", "Stop counting, also in running processes."),
    Verb("reset", "session.count:reset", "Count transfers", "Archive the counts and restart from zero."),
    Verb("test", "session.count:test", "Count transfers", "Count synthetic transfers, to check that counting works."),
)


@click.group(
    cls=VerbGroup,
    verbs=VERBS,
    epilog="Default: $DYNAMO_BENCHMARK_SESSION, else the session of the last `init`.",
)
def session() -> None:
    """List, show, compare, export and edit sessions; control the counting of traces.

    Accepts the commands of Dynamo's bench_layout_transfers, and reads and writes its files. `kvdeck trace` counts the
    transfers of a command.
    """
