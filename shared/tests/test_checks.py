from __future__ import annotations

import math
import subprocess
import sys

import pytest
from papercommons.checks import (
    check_at_least,
    check_fraction,
    check_held_out,
    check_port,
    check_positive,
    check_seed,
)


def test_what_is_allowed_passes():
    check_seed(0)
    check_seed(2**32 - 1)
    check_port(1)
    check_port(65535)
    check_at_least(0, lr_step=0, decay=0.0, limit=None)
    check_positive(lr=1e-9, epochs=1, width=None)
    check_fraction("[0, 1]", share=0, other=1, none=None)
    check_fraction("[0, 1)", share=0.0)
    check_fraction("(0, 1]", share=1.0)
    check_fraction("(0, 1)", share=0.5)
    check_held_out(0, 0)
    check_held_out(0.4, 0.5)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: check_seed(-1), r"--seed must be in \[0, 2\^32\), got -1"),
        (lambda: check_seed(2**32), r"--seed must be in \[0, 2\^32\), got 4294967296"),
        (lambda: check_port(0), "--port must be 1 to 65535, got 0"),
        (lambda: check_port(65536), "--port must be 1 to 65535, got 65536"),
        (lambda: check_at_least(1, a=1, batch_size=0), "--batch-size must be >= 1, got 0"),
        (lambda: check_at_least(0, decay=math.nan), "--decay must be >= 0, got nan"),
        (lambda: check_positive(lr=0.0), "--lr must be > 0, got 0.0"),
        (lambda: check_positive(lr=math.inf), "--lr must be > 0, got inf"),
        (lambda: check_positive(lr=math.nan), "--lr must be > 0, got nan"),
        (lambda: check_fraction("[0, 1]", a=1.1), r"--a must be in \[0, 1\], got 1.1"),
        (lambda: check_fraction("[0, 1)", a=1), r"--a must be in \[0, 1\), got 1"),
        (lambda: check_fraction("(0, 1]", a=0), r"--a must be in \(0, 1\], got 0"),
        (lambda: check_fraction("(0, 1)", a=0), r"--a must be in \(0, 1\), got 0"),
        (lambda: check_fraction("(0, 1)", a=1), r"--a must be in \(0, 1\), got 1"),
        (lambda: check_fraction("[0, 1]", a=math.nan), r"--a must be in \[0, 1\], got nan"),
        (lambda: check_held_out(-0.1, 0.2), "must be >= 0 and sum to less than 1, got -0.1 and"),
        (lambda: check_held_out(0.5, 0.5), "--val-fraction and --test-fraction must be >= 0"),
        (lambda: check_held_out(0.1, math.nan), "sum to less than 1, got 0.1 and nan"),
    ],
)
def test_what_is_not_names_its_option(check, message):
    with pytest.raises(ValueError, match=message):
        check()


def test_checks_are_light():
    code = "import sys, papercommons.checks; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
