from __future__ import annotations

import numpy as np
import pytest
import torch
from papercommons.testing.timing import compare_speed, peak_memory

MEGABYTE = 2**20


def test_both_run_equally_often_in_alternating_order():
    order = []
    speed = compare_speed(lambda: order.append("a"), lambda: order.append("b"), rounds=4, round_s=0)
    assert "".join(order[4:]) == "abbaabba"  # after a first call and a calibrating call of each
    assert speed.ours_s > 0
    assert speed.reference_s > 0
    assert speed.ratio_low <= speed.ratio <= speed.ratio_high
    assert speed.ratios() == {
        "ratio": round(speed.ratio, 2),
        "lowest": round(speed.ratio_low, 2),
        "highest": round(speed.ratio_high, 2),
    }


def test_speed_is_reference_over_ours(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def takes(seconds):
        def function():
            clock[0] += seconds

        return function

    speed = compare_speed(takes(0.5), takes(2.0), rounds=3)
    assert speed == (0.5, 2.0, 4.0, 4.0, 4.0)


def test_quick_functions_are_called_several_times_a_round(monkeypatch):
    clock, calls = [0.0], [0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def quick():
        clock[0] += 0.25
        calls[0] += 1

    compare_speed(quick, lambda: clock.__setitem__(0, clock[0] + 8.0), rounds=2, round_s=1.0)
    assert calls[0] == 2 + 2 * 4


def test_no_rounds_is_refused():
    with pytest.raises(ValueError, match="rounds must be >= 1, got 0"):
        compare_speed(list, list, rounds=0)


def test_peak_counts_what_is_held_at_once():
    def two_at_once():
        a = torch.zeros(MEGABYTE // 4)
        del a
        b = torch.zeros(MEGABYTE // 4)
        return b + 1

    peak = peak_memory(two_at_once)
    assert 2 * MEGABYTE <= peak < 2.2 * MEGABYTE


def test_peak_counts_numpy():
    peak = peak_memory(lambda: np.ones(MEGABYTE, np.uint8) + np.ones(MEGABYTE, np.uint8))
    assert 2 * MEGABYTE <= peak < 3.2 * MEGABYTE


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_peak_on_cuda():
    peak = peak_memory(lambda: torch.zeros(MEGABYTE, device="cuda") + 1, "cuda")
    assert 8 * MEGABYTE <= peak < 8.2 * MEGABYTE
