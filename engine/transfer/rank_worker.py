"""Process of one rank of a run that a launcher started, or the same command on each host."""

from __future__ import annotations

from kvdeck.engine.io.exit import run_and_exit
from kvdeck.engine.ranks.launched_rank import run_rank
from kvdeck.engine.ranks.outpost import serve_outpost
from kvdeck.engine.transfer import worker


def main() -> int:
    """Take part in the run; return the exit status."""
    return run_rank(serve_outpost, worker.measure)


if __name__ == "__main__":
    run_and_exit(main)
