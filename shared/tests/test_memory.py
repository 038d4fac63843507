from __future__ import annotations

import sys

import numpy as np
import pytest
from papercommons.testing.memory import peak_resident


def test_the_peak_is_that_of_the_command_alone():
    held = np.ones(200 * 2**20, np.uint8)  # this process holds more than the commands
    small, large = (
        peak_resident(sys.executable, "-c", f"a = bytearray({size} * 2**20); del a; print('done')")
        for size in (1, 101)
    )
    assert held.all()
    assert 98 < large - small < 102
    assert small < 50


def test_a_command_that_fails_says_why():
    code = "import sys; print('no such scan', end='', file=sys.stderr); sys.exit(2)"
    with pytest.raises(RuntimeError, match="ended with code 2: no such scan"):
        peak_resident(sys.executable, "-c", code)
