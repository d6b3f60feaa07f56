"""Process of one rank of a traffic test that a launcher started, or the same command on each host."""

from __future__ import annotations

from kvdeck.engine.io.exit import run_and_exit
from kvdeck.engine.ranks.launched_rank import run_rank
from kvdeck.engine.traffic import worker
from kvdeck.engine.traffic.rank_host import serve_ranks


def main() -> int:
    """Take part in the test; return the exit status."""
    return run_rank(serve_ranks, worker.measure)


if __name__ == "__main__":
    run_and_exit(main)
