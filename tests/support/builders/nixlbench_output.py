"""nixlbench's output as it prints it, of each age, and the dresses in which such logs are saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

TIMES = ("Avg Prep (us)", "P99 Prep (us)", "Avg Post (us)", "P99 Post (us)", "Avg Tx (us)", "P99 Tx (us)")
TODAY = ("Block Size (B)", "Batch Size", "B/W (GB/Sec)", "Avg Lat. (us)", *TIMES)
PAIRWISE = (*TODAY[:3], "Aggregate B/W (GB/Sec)", "Network Util (%)", *TODAY[3:])
SPRING_2025 = ("Block Size (B)", "Batch Size", "Avg Lat. (us)", "B/W (MiB/Sec)", "B/W (GiB/Sec)", "B/W (GB/Sec)")
SPRING_PAIRWISE = (*SPRING_2025, "Aggregate B/W (GB/Sec)", "Network Util (%)")
WITH_MORE = (*TODAY[:3], "Jitter (us)", *TODAY[3:], "Retries")
"""Columns that no version has: a fork's."""
AGES = (TODAY, PAIRWISE, SPRING_2025, SPRING_PAIRWISE, WITH_MORE)
STARS, RULE = "*" * 160, "-" * 160
_LABELS = {
    "runtime_type": "Runtime (--runtime_type=[etcd])",
    "backend": "Backend (--backend=[UCX,UCX_MO,GDS,POSIX])",
    "initiator_seg_type": "Initiator seg type (--initiator_seg_type=[DRAM,VRAM])",
    "target_seg_type": "Target seg type (--target_seg_type=[DRAM,VRAM])",
    "op_type": "Op type (--op_type=[READ,WRITE])",
    "start_block_size": "Start block size (--start_block_size=N)",
    "max_block_size": "Max block size (--max_block_size=N)",
    "start_batch_size": "Start batch size (--start_batch_size=N)",
    "max_batch_size": "Max batch size (--max_batch_size=N)",
}
SWEEP = {"runtime_type": "ETCD", "backend": "UCX", "initiator_seg_type": "VRAM", "target_seg_type": "VRAM",
         "op_type": "WRITE", "start_block_size": "4096", "max_block_size": "16384", "start_batch_size": "1",
         "max_batch_size": "1"}  # fmt: skip
"""A configuration of three steps."""


def cells_of(columns: Sequence[str], block: int, batch: int = 1, rate: float = 0.5) -> list[str]:
    """Return a row's cells, each of another value; `rate` is in GB/s."""
    known = {"Block Size (B)": str(block), "Batch Size": str(batch), "B/W (GB/Sec)": f"{rate:.6f}",
             "Aggregate B/W (GB/Sec)": f"{2 * rate:.6f}", "Network Util (%)": f"{4 * rate:.6f}",
             "B/W (MiB/Sec)": f"{rate * 1e9 / 2**20:.6g}", "B/W (GiB/Sec)": f"{rate * 1e9 / 2**30:.6g}"}  # fmt: skip
    return [known.get(name, f"{block / 1000 + place:.1f}") for place, name in enumerate(columns)]


def laid(cells: Sequence[str]) -> str:
    """Return cells in nixlbench's widths."""
    widths = (20, *[25 if cell.startswith("Aggregate") else 15 for cell in cells[1:]])
    return "".join(f"{cell:<{max(width, len(cell) + 1)}}" for cell, width in zip(cells, widths, strict=True))


def nixlbench_lines(
    columns: Sequence[str] = TODAY, blocks: Sequence[int] = (4096, 8192, 16384), options: Mapping[str, str] = SWEEP,
    rate: float = 0.5,
) -> list[str]:  # fmt: skip
    """Return the lines of a run; without `options`, of its table alone."""
    config = [f"{_LABELS[name]:<60}: {value}" for name, value in options.items()]
    head = ["WARNING: Adjusting num_iter to 1008 to allow equal distribution to 1 threads", STARS,
            "NIXLBench Configuration", STARS, *config, RULE, ""]  # fmt: skip
    rows = [laid(cells_of(columns, block, rate=rate * (number + 1))) for number, block in enumerate(blocks)]
    return [*(head if options else ()), laid(columns), RULE, *rows]


PREFIXES = {
    "none": "",
    "mpirun": "[1,0]<stdout>:",
    "Open MPI 5": "[1,0]<stdout>: ",
    "srun": "0: ",
    "Hydra": "[0] ",
    "kubectl": "[pod/nixlbench-0/bench] ",
    "pod and name": "pod/nixlbench-0 ",
    "stern": "nixlbench-0 bench ",
    "compose": "nixlbench-1  | ",
    "GitHub": "2025-11-19T10:00:{n:02}.1234567Z ",
    "CRI": "2025-11-19T10:00:{n:02}.123456789Z stdout F ",
    "kubectl with timestamps": "[pod/nixlbench-0/bench] 2025-11-19T10:00:{n:02}.5Z ",
    "syslog": "Nov 19 10:00:{n:02} node-7 nixlbench[4242]: ",
    "a logger": "INFO {n:02} (worker-3) >> ",
    "quoted": "> ",
}
"""What launchers put before each line; `{n}` is the line's number."""
COLOURS = {"plain": "{}", "coloured": "\x1b[32m{}\x1b[0m", "reset first": "\x1b[0m{}", "titled": "\x1b]0;log\x07{}"}


def dressed(lines: Sequence[str], prefix: str = "", colour: str = "{}", end: str = "\n") -> str:
    """Return a log of the lines as a launcher and a terminal would have saved it."""
    worn = (prefix.replace("{n:02}", f"{number % 60:02}") + colour.replace("{}", line)
            for number, line in enumerate(lines))  # fmt: skip
    return "".join(line + end for line in worn)
