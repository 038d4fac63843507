from __future__ import annotations

import pytest
import torch
from gits_sampling.loading import load_denoiser
from papercommons.errors import DataError

FACTORIES = """
import torch
from gits_sampling.loading import load_denoiser

class Half(torch.nn.Module):
    shape, sigma_min, sigma_max = (2, 4, 4), 0.1, 10.0
    def forward(self, x, sigma):
        return x / 2

def make(): return Half()
def bare(): return lambda x, sigma: x
def loaded(): return load_denoiser("digits-gauss10")
def number(): return 3
def broken(): raise RuntimeError("no\\nweights")
"""


@pytest.fixture
def factories(tmp_path, monkeypatch):
    (tmp_path / "own_models_for_test.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_models_for_test"


def test_factories(factories):
    half = load_denoiser(f"{factories}:make")
    assert (half.shape, half.sigma_min, half.sigma_max) == ((2, 4, 4), 0.1, 10.0)
    assert torch.equal(half.denoiser(torch.ones(1, 2, 4, 4), torch.tensor(1.0)).unique(), _half())
    assert load_denoiser(f"{factories}:loaded").shape == (1, 8, 8)
    bare = load_denoiser(f"{factories}:bare", shape=(3,), sigma_min=0.1, sigma_max=2.0)
    assert bare.shape == (3,)


def _half():
    return torch.tensor([0.5])


@pytest.mark.parametrize(
    ("spec", "message", "options"),
    [
        ("{m}:bare", "does not say its shape, sigma_min, sigma_max; give them", {}),
        ("{m}:number", "must return a denoiser .* got int", {}),
        ("{m}:broken", "could not be called .RuntimeError: no.", {}),
        ("{m}:missing", "could not be called .AttributeError", {}),
        ("no_such_module_here:make", "could not be called .ModuleNotFoundError", {}),
        ("{m}:make", "takes no condition", {"condition": "a cat"}),
        ("{m}:make", "sigma_max must be within the model's 10, got 80", {"sigma_max": 80.0}),
        ("{m}:make", "sigma_min must be within the model's 0.1, got 0.05", {"sigma_min": 0.05}),
        ("{m}:make", "0 < sigma_min < sigma_max", {"sigma_min": 5.0, "sigma_max": 5.0}),
        ("{m}:make", "shape must be integers >= 1", {"shape": (0, 2)}),
        ("digits-empirical", "takes no guidance", {"guidance": 2.0}),
        ("digits-gaus10", "no such model; did you mean digits-gauss10", {}),
        ("no/such/folder", "no such model", {}),
    ],
)
def test_bad_specs(factories, spec, message, options):
    with pytest.raises(DataError, match=message) as caught:
        load_denoiser(spec.format(m=factories), **options)
    assert "\n" not in str(caught.value)


def test_cuda_asked_but_absent(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DataError, match="no CUDA device is present"):
        load_denoiser("digits-gauss10", device="cuda")
