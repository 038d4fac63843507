"""Denoising gap, editing, calibration and settings: what needs no network."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from d_tiil.calibration import SIGNS, Calibration, features_of, fit
from d_tiil.editing import inpaint, inpainting_channels, trailing_timesteps
from d_tiil.noise import add_noise, fixed_pairs, to_epsilon
from d_tiil.scores import DenoisingGap, denoising_errors, denoising_gap, plain_score
from d_tiil.settings import (
    REFERENCE,
    TINY,
    AlignmentSettings,
    EditSettings,
    LocateSettings,
    MapSettings,
    read_settings,
    write_settings,
)
from hypothesis import given
from hypothesis import strategies as st
from papercommons.errors import DataError


@pytest.fixture
def latents():
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def test_errors_are_those_of_each_embedding_and_pair(toy, latents, alpha_bars):
    texts = torch.randn(3, 3, 5, generator=torch.Generator().manual_seed(1))
    pairs = fixed_pairs(4, (4, 8, 8), seed=0)
    found = denoising_errors(toy, latents, texts, pairs, alpha_bars=alpha_bars)
    for k, text in enumerate(texts):
        for n, (timestep, noise) in enumerate(zip(*pairs, strict=True)):
            noised = add_noise(latents, noise[None], alpha_bars[timestep][None])
            error = (toy(noised, timestep[None], text[None]) - noise).square().mean()
            torch.testing.assert_close(found[k, n], error)
    parts = denoising_errors(toy, latents, texts, pairs, alpha_bars=alpha_bars, max_rows=5)
    torch.testing.assert_close(parts, found)
    gap = denoising_gap(toy, latents, texts[:1], texts[1:2], pairs, alpha_bars=alpha_bars)
    back = denoising_gap(toy, latents, texts[1:2], texts[:1], pairs, alpha_bars=alpha_bars)
    differences = (found[0] - found[1]).double().numpy()
    assert gap.value == pytest.approx(differences.mean(), rel=1e-5)
    assert gap.error == pytest.approx(differences.std(ddof=1) / 2, rel=1e-5)
    assert gap.value == pytest.approx(-back.value)
    same = denoising_gap(toy, latents, texts[:1], texts[:1], pairs, alpha_bars=alpha_bars)
    assert (same.value, plain_score(same)) == (pytest.approx(0, abs=1e-7), pytest.approx(100))


def test_a_plain_score_is_within_0_and_100():
    for value, expected in ((0.5, 50), (-1.0, 100), (2.0, 0), (0.0, 100)):
        assert plain_score(DenoisingGap(value, 0.0, 1.0, 1.0 - value)) == expected
    assert plain_score(DenoisingGap(0.0, 0.0, 0.0, 0.0)) == 100


def test_velocity_is_made_noise():
    clean, noise = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0)).unbind()
    levels = torch.tensor([0.9, 0.5, 0.1])
    noised = add_noise(clean, noise, levels)
    a = levels[:, None, None, None]
    velocity = a.sqrt() * noise - (1 - a).sqrt() * clean
    torch.testing.assert_close(to_epsilon(velocity, noised, levels, "v_prediction"), noise)
    with pytest.raises(ValueError, match="kind must be"):
        to_epsilon(noise, noised, levels, "sample")


def perfect(target, alpha_bars):
    """Return what knows the clean latents."""

    def denoise(x, t, e):
        a = alpha_bars[t][:, None, None, None]
        return (x - a.sqrt() * target) / (1 - a).sqrt()

    return denoise


@pytest.mark.parametrize("steps", [1, 5])
def test_an_edit_changes_the_mask_alone(latents, alpha_bars, steps):
    target, text = latents + 3, torch.zeros(1, 3, 5)
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:5, 3:7] = True

    def edit(**options):
        return inpaint(
            perfect(target, alpha_bars),
            latents,
            mask,
            text,
            text,
            alpha_bars=alpha_bars,
            steps=steps,
            **options,
        )

    done = edit()
    assert torch.equal(done[..., ~mask], latents[..., ~mask])
    torch.testing.assert_close(done[..., mask], target[..., mask], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(edit(blend=False), target, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="the mask is"):
        inpaint(perfect(target, alpha_bars), latents, mask[1:], text, text, alpha_bars=alpha_bars)


def test_an_edit_follows_the_guided_text(toy, latents, alpha_bars):
    texts = torch.randn(2, 1, 3, 5, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(8, 8, dtype=torch.bool)

    def edit(text, guidance, seed=0):
        options = {"alpha_bars": alpha_bars, "steps": 3, "guidance": guidance, "seed": seed}
        return inpaint(toy, latents, mask, text, texts[1], **options)

    assert torch.equal(edit(texts[0], 2.0), edit(texts[0], 2.0))
    torch.testing.assert_close(edit(texts[0], 0.0), edit(texts[1], 7.0), rtol=1e-4, atol=1e-3)
    assert not torch.equal(edit(texts[0], 2.0), edit(texts[0], 2.0, seed=1))


def test_steps_begin_with_pure_noise():
    assert trailing_timesteps(4, 1000).tolist() == [999, 749, 499, 249]
    assert trailing_timesteps(1, 1000).tolist() == [999]
    with pytest.raises(ValueError, match=r"1\.\.1000, got 0"):
        trailing_timesteps(0, 1000)


def test_channels_of_inpainting_networks(latents):
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[:8] = True
    extra = inpainting_channels(mask, latents)
    assert extra.shape == (1, 5, 8, 8)
    assert torch.equal(extra[0, 0], mask[::2, ::2].float())
    assert torch.equal(extra[:, 1:], latents)


@given(st.integers(0, 1000), st.sampled_from(sorted(SIGNS)))
def test_calibrated_scores_fall_as_evidence_rises(seed, feature):
    rng = np.random.default_rng(seed)
    labels = np.arange(40) % 2
    values = SIGNS[feature] * (labels + rng.normal(size=40))
    made = fit({feature: values}, labels)
    assert made.feature == feature
    evidence = np.sort(SIGNS[feature] * np.linspace(-3, 3, 9))
    scores = [
        made.consistency({feature: v}) for v in SIGNS[feature] * np.sort(SIGNS[feature] * evidence)
    ]
    assert all(0 <= score <= 100 for score in scores)
    assert np.all(np.diff(scores) <= 1e-9)


def test_the_best_feature_is_chosen_and_separates():
    labels = np.array([0] * 10 + [1] * 10)
    features = {"gap": np.tile([0.0, 1.0], 10), "clip_pair": np.where(labels, 0.1, 0.3)}
    made = fit(features, labels)
    assert (made.feature, made.auc, made.pairs) == ("clip_pair", 1.0, 20)
    found = [
        not made.is_consistent(made.consistency({"clip_pair": v})) for v in features["clip_pair"]
    ]
    assert (np.array(found) == labels.astype(bool)).all()
    assert fit(features, labels, feature="gap").feature == "gap"
    with pytest.raises(ValueError, match="only gap was measured"):
        made.consistency({"gap": 1.0})
    with pytest.raises(ValueError, match="features must hold clip_edit"):
        fit(features, labels, feature="clip_edit")
    assert features_of({"gap": 1, "other": 2, "clip_pair": None}) == {"gap": 1.0}


def test_a_calibration_is_saved(tmp_path):
    made = Calibration("gap", 2.0, -1.0, 40.0, 0.25, 8)
    made.save(tmp_path / "c.json")
    loaded = Calibration.load(tmp_path / "c.json")
    assert math.isnan(loaded.auc)
    assert loaded.to_dict() == made.to_dict()
    for text in ("[1]", '{"feature": "gap"}', '{"feature": "x", "slope": 1}', "{", "null"):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(DataError, match=r"bad\.json: not a readable calibration"):
            Calibration.load(tmp_path / "bad.json")
    with pytest.raises(DataError, match="none"):
        Calibration.load(tmp_path / "none.json")
    for wrong in ({"slope": -1.0}, {"intercept": math.inf}, {"map_threshold": 1.5}):
        with pytest.raises(ValueError, match="must be"):
            Calibration(
                **{"feature": "gap", "slope": 1.0, "intercept": 0.0, "decision": 50.0} | wrong
            )


@pytest.mark.parametrize("settings", [LocateSettings(), REFERENCE, TINY])
def test_settings_are_kept_with_a_model(tmp_path, settings):
    write_settings(tmp_path, settings)
    assert read_settings(tmp_path) == settings
    assert read_settings(tmp_path / "none") == LocateSettings()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1], "not an object"),
        ({"treshold": 0.2}, "unknown treshold; did you mean threshold"),
        ({"maps": {"drawz": 3}}, "maps: unknown drawz; did you mean draws"),
        ({"maps": 3}, "maps must be an object"),
        ({"alignment": {"steps": "9"}}, "alignment: steps must be int, got '9'"),
        ({"pairs": True}, "pairs must be int"),
        ({"threshold": 1.5}, r"threshold must be in \(0, 1\)"),
    ],
)
def test_broken_settings_are_named(tmp_path, values, message):
    (tmp_path / "d_tiil.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match=message):
        read_settings(tmp_path)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (AlignmentSettings, {"lr": 0.0}),
        (AlignmentSettings, {"batch": 0}),
        (AlignmentSettings, {"min_gain": 1.0}),
        (MapSettings, {"kind": "double"}),
        (MapSettings, {"low": 0.8}),
        (MapSettings, {"order": 5}),
        (MapSettings, {"strength": 0.0}),
        (EditSettings, {"threshold": 0.0}),
        (LocateSettings, {"scorer": "bert"}),
        (LocateSettings, {"pairs": 1}),
    ],
)
def test_settings_out_of_range_are_named(kind, wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        kind(**wrong)
