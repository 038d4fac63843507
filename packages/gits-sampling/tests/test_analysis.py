from __future__ import annotations

import math
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from gits_sampling import analysis
from gits_sampling.analysis import (
    central_trajectories,
    chord_frame,
    curvature_torsion,
    optimality_gap,
    pca_reconstruction,
    trajectory_statistics,
)
from gits_sampling.models import EmpiricalDenoiser, GaussianMixtureDenoiser, digits_gauss10

DATA = Path(__file__).parent / "data"


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def polynomial(points, first=80.0, last=0.002):
    ramp = torch.linspace(first ** (1 / 7), last ** (1 / 7), points, dtype=torch.float64)
    return ramp**7


def euler(model, x, sigmas):
    """Return states (N, B, ...) and denoised (N - 1, B, ...)."""
    states, denoised = [x], []
    for t, t_next in pairwise(sigmas):
        denoised.append(model(states[-1], t))
        states.append(states[-1] + (t_next - t) * (states[-1] - denoised[-1]) / t)
    return torch.stack(states), torch.stack(denoised)


def run(samples=6, points=25):
    model = EmpiricalDenoiser(randn(5, 3, 4))
    sigmas = polynomial(points)
    return *euler(model, 80 * randn(samples, 3, 4, seed=1), sigmas), sigmas


def parity_run(shared_files):
    model, expected = (
        np.load(path)
        for path in (
            DATA / "model.npz",
            shared_files / "parity/gits-sampling/trajectory_stats.npz",
        )
    )
    toy = {name: torch.from_numpy(model[name]) for name in model}
    mixture = GaussianMixtureDenoiser(
        toy["gmm_means"].unflatten(1, (3, 4, 4)), toy["gmm_stds"].square(), toy["gmm_weights"]
    )
    sigmas = torch.from_numpy(expected["t"])
    return *euler(mixture, toy["latents"] * sigmas[0], sigmas), sigmas, expected


# Statistics


def test_statistics_are_the_parity_sets(shared_files):
    states, denoised, sigmas, expected = parity_run(shared_files)
    found = trajectory_statistics(states, denoised, sigmas)
    names = {
        "magnitude_state": "mag_x",
        "magnitude_denoised": "mag_denoised",
        "magnitude_slope": "mag_eps",
        "deviation_state": "dev_x",
        "deviation_denoised": "dev_denoised",
        "distance_state": "dist_x",
        "distance_denoised": "dist_denoised",
        "cosine": "cos_eps_chord",
    }
    assert {"sigmas", *names} == {field.name for field in fields(found)}
    for ours, theirs in names.items():
        # Late slopes divide differences of x and D by 0.002: rounding, not definition.
        np.testing.assert_allclose(
            getattr(found, ours), expected[theirs], rtol=1e-9, atol=1e-10, err_msg=ours
        )


def test_views_are_the_parity_sets(shared_files):
    states, _, _, expected = parity_run(shared_files)
    found = pca_reconstruction(states)
    np.testing.assert_allclose(found.energy, expected["pca_cumratio"], rtol=1e-9)
    np.testing.assert_allclose(found.error, expected["pca_relerr"], rtol=1e-8, atol=1e-13)
    energy = chord_frame(states, components=3).energy
    np.testing.assert_allclose(energy, expected["perp_energy_cumratio_uncentred"], rtol=1e-9)


def test_statistics_of_a_drawn_trajectory():
    # From (4, 0) over two points at heights 3 and -1 to the origin, beside a constant.
    path = torch.tensor([[4.0, 0, 5], [3, 3, 5], [1, -1, 5], [0, 0, 5]])
    denoised = torch.tensor([[0.0, 0, 0], [1, 1, 0], [2, 0, 0]])
    sigmas = torch.tensor([3.0, 2, 1, 0.5])
    found = trajectory_statistics(path[:, None], denoised[:, None], sigmas)
    assert found.deviation_state[:, 0].tolist() == [3, 1]
    assert found.deviation_denoised[:, 0].tolist() == [1]
    torch.testing.assert_close(found.distance_denoised[:, 0], torch.tensor([2, 2**0.5, 0]).double())
    slope = (path[1] - denoised[1]).double() / 2  # (1, 1, 2.5)
    torch.testing.assert_close(found.magnitude_slope[1, 0], slope.norm())
    expected = (slope[0] * 3 + slope[1] * 3) / (slope.norm() * 18**0.5)
    torch.testing.assert_close(found.cosine[1, 0], expected)


def test_small_deviations_from_a_long_chord_survive_float32():
    t = torch.linspace(1, 0, 9)[:, None]
    across = torch.tensor([0.6, -0.8]) * (0.05 * torch.sin(3 * math.pi * t))
    states = torch.cat([640 * t, across], 1)[:, None]
    found = trajectory_statistics(states, states[:-1], torch.arange(9, 0, -1.0))
    expected = across.double().norm(dim=1)[1:-1]
    torch.testing.assert_close(found.deviation_state[:, 0], expected, rtol=1e-5, atol=1e-7)


def test_trajectories_of_an_isotropic_gaussian_are_straight():
    model, sigmas = GaussianMixtureDenoiser(torch.zeros(1, 6), torch.tensor([0.5])), polynomial(20)
    found = trajectory_statistics(*euler(model, 80 * randn(4, 6), sigmas), sigmas)
    assert found.deviation_state.max() < 1e-11
    torch.testing.assert_close(found.cosine, torch.ones_like(found.cosine))


def test_curves_lie_over_their_noise_levels():
    states, denoised, sigmas = run()
    found = trajectory_statistics(states, denoised, sigmas)
    curves = found.curves()
    assert len(curves) == 8
    for name, first, last in [
        ("magnitude_state", 0, 25),
        ("cosine", 0, 24),
        ("deviation_state", 1, 24),
        ("deviation_denoised", 1, 23),
    ]:
        torch.testing.assert_close(curves[name].sigmas, sigmas[first:last])
    values = found.deviation_state
    torch.testing.assert_close(curves["deviation_state"].mean, values.mean(1))
    torch.testing.assert_close(curves["deviation_state"].std, values.var(1, correction=0).sqrt())
    one = trajectory_statistics(states[:, :1], denoised[:, :1], sigmas).curves()
    assert (one["cosine"].std == 0).all()


def test_a_constant_denoised_trajectory_has_no_nan():
    model, sigmas = EmpiricalDenoiser(torch.ones(1, 4)), polynomial(9)
    found = trajectory_statistics(*euler(model, randn(3, 4), sigmas), sigmas)
    assert (found.deviation_denoised == 0).all()
    assert all(getattr(found, field.name).isfinite().all() for field in fields(found))


def test_blocks_of_samples_change_nothing(monkeypatch):
    states, denoised, sigmas = run()
    whole = (
        trajectory_statistics(states, denoised, sigmas),
        chord_frame(states),
        pca_reconstruction(states),
    )
    monkeypatch.setattr(analysis, "_CHUNK", 2 * states[:, 0].numel())  # two samples
    parts = (
        trajectory_statistics(states, denoised, sigmas),
        chord_frame(states),
        pca_reconstruction(states),
    )
    for a, b in zip(whole, parts, strict=True):
        for field in fields(a):
            torch.testing.assert_close(getattr(b, field.name), getattr(a, field.name))


def test_digits_trajectories_are_the_measured_ones():
    pytest.importorskip("sklearn")
    sigmas = polynomial(61)
    states, denoised = euler(digits_gauss10(), 80 * randn(64, 1, 8, 8), sigmas)
    deviation = trajectory_statistics(states, denoised, sigmas).curves()["deviation_state"]
    # Section 3.2, over 512 samples: chord 632.5, 2.85 at t about 6.3, energy 0.9999.
    assert (states[0] - states[-1]).flatten(1).norm(dim=1).mean() == pytest.approx(632.5, rel=0.02)
    assert deviation.mean.max() == pytest.approx(2.85, rel=0.1)
    assert deviation.sigmas[deviation.mean.argmax()] == pytest.approx(6.3, rel=0.25)
    assert pca_reconstruction(states).energy[:, 0].min() > 0.9998


# The gap to the optimum


def test_the_gap_to_the_optimum():
    sigmas, x = polynomial(9, 5.0), 5 * randn(4, 3)
    optimal, data = EmpiricalDenoiser(randn(5, 3)), randn(7, 3, seed=3)
    model = EmpiricalDenoiser(data)
    (states, own), (best, ideal) = (euler(denoiser, x, sigmas) for denoiser in (model, optimal))
    gap = optimality_gap(model, optimal, states, best, sigmas)
    torch.testing.assert_close(gap.state, (states - best).norm(dim=2))
    torch.testing.assert_close(gap.denoised, (own - ideal).norm(dim=2))
    torch.testing.assert_close(gap.on_own[3], (own[3] - optimal(states[3], sigmas[3])).norm(dim=1))
    torch.testing.assert_close(
        gap.on_optimal[3], (model(best[3], sigmas[3]) - ideal[3]).norm(dim=1)
    )
    none = optimality_gap(optimal, optimal, best, best, sigmas)
    assert all((getattr(none, field.name) == 0).all() for field in fields(none))


# The chord's frame


def test_a_frame_is_orthonormal_and_signed():
    states, _, _ = run()
    frame = chord_frame(states, components=3)
    torch.testing.assert_close(
        frame.axes @ frame.axes.mT, torch.eye(4).double().expand(6, 4, 4), atol=1e-9, rtol=0
    )
    length = (states[0] - states[-1]).flatten(1).norm(dim=1)
    start = torch.cat([length[:, None], torch.zeros(6, 3)], 1)
    torch.testing.assert_close(frame.coordinates[0], start, rtol=1e-12, atol=1e-9)
    assert frame.coordinates[-1].abs().max() == 0
    assert (frame.coordinates[12] >= 0).all()
    mirrored = chord_frame(-states, components=3)
    torch.testing.assert_close(mirrored.coordinates, frame.coordinates, rtol=0, atol=1e-9)


def test_a_frame_holds_a_curve_in_space():
    u = torch.linspace(0, 3, 30, dtype=torch.float64)[:, None]
    curve = torch.cat([u.cos(), u.sin(), 0.4 * u], 1)
    rows = torch.linalg.qr(randn(7, 3)).Q.T
    frame = chord_frame((curve @ rows + 5)[:, None])
    torch.testing.assert_close(frame.energy, torch.tensor([[frame.energy[0, 0], 1]]).double())
    restored = frame.origin + frame.coordinates[:, 0] @ frame.axes[0]
    torch.testing.assert_close(restored, curve @ rows + 5)


def test_a_reconstruction_is_the_projection():
    states, _, _ = run()
    found = pca_reconstruction(states, components=3)
    frame = chord_frame(states, components=3)
    for sample in range(6):
        points = states[:, sample].flatten(1).numpy()
        centred = points - points.mean(0)
        directions = np.linalg.svd(centred)[2]
        axes = frame.axes[sample].numpy()
        for k in (1, 2, 3):
            near = centred @ directions[:k].T @ directions[:k]
            error = np.linalg.norm(centred - near) / np.linalg.norm(centred)
            np.testing.assert_allclose(found.error[sample, k - 1], error, rtol=1e-8)
            np.testing.assert_allclose(found.energy[sample, k - 1], 1 - error**2, rtol=1e-12)
            from_end = points - points[-1]
            left = from_end - from_end @ axes[: k + 1].T @ axes[: k + 1]
            error = np.linalg.norm(left) / np.linalg.norm(centred)
            np.testing.assert_allclose(found.chord_error[sample, k - 1], error, rtol=1e-7)


# Curvature and torsion


def helix(a=2.0, b=0.7, points=801, turns=3.0):
    u = torch.linspace(0, 2 * math.pi * turns, points, dtype=torch.float64)[:, None] ** 1.1
    return torch.cat([a * u.cos(), a * u.sin(), b * u], 1)


@pytest.mark.parametrize(("a", "b"), [(2.0, 0.7), (0.5, -1.0), (3.0, 0.0)])
def test_a_helix(a, b):
    expected = a / (a**2 + b**2), b / (a**2 + b**2)
    worst = []
    for points in (801, 1601):
        found = curvature_torsion(helix(a, b, points), window=21)
        off = [
            (value - exact).abs() / expected[0]
            for value, exact in zip(found, expected, strict=True)
        ]
        worst.append([part.max().item() for value in off for part in (value[10:-10], value)])
    (bend, bend_ends, twist, twist_ends), finer = worst
    assert bend < 0.01
    assert twist < 0.01
    assert bend_ends < 0.03  # one-sided windows: less exact, far from useless
    assert twist_ends < 0.1
    # The cubic's remainder: second order in the window, first order for torsion at the ends.
    assert finer[0] < 0.27 * bend
    assert finer[2] < 0.27 * twist + 1e-6
    assert finer[3] < 0.55 * twist_ends + 1e-6


def test_curvature_of_many_curves_in_any_pose():
    turn = torch.linalg.qr(randn(3, 3)).Q
    turn = turn * turn.det()
    curve = helix()
    curves = torch.stack([curve, 10 * curve @ turn + 3, curve * torch.tensor([1, 1, -1])], 1)
    curvature, torsion = curvature_torsion(curves, window=21)
    assert curvature.shape == torsion.shape == (801, 3)
    torch.testing.assert_close(curvature[:, 1], curvature[:, 0] / 10, rtol=1e-6, atol=0)
    torch.testing.assert_close(torsion[:, 1], torsion[:, 0] / 10, rtol=1e-5, atol=0)
    torch.testing.assert_close(curvature[:, 2], curvature[:, 0], rtol=1e-6, atol=0)
    torch.testing.assert_close(torsion[:, 2], -torsion[:, 0], rtol=1e-5, atol=0)
    alone, _ = curvature_torsion(curves[:, 1], window=21)
    torch.testing.assert_close(alone, curvature[:, 1])


def test_a_window_wider_than_the_curve():
    curvature, torsion = curvature_torsion(helix(points=41, turns=0.1))
    assert curvature.shape == (41,)
    assert (curvature - 2 / 4.49).abs().max() < 0.03
    assert torsion.isfinite().all()


def test_a_straight_line_has_no_torsion():
    u = torch.linspace(0, 5, 60, dtype=torch.float64)[:, None]
    curvature, torsion = curvature_torsion(torch.cat([u, 2 * u, -u], 1), window=11)
    assert curvature.max() < 1e-9
    assert torsion.isnan().all()


# Bad arguments


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, d, t: trajectory_statistics(x, x, t), r"denoised \(N - 1, B, ...\)"),
        (lambda x, d, t: trajectory_statistics(x[:3], d[:2], t[:3]), "N >= 4"),
        (lambda x, d, t: trajectory_statistics(x, d, t[:-1]), r"sigmas must be \(25,\)"),
        (lambda x, d, t: trajectory_statistics(x, d, t.flip(0)), "strictly decreasing"),
        (lambda x, d, t: trajectory_statistics(x - x, d, t), "got length 0 for sample 0"),
        (lambda x, d, t: chord_frame(x / 0), "for sample 0"),
        (lambda x, d, t: chord_frame(x[:2]), "N >= 3"),
        (lambda x, d, t: chord_frame(x, components=13), "components must be 1 to 12, got 13"),
        (lambda x, d, t: pca_reconstruction(x, components=0), "components must be 1 to 12"),
        (lambda x, d, t: pca_reconstruction(torch.zeros(9, 4)), r"states must be \(N, B"),
        (lambda x, d, t: optimality_gap(None, None, x, x[1:], t), "must both be"),
        (lambda x, d, t: central_trajectories(x), r"coordinates must be \(N, B, 3\)"),
        (lambda x, d, t: central_trajectories(x[:, 0, :, :3], keep=0), "keep must be in"),
        (lambda x, d, t: curvature_torsion(x[..., 0, :2]), r"points must be \(N, 3\)"),
        (lambda x, d, t: curvature_torsion(x[:, :, 0, :3], window=8), "odd and >= 7, got 8"),
        (lambda x, d, t: curvature_torsion(torch.zeros(9, 3)), "four different points"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(*run())
