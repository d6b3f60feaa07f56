"""Output of nccl-tests, by its heading."""

from __future__ import annotations

from kvdeck.engine.suite.judgement import judge
from kvdeck.engine.suite.nccl_tests import read_nccl, seems_nccl
from kvdeck.engine.suite.outputs import read_rates

NEW = """\
#                                                              out-of-place                       in-place
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
   1048576        262144     float     sum      -1    100.0   10.49   18.35      0    101.0   10.38   18.17      0
   2097152        524288     float     sum      -1    150.0   13.98   24.47    N/A    151.0   13.89   24.30    N/A
# Avg bus bandwidth    : 21.3
"""
OLD = """\
#       size         count      type   redop     time   algbw   busbw  error     time   algbw   busbw  error
     1048576        262144     float     sum    100.0   10.49   18.35  4e-07    101.0   10.38   18.17  4e-07
"""


def test_both_versions_are_read_by_their_heading() -> None:
    assert seems_nccl(NEW)
    assert [(row.message_bytes, row.bus_bytes_per_s, row.wrong) for row in read_nccl(NEW)] == [
        (1_048_576, 18.35e9, 0),
        (2_097_152, 24.47e9, None),
    ]
    (row,) = read_nccl(OLD)
    assert (row.time_us, row.bus_bytes_per_s) == (100.0, 18.35e9)


def test_a_row_of_another_width_is_left_out() -> None:
    assert len(read_nccl(NEW.replace("      0    101.0   10.38   18.17      0", ""))) == 1


def test_a_result_with_wrong_elements_fails_however_fast_it_is() -> None:
    (rate, _) = read_rates(NEW.replace("18.35      0 ", "18.35      7 "), "log")
    judgement = judge(rate.bytes_per_s, expected=1e9, evidence=rate.evidence)
    assert (judgement.status, judgement.reasons) == ("FAIL", ("nccl-tests found 7 wrong elements",))
