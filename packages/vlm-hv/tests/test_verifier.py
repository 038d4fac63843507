from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from papercommons.errors import DataError
from papercommons.metrics.calibration import fit_calibration
from PIL import Image
from vlm_hv.lightning import add_lora
from vlm_hv.loading import Loaded
from vlm_hv.prompting import first_tokens
from vlm_hv.tiny import tiny_paligemma, tiny_qwen2_vl
from vlm_hv.verifier import VLMVerifier, read_settings


def strong(model):
    """Random weights of the usual size say nearly the same of every picture."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    return model


def make(**settings):
    model, processor = tiny_paligemma(size=32, width=32)
    return VLMVerifier(strong(model), processor, **settings).eval()


@pytest.fixture(scope="module")
def verifier():
    return make()


def grey(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64), dtype=np.uint8)


def test_the_score_is_the_difference_of_the_two_answers_logits(verifier):
    left, right = grey(5), grey(5, 1)
    inputs = verifier.prompt.encode(left, right)
    with torch.no_grad():
        logits = verifier.model(**inputs).logits[:, -1]
    yes, no = first_tokens(verifier.prompt.processor.tokenizer, ("yes", "no"))
    expected = (logits[:, yes] - logits[:, no]).double().numpy()
    np.testing.assert_allclose(verifier.score(left, right), expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 1e-3


def test_batches_pictures_and_layouts_of_the_input_do_not_matter(verifier):
    left, right = grey(7), grey(7, 1)
    whole = verifier.score(left, right, batch_size=7)
    close = {"rtol": 1e-3, "atol": 1e-4}
    np.testing.assert_allclose(verifier.score(left, right, batch_size=2), whole, **close)
    as_pictures = [list(map(Image.fromarray, side)) for side in (left, right)]
    np.testing.assert_allclose(verifier.score(*as_pictures), whole, **close)
    in_colour = np.repeat(left[..., None], 3, axis=3)
    np.testing.assert_allclose(verifier.score(in_colour, list(right)), whole, **close)


def test_swapping_asks_both_orders_and_the_average_is_symmetric(verifier):
    left, right = grey(4), grey(4, 1)
    both = verifier.score(left, right, swap=True)
    assert both.shape == (2, 4)
    np.testing.assert_allclose(both[0], verifier.score(left, right), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(both[1], verifier.score(right, left), rtol=1e-3, atol=1e-4)
    one, other = verifier.predict(left, right), verifier.predict(right, left)
    for a, b in zip(one, other, strict=True):
        assert a.log_odds == pytest.approx(b.log_odds, abs=1e-4)
        assert a.order_gap == pytest.approx(-b.order_gap, abs=1e-3)
    assert verifier.predict(left, right, swap=False)[0].order_gap is None


def test_equal_pictures_of_a_batch_are_seen_once(verifier, monkeypatch):
    seen, look = [], verifier.model.get_image_features

    def count(pixels, **more):
        seen.append(len(pixels))
        return look(pixels, **more)

    monkeypatch.setattr(verifier.model, "get_image_features", count)
    images = grey(4)
    verifier.score(images[[0, 0, 1]], images[[1, 2, 3]], swap=True)
    assert seen == [4]


def test_verdicts_follow_from_log_odds_threshold_and_calibration():
    verifier = make()
    left, right = grey(12), grey(12, 1)
    odds = verifier.score(left, right, swap=True).mean(0)
    same = (odds > np.median(odds)).astype(int)
    same[:2] = 1 - same[:2]
    assert verifier.predict(left, right)[0].llr is None
    verifier.calibrate(odds, same)
    calibration = fit_calibration(odds, same)
    assert verifier.calibration == calibration
    assert calibration.llr(verifier.threshold) == pytest.approx(0, abs=1e-9)
    assert calibration.slope > 0
    for verdict, value in zip(verifier.predict(left, right), odds, strict=True):
        assert verdict.log_odds == pytest.approx(value, abs=1e-5)
        assert verdict.score == pytest.approx(1 / (1 + np.exp(-value)), abs=1e-5)
        assert verdict.llr == pytest.approx(float(calibration.llr(value)), abs=1e-4)
        assert verdict.decision == ("same" if value >= verifier.threshold else "different")
    assert {v.decision for v in verifier.predict(left, right)} == {"same", "different"}


def test_extreme_log_odds_make_no_warning_and_stay_probabilities(verifier, monkeypatch):
    odds = np.array([-5000.0, 5000.0])
    monkeypatch.setattr(verifier, "score", lambda *_, **__: odds)
    assert [v.score for v in verifier.predict([0, 0], [0, 0], swap=False)] == [0.0, 1.0]


def test_scoring_leaves_the_mode_as_it_was():
    verifier = make()
    verifier.train()
    verifier.score(grey(1), grey(1))
    assert verifier.training


def test_a_saved_verifier_is_the_same_again(tmp_path):
    verifier = make(question="Same hand?", answers=("no", "yes"), layout="concat")
    left, right = grey(4), grey(4, 1)
    odds = verifier.score(left, right)
    verifier.calibrate(odds, (odds > odds.mean()).astype(int))
    folder = verifier.save_pretrained(tmp_path / "export", made_by="a test", data_hash="abc")
    for source in (folder, tmp_path):  # the folder, or that of the run around it
        again = VLMVerifier.from_pretrained(source, device="cpu")
        assert (again.prompt.question, again.prompt.answers) == ("Same hand?", ("no", "yes"))
        assert again.prompt.layout == "concat"
        assert again.calibration == verifier.calibration
        assert again.threshold == verifier.threshold
        assert not again.training
        np.testing.assert_array_equal(again.score(left, right), odds)
    settings = json.loads((folder / "verifier.json").read_text())
    assert settings["made_by"] == "a test"
    assert 'Question: "Same hand?"' in (folder / "README.md").read_text()


def test_settings_can_be_given_instead_of_the_saved(tmp_path):
    make().save_pretrained(tmp_path)
    again = VLMVerifier.from_pretrained(tmp_path, device="cpu", threshold=1.5, question="Well?")
    assert (again.threshold, again.prompt.question) == (1.5, "Well?")


def test_any_model_is_a_verifier_untrained(save_tiny, tmp_path):
    save_tiny(*tiny_qwen2_vl(width=16, layers=1), tmp_path)
    verifier = VLMVerifier.from_pretrained(tmp_path, device="cpu")
    (verdict,) = verifier.predict(grey(1), grey(1, 1))
    assert 0 <= verdict.score <= 1
    assert verdict.llr is None
    assert verifier.threshold == 0


def test_an_adapter_is_saved_alone_and_comes_back_on_its_base(save_tiny, tmp_path):
    pytest.importorskip("peft", reason="LoRA needs peft (vlm-hv[local])")
    base = save_tiny(*tiny_paligemma(size=32, width=32), tmp_path / "base")
    verifier = VLMVerifier.from_pretrained(base, device="cpu")
    before = verifier.score(grey(3), grey(3, 1))
    add_lora(verifier, 4, 8, 0.0)
    with torch.no_grad():
        for name, parameter in verifier.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    odds = verifier.score(grey(3), grey(3, 1))
    assert abs(odds - before).max() > 1e-3
    folder = verifier.save_pretrained(tmp_path / "adapter")
    assert not (folder / "model.safetensors").exists()
    again = VLMVerifier.from_pretrained(folder, device="cpu")
    assert again.has_adapter
    np.testing.assert_allclose(again.score(grey(3), grey(3, 1)), odds, rtol=1e-5, atol=1e-6)
    settings = json.loads((folder / "verifier.json").read_text())
    assert settings["base"] == str(base)


def test_an_adapter_of_a_base_that_was_never_saved_is_refused(tmp_path):
    pytest.importorskip("peft", reason="LoRA needs peft (vlm-hv[local])")
    verifier = make()
    add_lora(verifier, 2, 4, 0.0)
    with pytest.raises(ValueError, match="an adapter is nothing without its base model"):
        verifier.save_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("answers", ["yes"]),
        ("answers", 5),
        ("threshold", "high"),
        ("calibration", {"slope": 1}),
        ("calibration", {"slope": 1, "intercept": "nan"}),
        ("question", None),
    ],
)
def test_broken_settings_are_refused(name, value, tmp_path):
    good = {"question": "Q", "answers": ["yes", "no"], "layout": "two"}
    good |= {"threshold": 0, "calibration": None}
    (tmp_path / "verifier.json").write_text(json.dumps(good))
    assert read_settings(tmp_path)["question"] == "Q"
    changed = (
        {k: v for k, v in good.items() if k != name} if value is None else good | {name: value}
    )
    (tmp_path / "verifier.json").write_text(json.dumps(changed))
    with pytest.raises(DataError, match=r"verifier\.json: not readable settings of a verifier"):
        read_settings(tmp_path)


def test_a_one_picture_model_needs_the_canvas():
    model, processor = tiny_paligemma(size=16, width=16, layers=1)
    model.config.model_type = "blip-2"
    with pytest.raises(DataError, match="blip-2 takes one picture per prompt"):
        VLMVerifier(Loaded(model, processor, "x"))
    VLMVerifier(Loaded(model, processor, "x"), layout="concat")


@pytest.mark.gpu
def test_scores_on_the_device_are_those_of_the_cpu(device, tmp_path):
    verifier = make()
    verifier.save_pretrained(tmp_path)
    again = VLMVerifier.from_pretrained(tmp_path, device=device, dtype="float32")
    left, right = grey(5), grey(5, 1)
    expected = verifier.score(left, right, swap=True)
    np.testing.assert_allclose(again.score(left, right, swap=True), expected, rtol=1e-2, atol=1e-3)


def test_bad_input_is_refused(verifier):
    with pytest.raises(ValueError, match="batch_size must be >= 1, got 0"):
        verifier.score(grey(1), grey(1), batch_size=0)
    with pytest.raises(ValueError, match="equally many pictures, got 2 and 1"):
        verifier.score(grey(2), grey(1))
    with pytest.raises(ValueError, match="equally many pictures, got 0 and 0"):
        verifier.predict([], [])
