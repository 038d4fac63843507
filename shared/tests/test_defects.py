from __future__ import annotations

import pytest
from papercommons.data.defects import LeftOut
from papercommons.errors import DataError


def use(left_out, names):
    used = []
    for name in names:
        with left_out.noting():
            if name == "bad":
                raise DataError("bad: broken")
            used.append(name)
    return used


def test_what_is_left_out_is_named_and_counted(caplog):
    left_out = LeftOut(skip_bad=True)
    assert use(left_out, ["a", "bad", "b", "bad"]) == ["a", "b"]
    assert len(left_out) == 2
    assert left_out.notes() == ["left out: bad: broken"] * 2 == caplog.messages
    left_out.check_any(2, "scans")


def test_without_leave_the_first_one_is_raised():
    with pytest.raises(DataError, match=r"^bad: broken$"):
        use(LeftOut(skip_bad=False), ["a", "bad"])


def test_other_errors_pass():
    with pytest.raises(KeyError), LeftOut(skip_bad=True).noting():
        raise KeyError("x")


def test_nothing_left():
    left_out = LeftOut(skip_bad=True)
    with pytest.raises(DataError, match="none of the scans can be used: there are none"):
        left_out.check_any(0, "scans")
    use(left_out, ["bad"])
    with pytest.raises(DataError, match="none of the scans can be used: bad: broken"):
        left_out.check_any(0, "scans")
