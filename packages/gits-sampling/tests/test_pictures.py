from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from gits_sampling import pictures, sample_pictures, trajectory_pictures
from gits_sampling.analysis import (
    chord_frame,
    curvature_torsion,
    pca_reconstruction,
    trajectory_statistics,
)
from gits_sampling.models import GaussianMixtureDenoiser
from gits_sampling.schedule import Schedule
from gits_sampling.sigmas import polynomial
from gits_sampling.solvers import trajectory
from papercommons.report import figure_png
from PIL import Image


@pytest.fixture
def figures(monkeypatch):
    """Keep the figures that are drawn, to look at what stands in them."""
    kept = []

    def keep(draw, **size):
        def drawn(figure):
            draw(figure)
            kept.append(figure)

        data = figure_png(drawn, **size)
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 60
        for axes in kept[-1].axes:  # without mathtext formulas stay as they are
            words = [tick.get_text() for tick in [*axes.get_xticklabels(), *axes.get_yticklabels()]]
            assert not any("$" in word for word in words)
        return data

    for module in (pictures, sample_pictures, trajectory_pictures):
        monkeypatch.setattr(module, "figure_png", keep)
    return kept


@pytest.fixture(scope="module")
def run():
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    model = GaussianMixtureDenoiser(means, torch.tensor([0.1, 0.2, 0.3, 0.2, 0.1]))
    sigmas = polynomial(31, 0.01, 20.0)
    x = 20 * torch.randn(5, 6, generator=generator, dtype=torch.float64)
    states, slopes = trajectory(model, x, sigmas, solver="heun")
    return sigmas, states, states[:-1] - sigmas[:-1, None, None] * slopes


def test_schedules_have_a_line_each(figures):
    schedule = Schedule(sigmas=[80, 3.9, 0.5, 0], nfe=3, solver="euler")
    assert pictures.schedules_png({"gits": schedule, "other": [80.0, 10.0, 0.002]})
    (axes,) = figures[0].axes
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [line.get_xdata().tolist() for line in dots] == [[80, 3.9, 0.5], [80.0, 10.0, 0.002]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["gits", "other"]
    assert axes.texts[0].get_text() == "to 0"  # the first one's last sigma
    assert len(axes.texts) == 1
    assert axes.get_xscale() == "log"
    assert axes.xaxis_inverted()
    with pytest.raises(ValueError, match="must not be empty"):
        pictures.schedules_png({})
    with pytest.raises(ValueError, match="sigmas of a must be"):
        pictures.schedules_png({"a": [0.0]})


def test_statistics_show_the_means(figures, run):
    sigmas, states, denoised = run
    statistics = trajectory_statistics(states, denoised, sigmas)
    trajectory_pictures.statistics_png(statistics)
    magnitude, distance, deviation, cosine = figures[0].axes
    assert [len(axes.lines) for axes in figures[0].axes] == [3, 2, 2, 1]
    wanted = states.flatten(2).norm(dim=2).mean(1)
    np.testing.assert_allclose(magnitude.lines[0].get_ydata(), wanted)
    np.testing.assert_allclose(distance.lines[0].get_xdata(), sigmas[:-1])  # not the end's own 0
    np.testing.assert_allclose(deviation.lines[0].get_ydata(), statistics.deviation_state.mean(1))
    np.testing.assert_allclose(cosine.lines[0].get_ydata(), statistics.cosine.mean(1))
    assert deviation.get_yscale() == "linear"


def test_boomerang_keeps_the_middle_samples(figures, run):
    frame = chord_frame(run[1])
    trajectory_pictures.boomerang_png(frame, keep=0.6)
    space, first, second = figures[0].axes
    assert len(space.lines) == 3
    assert len(first.lines) == 3 + 1  # and the mean
    assert first.xaxis_inverted()
    share = frame.energy[:, 0].mean()
    assert first.get_title("left").startswith(f"PC1: {share:.1%}")
    drawn = second.lines[0].get_ydata()
    distance = (frame.coordinates[..., 2] - torch.as_tensor(drawn)[:, None]).abs().amax(0)
    assert distance.min() == 0
    with pytest.raises(ValueError, match="2 components, got 1"):
        trajectory_pictures.boomerang_png(chord_frame(run[1], components=1))


def test_pca_and_curvature(figures, run):
    sigmas, states, _ = run
    found = pca_reconstruction(states, components=3)
    trajectory_pictures.pca_png(found)
    left, right = figures[0].axes
    wanted = (1 - found.energy).median(0).values.clamp(min=1e-16)
    np.testing.assert_allclose(left.lines[0].get_ydata(), wanted)
    np.testing.assert_allclose(right.lines[1].get_ydata(), found.chord_error.median(0).values)
    curvature, torsion = curvature_torsion(chord_frame(states).coordinates, window=9)
    torsion[3] = torch.nan
    trajectory_pictures.curvature_png(sigmas, curvature, torsion)
    bend, twist = figures[1].axes
    np.testing.assert_allclose(bend.lines[0].get_ydata(), curvature.median(1).values)
    drawn = twist.lines[0].get_ydata()
    assert np.isnan(drawn).nonzero()[0].tolist() == [3]
    trajectory_pictures.curvature_png(
        sigmas, torch.zeros(31), torch.full((31,), torch.nan)
    )  # a straight line
    with pytest.raises(ValueError, match="curvature and torsion"):
        trajectory_pictures.curvature_png(sigmas, curvature, torsion[1:])


def test_errors_have_a_panel_per_solver(figures):
    errors = {
        "euler": {"polynomial 7": {6: 0.5, 4: 2.0}, "gits 1": {4: 1.0, 6: 0.25}},
        "ipndm": {"gits 1": {4: 0.7}},
    }
    pictures.errors_png(errors)
    euler, ipndm = figures[0].axes
    assert euler.lines[0].get_xdata().tolist() == [4, 6]
    assert euler.lines[0].get_ydata().tolist() == [2.0, 0.5]
    assert euler.lines[1].get_color() == ipndm.lines[0].get_color()
    assert euler.lines[1].get_linewidth() > euler.lines[0].get_linewidth()
    (legend,) = figures[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["polynomial 7", "gits 1"]
    with pytest.raises(ValueError, match="a schedule for every solver"):
        pictures.errors_png({"euler": {}})


def test_errors_of_a_comparison():
    from gits_sampling.comparison import Entry

    def entry(schedule, nfe, error):
        return Entry("heun", 2, nfe, 2 * nfe, schedule, schedule, (8.0, 1.0), error, 0.1, False)

    entries = [entry("auto", 4, 0.5), entry("auto", 6, 0.25), entry("log_snr", 4, 0.75)]
    wanted = {"heun 2": {"auto": {8: 0.5, 12: 0.25}, "log_snr": {8: 0.75}}}
    assert pictures.errors_of(entries) == wanted


@pytest.mark.parametrize("least", [0.1, -2.0])
def test_costs_and_path(figures, least):
    cost = torch.arange(25.0).reshape(5, 5).triu(1)
    cost[0, 1] = least
    pictures.costs_png(cost, torch.tensor([8.0, 4, 2, 1, 0.5]), {"coeff 1": [0, 2, 4]})
    axes = figures[0].axes[0]
    values = axes.images[0].get_array()
    assert np.asarray(values.mask).tolist() == torch.ones(5, 5).tril().bool().tolist()
    assert values[1, 3] == 8
    dots = axes.lines[1]
    assert list(zip(dots.get_ydata(), dots.get_xdata(), strict=True)) == [(0, 2), (2, 4)]
    stairs = list(zip(axes.lines[0].get_ydata(), axes.lines[0].get_xdata(), strict=True))
    assert stairs == [(0, 0), (0, 2), (2, 2), (2, 4), (4, 4)]
    assert (axes.images[0].norm.vmin < 0) == (least < 0)
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["8", "4", "2", "1", "0.5"]


def test_costs_refuse_what_does_not_fit():
    sigmas = torch.tensor([2.0, 1.0])
    with pytest.raises(ValueError, match=r"cost must be \(N, N\)"):
        pictures.costs_png(torch.zeros(3, 3), sigmas)
    with pytest.raises(ValueError, match="path a must be points 0 to 1"):
        pictures.costs_png(torch.zeros(2, 2), sigmas, {"a": [0, 2]})


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_keep_their_pixels(figures, channels):
    images = torch.linspace(-1.2, 1.2, 2 * channels * 12).reshape(2, channels, 4, 3)
    sample_pictures.samples_png({"": images, "gits": -images})
    first, second = figures[0].axes
    tile = np.asarray(first.images[0].get_array())
    wanted = np.clip(images.numpy() * 127.5 + 128, 0, 255).astype(np.uint8)
    wanted = wanted.transpose(0, 2, 3, 1)
    wanted = wanted[..., 0] if channels == 1 else wanted
    assert tile.shape[:2] == (4, 3 + 1 + 3)
    np.testing.assert_array_equal(tile[:, :3], wanted[0])
    np.testing.assert_array_equal(tile[:, 4:], wanted[1])
    assert (tile[:, 3] == 255).all()
    assert second.get_ylabel() == "gits"
    for wrong in ({}, {"a": images[0]}, {"a": images, "b": images[:1]}, {"a": images[:, :0]}):
        with pytest.raises(ValueError, match="of one shape"):
            sample_pictures.samples_png(wrong)
