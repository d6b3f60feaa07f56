"""Options of a run whose ranks are started by a launcher, or by the same command on each host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from kvdeck.engine.launchers import LAUNCHERS
from kvdeck.engine.meeting import JOIN_SECONDS, ROLES, MeetingOptions

_Command = TypeVar("_Command", bound=Callable[..., Any])
_OPTIONS = (
    click.option("--launcher", type=click.Choice(LAUNCHERS), help="This process is a rank that srun, mpirun, torchrun, "
                 "an indexed Job or a LeaderWorkerSet started: rank 0 measures, the others serve."),
    click.option("--rendezvous", metavar="HOST:PORT", help="Where ranks meet: rank 0's host. Default: "
                 "as the launcher says. Needs KVDECK_RENDEZVOUS_SECRET. Without a launcher: the same on two hosts."),
    click.option("--etcd-endpoints", metavar="URL", multiple=True,
                 help="Meet by etcd instead; several by commas. Without a launcher: the same command on each host."),
    click.option("--etcd-namespace", metavar="NAME", default="default", help="Namespace in etcd. Default: default."),
    click.option("--etcd-group", metavar="NAME", default="default", help="Runs of one group meet. Default: default."),
    click.option("--role", type=click.Choice(ROLES), help="Without a launcher: this one's part. Default: by arrival."),
    click.option("--ranks", type=int, metavar="N", help="With etcd: number of processes. Default: 2."),
    click.option("--join-timeout", type=float, metavar="SECONDS", default=JOIN_SECONDS,
                 help="Time for all ranks to come. Default: 120."),
)  # fmt: skip
NAMES = ("launcher", "rendezvous", "etcd_endpoints", "etcd_namespace", "etcd_group", "role", "ranks", "join_timeout")


def rank_options(command: _Command, *, count: bool = True) -> _Command:
    """Add the options to a command; without `count`, it has a `--ranks` of its own."""
    for option in reversed(_OPTIONS if count else (*_OPTIONS[:6], *_OPTIONS[7:])):
        command = option(command)
    return command


def taken(values: dict[str, Any]) -> MeetingOptions:
    """Remove the options from a command's values, and return them."""
    return MeetingOptions(**{name: values.pop(name) for name in NAMES})
