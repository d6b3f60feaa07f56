"""Output of ucx_perftest: the formats of versions 1.13 and 1.22."""

from __future__ import annotations

import pytest

from kvdeck.engine.suite.ucx_perftest import read_ucx_perftest, seems_ucx_perftest

HEADING = """\
+--------------+--------------+------------------------------+---------------------+-----------------------+
|              |              |       overhead (usec)        |   bandwidth (MB/s)  |  message rate (msg/s) |
+--------------+--------------+----------+---------+---------+----------+----------+-----------+-----------+
|    Stage     | # iterations | 50.0%ile | average | overall |  average |  overall |  average  |  overall  |
+--------------+--------------+----------+---------+---------+----------+----------+-----------+-----------+
"""
TABLE = (
    HEADING
    + """\
[thread 0]              1867     70.644   551.227   551.227     1814.13    1814.13        1814        1814
Final:                  2000     70.795   627.571   556.304     1593.44    1797.58        1593        1798
rc=0
"""
)


def test_the_last_row_counts_and_its_overall_columns() -> None:
    log = read_ucx_perftest(TABLE)
    (row,) = log.rows
    assert (row.iterations, row.percent, row.percentile_us, row.overall_us) == (2000, 50.0, 70.795, 556.304)
    assert row.bytes_per_s == pytest.approx(1_048_576 / 556.304e-6, rel=1e-4)
    assert log.times_posting
    assert row.message_bytes == pytest.approx(1_048_576, rel=1e-3)


def test_a_test_that_has_not_ended_has_no_result() -> None:
    assert read_ucx_perftest(TABLE.partition("Final")[0]).rows == ()


def test_a_row_without_a_word_in_front_is_the_result_of_f() -> None:
    (row,) = read_ucx_perftest(
        HEADING
        + "                       20000      3.964   847.828  1096.962       73.72      56.98        1179         912\n"
    ).rows
    assert (row.name, row.iterations, row.messages_per_s) == ("", 20_000, 912)
    assert row.message_bytes is None, "so few digits don't tell the size"


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (
            (
                "iterations,50.0_percentile_lat,avg_lat,overall_lat,avg_bw,overall_bw,avg_mr,overall_mr\n"
                "[thread 0] 940,3.739,1.0,2.0,3.0,4.0,5,6\n[thread 0]19856,3.648,3237.782,2350.331,19.3,26.6,309,425\n"
                "20000,3.648,3457.556,2358.303,18.08,26.50,289,424\n"
            ),
            [("", 20_000, 50.0, 26.5)],
        ),
        (
            (
                "iterations,99.0_percentile_lat,avg_lat,overall_lat,avg_bw,overall_bw,avg_mr,overall_mr\n"
                "20000,4360.820,108.353,289.977,0.07,0.03,9229,3449\n"
            ),
            [("", 20_000, 99.0, 0.03)],
        ),
        (
            (
                "batch.txt,iterations,50.0_percentile_lat,avg_lat,overall_lat,avg_bw,overall_bw,avg_mr,overall_mr\n"
                "lat8,1000,0.250,0.273,0.273,27.90,27.90,3656760,3656760\n"
                "bw64k,1000,5.037,9.182,9.182,6806.81,6806.81,108909,108909\n"
            ),
            [("lat8", 1000, 50.0, 27.9), ("bw64k", 1000, 50.0, 6806.81)],
        ),
    ],
)
def test_csv_with_and_without_intermediate_rows_and_of_batches(
    text: str, rows: list[tuple[str, int, float, float]]
) -> None:
    found = read_ucx_perftest(text).rows
    assert [(row.name, row.iterations, row.percent, row.bytes_per_s / 2**20) for row in found] == rows


def test_rows_of_a_batch_have_names() -> None:
    text = HEADING.replace("Stage", " Test") + (
        "lat8          1000      0.255   403.008   893.054        0.02       0.01        2481        1120\n"
        "bw64k         1000      5.128     8.158     8.158     7661.22    7661.22      122580      122580\n"
    )
    assert [(row.name, row.message_bytes) for row in read_ucx_perftest(text).rows] == [
        ("lat8", None),
        ("bw64k", 65_536),
    ]


def test_the_command_names_test_and_size() -> None:
    command = "$ ucx_perftest -p 14023 & ucx_perftest 127.0.0.1 -p 14023 -t ucp_put_bw -s 1048576 -n 2000\n"
    log = read_ucx_perftest(command + TABLE)
    assert (log.test, log.message_bytes) == ("ucp_put_bw", 1_048_576)


def test_an_error_is_kept() -> None:
    text = "[1795656410.4] [vm:287:0]  p.c:405  UCX  ERROR client failed. connect() failed: Connection refused\n"
    assert seems_ucx_perftest(text)
    assert read_ucx_perftest(text).errors == ("client failed. connect() failed: Connection refused",)
