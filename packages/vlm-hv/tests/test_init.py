from __future__ import annotations

import pytest
import vlm_hv


def test_names_are_loaded_when_used() -> None:
    for name in vlm_hv.__all__:
        assert getattr(vlm_hv, name) is not None
    assert dir(vlm_hv) == vlm_hv.__all__
    with pytest.raises(AttributeError, match="no attribute absent"):
        _ = vlm_hv.absent
