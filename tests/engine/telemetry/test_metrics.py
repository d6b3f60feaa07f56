"""The metric definitions: which are gauges, and that each gauge has its exporter's own words."""

from __future__ import annotations

import pytest

from kvdeck.engine.telemetry.metrics.definitions import TABLE, meaning_of
from kvdeck.engine.telemetry.source import Series
from kvdeck.engine.telemetry.sources.exposition import Parser
from kvdeck.engine.telemetry.sources.processes import Processes
from tests.support.programs.metrics_server import sample, sample_names


def typed(name: str) -> dict[str, str]:
    """The type of each metric in a sample."""
    rows = (line.split() for line in sample(name).decode().splitlines() if line.startswith("# TYPE "))
    return {metric: kind for _, _, metric, kind in rows}


def test_every_gauge_quotes_its_exporter_and_names_where() -> None:
    gauges = [meaning for meaning in TABLE if meaning.gauge]
    assert len(gauges) > 30
    for meaning in gauges:
        assert meaning.help is not None, meaning.metric
        assert len(meaning.help.text) > 15, meaning.metric
        assert meaning.help.source, meaning.metric
    assert [meaning.metric for meaning in TABLE if meaning.help is not None and not meaning.gauge] == []


def test_a_dashboards_words_are_not_passed_off_as_an_exporters() -> None:
    helps = {meaning.metric: meaning.help for meaning in TABLE if meaning.metric.startswith("sglang:hicache_")}
    assert len(helps) == 3
    for help_line in helps.values():
        assert help_line is not None
        assert "not SGLang's help line" in help_line.source


def test_a_gauge_is_no_counter_by_its_name() -> None:
    # A metric without a type line is a counter by its name, if at all.
    gauges = [meaning.metric for meaning in TABLE if meaning.gauge]
    read = Parser().parse("".join(f"{metric} 1\n" for metric in gauges)).values
    assert {series.name for series in read} >= {metric for metric in gauges if metric[0].isalpha()}
    assert [series.name for series in read if series.counter] == []


@pytest.mark.parametrize("name", sample_names())
def test_what_real_software_calls_a_gauge_is_one_in_the_table(name: str) -> None:
    kinds = typed(name)
    for series in Parser().parse(sample(name).decode()).values:
        meaning = meaning_of(series)
        if meaning is not None:
            assert meaning.gauge is (kinds.get(series.name) == "gauge"), series.name


def test_the_hosts_gauges_are_gauges_in_the_table() -> None:
    for name in ("disk_tier_bytes", "container_memory_bytes", "gpu_memory_used_bytes", "gpu_utilisation"):
        meaning = meaning_of(Series(name, counter=False))
        assert meaning is not None
        assert meaning.gauge
    for reading in (Processes().look_at_io(), Processes().look_at_disk_tier()):
        for series in reading.values:
            found = meaning_of(series)
            assert found is None or found.gauge is not series.counter
