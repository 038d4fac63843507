"""Solvers: the reference's outputs, exactness on polynomials, orders, gradients."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from gits_sampling.multistep import deis
from gits_sampling.sigmas import polynomial
from gits_sampling.solvers import sample, trajectory
from gits_sampling.stepping import ORDERS
from hypothesis import given
from hypothesis import strategies as st

DATA = Path(__file__).parent / "data"
IRREGULAR = torch.tensor([80, 11, 3.9, 1.6, 0.57, 0.17, 0.002], dtype=torch.float64)
FORMS = [
    *((solver, {}) for solver in ORDERS),
    ("dpmpp", {"prediction": "noise"}),
    ("unipc", {"prediction": "noise", "variant": "bh1"}),
]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def read(name):
    with np.load(DATA / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@pytest.fixture(scope="module")
def mixture():
    model = read("model")
    means, weights = model["gmm_means"], model["gmm_weights"]

    def denoise(x, sigma):
        flat, variance = x.flatten(1), model["gmm_stds"] ** 2 + sigma**2
        distance = (flat[:, None] - means).square().sum(2)
        scores = weights.log() - distance / (2 * variance) - flat.shape[1] / 2 * variance.log()
        share = scores.softmax(1) / variance
        out = (share @ model["gmm_stds"] ** 2)[:, None] * flat + sigma**2 * share @ means
        return out.view_as(x)

    torch.testing.assert_close(denoise(model["x"][2], model["sigmas"][2]), model["denoised"][2])
    return denoise


def from_name(name):
    """Return the arguments of `sample` for an array of the parity file."""
    kind, _, rest = name.replace("ipndm_v", "ipndm-v").partition("_")
    marks = rest.split("_")
    solver = kind[:-1].replace("-", "_")
    return {
        "solver": solver,
        "order": int(kind[-1]) if ORDERS[solver][1] > 2 else None,
        "afs": "afs" in marks,
        "denoise_to_zero": "d0" in marks,
        "prediction": "noise" if "eps" in marks else "data",
        "thresholding": "thr" in marks,
        "lower_order_final": "nolof" not in marks,
        "variant": "bh1" if "bh1" in marks else "bh2",
    }


@pytest.mark.parametrize("grid", ["poly7_n7", "logsnr_n9", "irregular"])
def test_as_the_reference(mixture, grid):
    arrays = read("solvers")
    sigmas = arrays[f"{grid}/t"]
    x = arrays["latents"] * sigmas[0]
    seen = 0
    for key, expected in arrays.items():
        name = key.partition("/")[2]
        if not key.startswith(grid) or name in ("t", "deis_tab_coeffs", "reference_endpoint"):
            continue
        if name.startswith(("ipndm_v3", "ipndm_v4")):  # the reference's weights are wrong there
            continue
        seen += 1
        ours = sample(mixture, x, sigmas, **from_name(name))
        error = (ours - expected).norm() / expected.norm()
        assert error < (1e-3 if name.startswith("deis") else 1e-11), key
    assert seen == 60


@pytest.mark.parametrize("grid", ["poly7_n7", "logsnr_n9", "irregular"])
def test_deis_weights_as_the_reference(grid):
    arrays = read("solvers")
    table = deis(arrays[f"{grid}/t"], 4)
    expected = arrays[f"{grid}/deis_tab_coeffs"].nan_to_num()[1:]
    torch.testing.assert_close(table.weights[1:], expected, rtol=1e-3, atol=1e-6)


@st.composite
def decreasing(draw):
    ratios = draw(st.lists(st.floats(0.1, 0.9), min_size=5, max_size=8))
    return 80 * torch.tensor([1.0, *ratios], dtype=torch.float64).cumprod(0)


def quadrature(function, start, stop):
    """Return the integral of `function` from start to stop (shapes (S,)), Gauss-Legendre."""
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(60))
    at = start[:, None] + (stop - start)[:, None] * (nodes + 1) / 2
    return (function(at) * weights).sum(1) * (stop - start) / 2


def vp_time(sigmas):
    low, high = sigmas[-1].square().log1p() / 1e-3, sigmas[0].square().log1p()
    slope = 2 * (low - high) / (1e-3 - 1)
    offset = high - slope / 2
    return lambda at: ((offset**2 + 2 * slope * at.square().log1p()).sqrt() - offset) / slope


@given(sigmas=decreasing(), order=st.integers(1, 4))
def test_ipndm_v_integrates_polynomial_slopes_on_any_grid(sigmas, order):
    def slope(at):
        return sum((k + 1) * (at / 40 - 1) ** k for k in range(order))

    x = torch.zeros(1, dtype=torch.float64)
    states, slopes = trajectory(
        lambda x, at: x - at * slope(at), x, sigmas, solver="ipndm_v", order=order
    )
    torch.testing.assert_close(slopes[:, 0], slope(sigmas[:-1]))
    expected = quadrature(slope, sigmas[:-1], sigmas[1:])
    late = slice(order - 1, None)  # after the ramp
    torch.testing.assert_close(states.diff(dim=0)[late, 0], expected[late], rtol=1e-9, atol=1e-11)


@given(sigmas=decreasing(), order=st.integers(1, 4))
def test_deis_integrates_polynomials_in_its_time(sigmas, order):
    if sigmas[-1] > 0.05:  # else there is no time of its own
        sigmas = torch.cat([sigmas, sigmas.new_tensor([0.002])])
    time = vp_time(sigmas)

    def slope(at):
        return sum((k + 1) * time(at) ** k for k in range(order))

    x = torch.zeros(1, dtype=torch.float64)
    states, _ = trajectory(lambda x, at: x - at * slope(at), x, sigmas, solver="deis", order=order)
    expected = quadrature(
        lambda at: at.exp() * slope(at.exp()), sigmas[:-1].log(), sigmas[1:].log()
    )
    late = slice(order - 1, None)
    torch.testing.assert_close(states.diff(dim=0)[late, 0], expected[late], rtol=1e-8, atol=1e-10)


@given(sigmas=decreasing(), variant=st.sampled_from(["bh1", "bh2"]), data=st.booleans())
def test_unipc_of_order_3_integrates_quadratics_in_log_sigma(sigmas, variant, data):
    def model(at):
        return 1 + at.log() / 2 - at.log() ** 2 / 3

    states, _ = trajectory(
        lambda x, at: model(at).expand_as(x) if data else x - at * model(at),
        torch.zeros(1, dtype=torch.float64),
        sigmas,
        solver="unipc",
        prediction="data" if data else "noise",
        variant=variant,
        lower_order_final=False,
    )
    if data:  # x / sigma has the derivative D / sigma^2 in -sigma
        states = states / sigmas[:, None]
        expected = quadrature(
            lambda at: -model(at.exp()) / at.exp(), sigmas.log()[:-1], sigmas.log()[1:]
        )
    else:
        expected = quadrature(
            lambda at: at.exp() * model(at.exp()), sigmas.log()[:-1], sigmas.log()[1:]
        )
    torch.testing.assert_close(states.diff(dim=0)[2:, 0], expected[2:], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("solver", ["dpmpp", "unipc"])
def test_constant_data_prediction_is_exact(solver, order):
    x, target = torch.randn(2, 3, 5, dtype=torch.float64).unbind()
    out = sample(lambda x, at: target, x, IRREGULAR, solver=solver, order=order)
    torch.testing.assert_close(out, target + (x - target) * 0.002 / 80)


@pytest.mark.parametrize(
    ("solver", "options"),
    [
        ("ipndm", {}),
        ("ipndm_v", {}),
        ("deis", {}),
        ("dpmpp", {}),
        ("dpmpp", {"prediction": "noise"}),
    ],
)
def test_order_one_is_euler(mixture, solver, options):
    x = 80 * torch.randn(4, 3, 4, 4, dtype=torch.float64)
    euler = sample(mixture, x, IRREGULAR, solver="euler")
    torch.testing.assert_close(
        sample(mixture, x, IRREGULAR, solver=solver, order=1, **options), euler
    )


def test_unipc_of_order_one_predicts_as_euler(mixture):
    x = 80 * torch.randn(4, 3, 4, 4, dtype=torch.float64)
    for prediction in ("data", "noise"):  # no corrector on the only step
        ours = sample(mixture, x, IRREGULAR[:2], solver="unipc", order=1, prediction=prediction)
        torch.testing.assert_close(ours, sample(mixture, x, IRREGULAR[:2], solver="euler"))


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_ipndm_is_ipndm_v_on_equal_steps(mixture, order):
    sigmas = torch.linspace(8, 1, 9, dtype=torch.float64)
    x = 8 * torch.randn(4, 3, 4, 4, dtype=torch.float64)
    ours = sample(mixture, x, sigmas, solver="ipndm_v", order=order)
    torch.testing.assert_close(ours, sample(mixture, x, sigmas, solver="ipndm", order=order))


def test_deis_weights_add_up_to_the_step():
    for sigmas in (IRREGULAR, IRREGULAR[2:-1], torch.tensor([1.5, 0.9, 0.3]).double()):
        torch.testing.assert_close(deis(sigmas, 4).weights.sum(1), sigmas.diff())


@pytest.mark.parametrize(
    ("solver", "options", "order"),
    [
        ("euler", {}, 1),
        ("heun", {}, 2),
        ("dpm", {}, 2),
        ("dpm", {"r": 0.3}, 2),
        ("ipndm_v", {"order": 2}, 2),
        ("deis", {"order": 2}, 2),
        ("dpmpp", {"order": 2}, 2),
        ("dpmpp", {"order": 3, "prediction": "noise"}, 2),  # held back by the first, Euler, step
        ("unipc", {"order": 2}, 2),
    ],
)
def test_order_of_convergence_on_one_gaussian(solver, options, order):
    variance = torch.tensor([0.01, 0.3, 2.0], dtype=torch.float64)
    x = 5 * torch.randn(16, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    errors = []
    for n in (81, 161):
        sigmas = torch.linspace(math.log(5), math.log(0.05), n, dtype=torch.float64).exp()
        end = sample(
            lambda x, at: x * variance / (variance + at**2), x, sigmas, solver=solver, **options
        )
        exact = x * ((variance + 0.05**2) / (variance + 5**2)).sqrt()
        errors.append((end - exact).norm().item())
    assert abs(math.log2(errors[0] / errors[1]) - order) < 0.25


@pytest.mark.parametrize(("solver", "options"), FORMS)
def test_gradients_of_the_end_in_start_and_sigmas(solver, options):
    center = torch.tensor([0.3, -0.2], dtype=torch.float64)

    def denoise(x, at):
        return center + (x - center).tanh() / (1 + at**2)

    x = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    sigmas = torch.tensor([5, 2, 1.1, 0.4, 0.1], dtype=torch.float64, requires_grad=True)
    for afs in (False, True):
        assert torch.autograd.gradcheck(
            lambda x, s, afs=afs: sample(denoise, x, s, solver=solver, afs=afs, **options),
            (x, sigmas),
        )


@pytest.mark.parametrize(("solver", "options"), FORMS)
@pytest.mark.parametrize("shape", [(6,), (6, 3), (6, 2, 2, 2, 2)])
def test_any_shape_and_any_split_of_the_batch(solver, options, shape):
    x = 10 * torch.randn(shape, dtype=torch.float64)

    def denoise(x, at):
        return x.sin() / (1 + at)

    whole = sample(denoise, x, IRREGULAR, solver=solver, **options)
    parts = [sample(denoise, part, IRREGULAR, solver=solver, **options) for part in x.split([1, 5])]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("solver", "options"), FORMS)
def test_a_last_sigma_of_zero_ends_at_the_denoised(mixture, solver, options):
    x = 80 * torch.randn(2, 3, 4, 4, dtype=torch.float64)
    zero = torch.cat([IRREGULAR[:-1], torch.zeros(1)])
    options = {"solver": solver, "lower_order_final": False, **options}
    ours = sample(mixture, x, zero, **options)
    states, slopes = trajectory(mixture, x, zero, **options)
    assert torch.equal(states[-1], ours)
    corrected = solver == "unipc"
    noise = options.get("prediction") == "noise"
    if not corrected or noise:
        torch.testing.assert_close(states[-2] - zero[-2] * slopes[-1], ours)
    if not corrected or not noise:  # D at the last predicted state
        denoised = sample(mixture, x, zero[:-1], denoise_to_zero=True, **options)
        torch.testing.assert_close(ours, denoised)


@pytest.mark.parametrize(("solver", "options"), FORMS)
def test_trajectory_holds_the_states_and_slopes(mixture, solver, options):
    x = 80 * torch.randn(2, 3, 4, 4, dtype=torch.float64)
    calls = []

    def denoise(x, at):
        calls.append((x, (x - mixture(x, at)) / at))
        return mixture(x, at)

    states, slopes = trajectory(denoise, x, IRREGULAR, solver=solver, **options)
    assert states.shape == (7, 2, 3, 4, 4)
    assert slopes.shape == (6, 2, 3, 4, 4)
    assert torch.equal(states[0], x)
    assert torch.equal(states[-1], sample(mixture, x, IRREGULAR, solver=solver, **options))
    places, own = zip(*calls[:: len(calls) // 6], strict=True)
    torch.testing.assert_close(slopes, torch.stack(own))
    same = [torch.equal(*pair) for pair in zip(states, places, strict=False)]
    assert same == [True] + 5 * [solver != "unipc"]  # there corrected after the call


def test_teacher_trajectory_as_the_reference(mixture, shared_files):
    latents = read("model")["latents"]
    for solver, options in {
        "euler1": {"solver": "euler"},
        "heun1": {"solver": "heun"},
        "ipndm4": {"solver": "ipndm"},
        "dpmpp3": {"solver": "dpmpp", "prediction": "noise"},
    }.items():
        with np.load(shared_files / f"parity/gits-sampling/dp_{solver}.npz") as file:
            sigmas = torch.from_numpy(file["t_grid"])
            states, slopes = trajectory(mixture, latents * sigmas[0], sigmas, **options)
            np.testing.assert_allclose(states, file["trajectory"], rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(slopes, file["eps"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("solver", "options"), FORMS)
def test_float32_states_lose_little(mixture, solver, options):
    x = 80 * torch.randn(8, 3, 4, 4, dtype=torch.float64)
    sigmas = polynomial(61, 0.002, 80)
    exact = sample(mixture, x, sigmas, solver=solver, **options)
    single = sample(mixture, x.float(), sigmas, solver=solver, **options)
    assert single.dtype == torch.float32
    assert (single - exact).norm() < 3e-5 * exact.norm()


@pytest.mark.gpu
@pytest.mark.parametrize(("solver", "options"), FORMS)
def test_same_on_the_device(device, solver, options):
    x = 80 * torch.randn(4, 3, dtype=torch.float64)
    sigmas = IRREGULAR.clone().requires_grad_()
    ends, gradients = [], []
    for place in ("cpu", device):
        end = sample(
            lambda x, at: x.sin() / (1 + at), x.to(place), sigmas, solver=solver, **options
        )
        gradients.append(torch.autograd.grad(end.sum(), sigmas)[0])
        ends.append(end.detach().cpu())
    torch.testing.assert_close(ends[1], ends[0])
    torch.testing.assert_close(gradients[1], gradients[0])
    with pytest.raises(ValueError, match=r"at step 3 \(sigma 1.6\)"):
        sample(
            lambda x, at: torch.where(at < 2, math.nan, x), x.to(device), IRREGULAR, solver="ipndm"
        )
