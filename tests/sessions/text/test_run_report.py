from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from kvdeck.engine.spec import RunSpec
from kvdeck.sessions.analysis.compare import compare
from kvdeck.sessions.formats.exchange import markdown
from kvdeck.sessions.model.disturbance import Disturbance
from kvdeck.sessions.model.encoding import convert, encode_line
from kvdeck.sessions.model.records import (
    DEVICE_TO_HOST,
    DISK_TO_HOST,
    HOST_TO_DEVICE,
    HOST_TO_DISK,
    HOST_TO_HOST,
    Comparison,
    Interval,
    Percentiles,
    Session,
    StepResult,
    TransferCounts,
    Tuned,
)
from kvdeck.sessions.model.references import reference_text
from kvdeck.sessions.model.telemetry import CounterTotals, FlowTotals, GaugeTotals, SourceSeen, Spread, TelemetryTotals
from kvdeck.sessions.model.traffic import PatternResult, RankResult, Straggler, TrafficResult
from kvdeck.sessions.text.comparison_report import diff_lines, diff_markdown
from kvdeck.sessions.text.run_report import report_json, report_lines, trouble, verdict_text
from kvdeck.sessions.units import duration_text, figure, layout_name, size_text, time_text

FC, LS = "FullyContiguous", "LayerSeparate { outer_contiguous: false }"
OUTER = "LayerSeparate { outer_contiguous: true }"
FORMATS = Path(__file__).parents[3] / "docs" / "formats.md"

ISSUE_RESULT_KEYS = {
    *("path", "layout", "backend", "api", "direct", "page_cache", "block_bytes", "descriptors_per_block", "blocks"),
    *("iterations", "bytes", "prep_us", "post_us", "transfer_us", "gb_per_s", "reference_gb_per_s", "efficiency"),
    *("verified", "status", "reason"),
}
ISSUE_COMPARISON_KEYS = {"path", "baseline", "candidate", "ratio", "low", "high", "verdict"}


def percentiles(p50: float) -> Percentiles:
    return Percentiles(p50, p50 * 1.1, p50 * 1.2, p50 * 1.5, p50 * 2, p50)


def step(number: int, path: str = HOST_TO_HOST, layout: str = FC, **changes: object) -> StepResult:
    descriptors = 1 if layout == FC else 64
    result = StepResult(
        step=number,
        trial=0,
        path=path,
        layout=layout,
        backend="UCX",
        api=None,
        direct=None,
        page_cache=None,
        durable=None,
        block_bytes=2 << 20,
        batch=16,
        descriptors_per_block=descriptors,
        descriptors_per_request=16 * descriptors,
        merged=False,
        blocks=512,
        iterations=100,
        warmup_iterations=10,
        bytes=100 * 16 * (2 << 20),
        prep_us=percentiles(1.25),
        post_us=percentiles(14.1),
        transfer_us=percentiles(3210),
        request_us=percentiles(3224),
        gb_per_s=Interval(10.4, 10.2, 10.6),
        reference_gb_per_s=9.81,
        reference="memcpy",
        efficiency=None,
        verified=True,
        status="ok",
        reason=None,
    )
    return replace(result, **changes)  # type: ignore[arg-type]


def unmeasured(number: int, path: str, layout: str, status: str, reason: str) -> StepResult:
    empty = dict.fromkeys(
        ("prep_us", "post_us", "transfer_us", "request_us", "gb_per_s", "reference_gb_per_s", "efficiency", "verified")
    )
    return step(number, path, layout, status=status, reason=reason, iterations=0, bytes=0, **empty)


def slower(path: str = HOST_TO_HOST, block_bytes: int = 2 << 20, batch: int = 16) -> Comparison:
    return Comparison(0, path, FC, LS, block_bytes, batch, 3.214, 3.05, 3.4, "slower")


def session(*results: StepResult, state: str = "done", **more: object) -> Session:
    return Session("try-1", state, 1.0, 2.0, 50.2, results=results, **more)  # type: ignore[arg-type]


def text(shown: Session, width: int = 100) -> str:
    return "\n".join(line.text for line in report_lines(shown, width))


def sweep(sizes: list[int], batches: list[int]) -> Session:
    shapes = [(size, batch) for size in sizes for batch in batches]
    results = [step(i, layout=LS if i % 2 else FC, block_bytes=s, batch=b)
               for i, (s, b) in enumerate(pair for shape in shapes for pair in (shape, shape))]  # fmt: skip
    return session(*results, comparisons=tuple(slower(block_bytes=size, batch=batch) for size, batch in shapes))


def test_json_has_every_key_that_was_promised() -> None:
    shown = orjson.loads(orjson.dumps(report_json(session(step(0), step(1, layout=LS), comparisons=(slower(),)))))
    assert shown["session"] == "try-1"
    assert set(shown["results"][1]) >= ISSUE_RESULT_KEYS
    assert set(shown["results"][0]["post_us"]) == {"p50", "p90", "p95", "p99", "max", "mean"}
    assert set(shown["results"][0]["gb_per_s"]) == {"median", "low", "high"}
    assert set(shown["comparisons"][0]) >= ISSUE_COMPARISON_KEYS


@pytest.mark.parametrize(
    "record",
    [
        Session,
        StepResult,
        Comparison,
        Tuned,
        TransferCounts,
        TelemetryTotals,
        FlowTotals,
        GaugeTotals,
        CounterTotals,
        SourceSeen,
        Spread,
        Disturbance,
        TrafficResult,
        PatternResult,
        RankResult,
        Straggler,
    ],
)
def test_every_field_is_documented(record: type[Struct]) -> None:
    documented = FORMATS.read_text()
    fields = set(record.__struct_encode_fields__) - ({"name"} if record is Session else set())
    assert [name for name in fields if not re.search(rf"`{name}(\[\])?`", documented)] == []


def test_every_name_of_a_spec_is_documented() -> None:
    section = FORMATS.read_text().partition("### `run.yaml`")[2].partition("\n## ")[0]
    assert "(run-settings.md)" in section
    page = (FORMATS.parent / "run-settings.md").read_text()
    assert [f.name for f in dataclasses.fields(RunSpec) if f"\n| `{f.name}` |" not in page] == []


def test_a_table_row_says_all_of_a_step() -> None:
    shown = text(session(step(0), step(1, layout=LS)))
    row = next(line for line in shown.splitlines() if line.strip().startswith("LayerSeparate"))
    wanted = "LayerSeparate 64/1,024 1.25 µs 14.1 µs 3.21 ms 4.82 ms 10.4 (10.2–10.6) 1.06×"
    assert " ".join(row.split()) == wanted
    assert "compared with memcpy 9.81 GB/s" in shown
    assert "2 MiB per block, 16 blocks per request (32 MiB)" in shown
    assert "GB = 1e9 bytes, GiB = 2^30 bytes" in shown


def test_verdict_in_words() -> None:
    words = "LayerSeparate takes 3.21× the time of FullyContiguous (95 % interval 3.05–3.40): slower"
    assert verdict_text(slower()) == words
    assert words in text(session(step(0), step(1, layout=LS), comparisons=(slower(),)))


def test_files_say_what_the_cache_did() -> None:
    disk = {"backend": "POSIX", "api": "URING", "direct": True, "page_cache": "bypassed", "durable": False}
    heading = "HostToDisk over POSIX (URING) · O_DIRECT · bytes verified"
    assert f"\n{heading} · not fsynced\n" in text(session(step(0, HOST_TO_DISK, **disk)))
    assert f"\n{heading}\nnot fsynced\n" in text(session(step(0, HOST_TO_DISK, **disk)), 70)
    read = {**disk, "direct": False, "page_cache": "in use", "durable": None}
    heading = "DiskToHost over POSIX (URING) · buffered, page cache in use · bytes verified\n"
    assert heading in text(session(step(0, DISK_TO_HOST, **read)))


def test_settings_are_said_where_they_are_not_as_usual() -> None:
    settings = {
        "threads": 4,
        "pipeline_depth": 1,
        "huge_pages": True,
        "processes": 8,
        "notify": False,
        "cores": [[0, 2], [1, 2]],
        "params": {"ioq": "8", "use_aio": "true"},
    }
    shown = text(session(step(0, settings=settings), spec={"params": {"ioq": "8"}}), 300)
    assert (
        "· 4 threads, without notification, huge pages, not checked, between two processes, on cores 0, 1, 2, ioq=8\n"
        in shown
    )


def test_disturbed_rounds_and_shared_cores_are_said() -> None:
    disturbed = step(0, disturbance=Disturbance(3, 40, 12.3, 0.0), settings={"shared_cores": True, "cores": [[0], [0]]})
    shown = text(session(disturbed, step(1, layout=LS, disturbance=Disturbance(1, 40, 1.25, 250.0))), 120)
    assert "  FullyContiguous: 3 of 40 rounds were disturbed: the initiator waited 12.3 ms for a core\n" in shown
    assert "1 of 40 rounds were disturbed: the initiator waited 1.25 ms and the target waited 250 ms" in shown
    assert "the sides share their cores, on core 0" in shown
    assert "disturbed" not in text(session(step(0)))
    assert read_back(disturbed) == disturbed


def read_back(result: StepResult) -> StepResult:
    return convert(StepResult, orjson.loads(encode_line(result)))


def test_paths_that_could_not_run_are_told_once_with_their_reason() -> None:
    reason = "no NVIDIA GPU here · install the driver"
    lines = text(session(
        step(0),
        *(unmeasured(i, path, layout, "unavailable", reason)
          for i, (path, layout) in enumerate(((HOST_TO_DEVICE, FC), (HOST_TO_DEVICE, LS), (DEVICE_TO_HOST, FC)), 1)),
    )).splitlines()  # fmt: skip
    assert lines.count(f"HostToDevice, DeviceToHost: unavailable: {reason}") == 1


def test_failures_are_exceptions_in_words_and_tone() -> None:
    failed = unmeasured(1, HOST_TO_DISK, LS, "failed", "no space left in the folder")
    differing = step(0, verified=False, status="failed", reason="block 3 differs")
    shown = session(differing, failed, state="failed")
    bad = [line.text for line in report_lines(shown) if line.tone == "bad"]
    assert "HostToDisk, LayerSeparate: failed: no space left in the folder" in bad
    assert any("the received bytes differ from the sent bytes" in line for line in bad)
    assert any(line.split()[-1] == "NO" for line in bad)
    assert trouble(shown)
    assert trouble(session(step(0, verified=False)))
    assert not trouble(session(step(0), state="cancelled"))


def test_a_cancelled_step_keeps_its_figures() -> None:
    shown = text(session(step(0, status="cancelled", reason="Ctrl-C", iterations=7), state="cancelled"))
    assert "10.4 (10.2–10.6)" in shown
    assert "FullyContiguous, 2 MiB × 16: cancelled after 7 requests: Ctrl-C" in shown


def test_a_sweep_of_sizes_and_batches_is_a_table_of_both() -> None:
    lines = text(sweep([4096, 65536], [1, 16, 64])).splitlines()
    start = lines.index("  LayerSeparate's time over FullyContiguous's (~ no difference, ? undecided)")
    assert lines[start + 1].split() == ["block", "×", "1", "×", "16", "×", "64"]
    assert lines[start + 2].split() == ["4", "KiB", "3.21×", "3.21×", "3.21×"]
    assert "  LayerSeparate against FullyContiguous, 6 shapes: slower in 6" in "\n".join(lines)


def test_a_sweep_of_one_dimension_has_a_row_for_each_step() -> None:
    rows = [line for line in text(sweep([4096, 65536, 1 << 20], [16])).splitlines() if "10.4 (10.2–10.6)" in line]
    assert len(rows) == 6
    assert rows[0].split()[:4] == ["4", "KiB", "×", "16"]


@given(
    width=st.integers(80, 130),
    count=st.integers(1, 9),
    rate=st.floats(1e-5, 1e5),
    us=st.floats(1e-3, 1e9),
    layouts=st.lists(st.sampled_from([FC, LS, OUTER, f"{OUTER} -> {LS}"]), min_size=1, max_size=4, unique=True),
    reason=st.text("abc /.-·", max_size=300),
)
def test_no_line_is_wider_than_asked(
    width: int, count: int, rate: float, us: float, layouts: list[str], reason: str
) -> None:
    results = [
        step(i, layout=layout, block_bytes=4096 << shape, gb_per_s=Interval(rate, rate * 0.9, rate * 1.1),
             post_us=percentiles(us), reason=reason, status="cancelled")
        for shape in range(count) for i, layout in enumerate(layouts)
    ]  # fmt: skip
    shown = session(*results, comparisons=(slower(),), reason=reason or None, host={"cpu": "x" * 60, "cores": 4})
    assert max(len(line.text) for line in report_lines(shown, width)) <= width


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        (figure(0), "0"),
        (figure(0.01234), "0.0123"),
        (figure(9.996), "10.0"),
        (figure(99.97), "100"),
        (figure(12345.6), "12,346"),
        (time_text(None), "–"),
        (time_text(0.8124), "812 ns"),
        (time_text(0.9999), "1.00 µs"),
        (time_text(999.7), "1.00 ms"),
        (time_text(3_210_000), "3.21 s"),
        (size_text(589_824), "576 KiB"),
        (size_text(1 << 30), "1 GiB"),
        (size_text(4097), "4.00 KiB"),
        (size_text((1 << 30) + 1), "1.00 GiB"),
        (duration_text(9.96), "10 s"),
        (duration_text(185), "3 min 05 s"),
        (duration_text(7_801), "2 h 10 min"),
        (layout_name(LS), "LayerSeparate"),
        (layout_name(OUTER), "LayerSeparate outer"),
        (layout_name(f"{OUTER} -> {FC}"), "ls-outer -> fc"),
    ],
)
def test_figures_are_spelled(made: str, wanted: str) -> None:
    assert made == wanted


@pytest.mark.parametrize(
    ("reference", "block_bytes", "ratio", "text", "facts"),
    [
        ("memcpy", 2 << 20, 0.64, "64 %", "limit memcpy 9.81 GB/s"),
        ("memcpy", 2 << 20, 1.06, "1.06×", "compared with memcpy 9.81 GB/s"),
        ("memcpy on 2 cores", 2 << 20, 0.64, "64 %", "limit memcpy on 2 cores 9.81 GB/s"),
        ("memcpy", 4096, 0.64, "0.64×", "compared with memcpy 9.81 GB/s"),
        ("io_submit", 4096, 0.64, "64 %", "limit io_submit 9.81 GB/s"),
        ("process_vm_writev", 4096, 0.64, "64 %", "limit process_vm_writev 9.81 GB/s"),
        ("pinned cudaMemcpy", 2 << 20, 0.64, "64 %", "limit pinned cudaMemcpy 9.81 GB/s"),
        ("pinned cudaMemcpy", 4096, 0.64, "0.64×", "compared with pinned cudaMemcpy 9.81 GB/s"),
        ("pread", 2 << 20, 1.6, "1.60×", "compared with pread 9.81 GB/s"),
        ("cudaMemcpy", 2 << 20, 0.9, "0.90×", "compared with cudaMemcpy 9.81 GB/s"),
    ],
)
def test_a_part_is_told_of_a_limit_only(reference: str, block_bytes: int, ratio: float, text: str, facts: str) -> None:
    shown = report_lines(
        session(step(0, reference=reference, block_bytes=block_bytes, gb_per_s=Interval(*[9.81 * ratio] * 3))), 120
    )
    assert any(facts in line.text for line in shown)
    assert any(line.text.rstrip().endswith(f" {text}") for line in shown), "\n".join(line.text for line in shown)


@pytest.mark.parametrize(
    ("reference", "ratio", "words"),
    [
        ("io_submit", 1.3, "1.30× io_submit: the limit is wrong here, since the transfer was faster"),
        ("io_submit", 1.02, "1.02× io_submit: at the limit, within what these rates can show"),
        ("io_submit", 0.9, ""),
        ("pread", 1.6, ""),
    ],
)
def test_no_limit_is_exceeded_without_a_word(reference: str, ratio: float, words: str) -> None:
    shown = text(session(step(0, DISK_TO_HOST, reference=reference, gb_per_s=Interval(*[9.81 * ratio] * 3))), 120)
    assert (f"  FullyContiguous: {words}\n" in shown) if words else "limit is" not in shown
    assert "at the limit" in words or "at the limit" not in shown


def test_plain_pages_stand_beside_huge_ones_once() -> None:
    of_huge = {"reference": "io_submit", "settings": {"plain_pages_gb_per_s": 3.27}}
    shown = text(session(step(0, DISK_TO_HOST, **of_huge), step(1, DISK_TO_HOST, LS, **of_huge)), 120)
    assert shown.count("memory on plain pages: io_submit reaches 3.27 GB/s, 0.33× its rate with these") == 1
    assert "plain pages" not in text(session(step(0, DISK_TO_HOST, reference="io_submit")))


def test_a_file_of_an_earlier_version_has_its_ratio() -> None:
    new = orjson.loads(encode_line(step(0, reference_gb_per_s=20.8)))
    old = {key: value for key, value in new.items() if key not in ("reference_ratio", "reference_is_limit")}
    read = convert(StepResult, old)
    assert (read.reference_ratio, read.reference_is_limit, read.efficiency) == (0.5, True, 0.5)
    assert orjson.loads(encode_line(read)) == new


def test_one_value_reads_the_same_in_every_text() -> None:
    a = session(step(0), step(1, layout=LS, gb_per_s=Interval(3.24, 3.1, 3.4)))
    b = replace(a, name="try-2")
    diff = compare(a, b)
    shown = {
        "report": text(a),
        "compare": "\n".join(line.text for line in diff_lines(diff)),
        "markdown of two": diff_markdown(diff),
        "markdown": markdown(a),
    }
    for name, whole in shown.items():
        assert "10.4" in whole, name
        assert "3.24" in whole, name
        if name != "report":
            assert "100" in whole, name
        assert re.search(r"\d{4}(?!-)", whole.replace("1970", "")) is None, f"{name}: thousands are set apart\n{whole}"
    assert reference_text(0.64, "memcpy", True) == "64 % memcpy"
    assert reference_text(1.6, "pread", False) == "1.60× pread"
    assert reference_text(None, "pread", None) == "–"
