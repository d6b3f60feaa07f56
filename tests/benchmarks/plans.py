"""What planning costs: plans by the thousand, and a key on the Plan screen until its picture is composed."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

from kvdeck.app.tui.bandwidth import BandwidthHistory
from kvdeck.app.tui.modes.plan.figures import command_rows, figure_rows, grid_rows
from kvdeck.app.tui.modes.plan.form import PlanForm
from kvdeck.engine.planning.model_files import catalogue, find_model
from kvdeck.engine.planning.parallelism import Parallelism
from kvdeck.engine.planning.plan import Work, make_plan
from kvdeck.engine.planning.precision import PRECISIONS
from tests.benchmarks.table import Row

PLANS = 10_000
CHANGES = 200
MIXED = "gpt-oss-120b"


def measure() -> list[Row]:
    """Every row about planning."""
    return [_plans(), _change()]


def _plans() -> Row:
    models = list(catalogue().values())
    begin = time.perf_counter()
    for number in range(PLANS):
        work = Work(1000 + number, 10, 16 << number % 6)
        plan = make_plan(models[number % len(models)], PRECISIONS["fp8"], Parallelism(tp=1, pp=1 + number % 8), work)
        assert plan.per_gpu().block_bytes >= plan.group.block_bytes
    return Row(f"{PLANS:,} plans over the catalogue", f"{time.perf_counter() - begin:.2f} s", "< 1 s")


def _change() -> Row:
    form, taken = PlanForm(model=find_model(MIXED), pp=16), []
    for number in range(CHANGES):
        begin = time.perf_counter()
        changed = replace(form, isl=1000 + number)
        figure_rows(changed, BandwidthHistory(), 120, 30)
        command_rows(changed, 120)
        grid_rows(changed, BandwidthHistory(), 120)
        taken.append(time.perf_counter() - begin)
    worst = statistics.quantiles(taken, n=100)[98]
    return Row("a change on the Plan screen until all is composed, p99", f"{worst * 1e3:.1f} ms", "< 16 ms")
