"""The pipeline over a tiny folder: depths, scorers, decisions, and what it says of bad input."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")

from d_tiil import Calibration, ClipModel, MapSettings, Phrase
from d_tiil.attention import kept_attention, map_size, mean_attention
from d_tiil.model import DiffusionModel
from d_tiil.tokens import check_length, token_positions
from papercommons.errors import DataError

CAPTION = "a red circle left of a blue square on a black background"


def weights_of(pipe):
    parts = (pipe.unet, pipe.vae, pipe.text_encoder)
    return [copy.deepcopy(part.state_dict()) for part in parts]


@pytest.fixture
def clip():
    """A CLIP model that sees mean colours, and reads "red" and "blue"."""

    def images(pictures):
        return torch.tensor([np.asarray(p).mean((0, 1)).tolist() for p in pictures])

    def texts(words):
        return torch.tensor([[1.0 + ("red" in w), 1.0, 1.0 + ("blue" in w)] for w in words])

    return ClipModel(images, texts)


def test_all_four_steps_and_no_weight_changes(pipe, image):
    pipe.unet.requires_grad_(True)
    before = weights_of(pipe)
    done = pipe(image, CAPTION)
    for old, new in zip(before, weights_of(pipe), strict=True):
        assert all(torch.equal(old[name], new[name]) for name in old)
    assert all(w.requires_grad and w.grad is None for w in pipe.unet.parameters())
    assert done.mask.shape == done.region.shape == (32, 32)
    assert done.mask.dtype == bool
    assert done.edited.size == (32, 32)
    assert [word.text for word in done.candidates] == [
        *("red", "circle", "left", "blue", "square", "black", "background")
    ]
    assert all(CAPTION[w.start : w.end] == w.text for w in done.candidates)
    (word,) = done.words
    assert word.score == max(w.score for w in done.candidates)
    assert not (done.region & ~done.mask).any()
    assert done.embeddings.denoised.shape == done.embeddings.caption.shape
    assert done.gap.value == pytest.approx(done.gap.first - done.gap.second, abs=1e-6)
    assert 0 <= done.score <= 100
    assert done.rows > 0
    assert set(done.seconds) == {"alignment", "score", "maps", "edit", "text denoising", "words"}
    assert json.loads(json.dumps(done.summary(), allow_nan=False))["words"][0]["text"] == word.text
    again = pipe(image, CAPTION)
    assert (again.mask == done.mask).all()
    assert (np.asarray(again.edited) == np.asarray(done.edited)).all()
    assert torch.equal(again.embeddings.denoised, done.embeddings.denoised)


def test_less_can_be_asked_for(pipe, image):
    score = pipe(image, CAPTION, depth="score")
    assert not score.mask.any()
    assert score.candidates == ()
    assert score.final is score.edited is score.denoised is None
    first = pipe(image, CAPTION, depth="first")
    assert first.score == score.score
    assert first.edited is first.denoised is None
    assert first.mask.any()
    assert first.final is first.first
    other = pipe(image, CAPTION, depth="first", seed=1)
    assert (other.first.raw != first.first.raw).any()


def test_the_mask_has_the_images_own_size(pipe, image):
    large = np.repeat(np.repeat(image, 3, 0), 2, 1)
    done = pipe(large, CAPTION)
    assert done.mask.shape == (96, 64)
    assert done.edited.size == (64, 96)
    assert done.box.right < 64


def test_where_nothing_was_gained_nothing_is_found(pipe, image, quick):
    still = replace(quick, alignment=replace(quick.alignment, steps=0))
    done = pipe(image, CAPTION, settings=still)
    assert not done.mask.any()
    assert done.words == ()
    assert done.box is None
    assert done.note == "no inconsistent region was found"
    assert (np.asarray(done.edited) == image).all()
    assert done.score == 100


def test_a_consistent_pair_has_no_mask_and_no_words(pipe, image):
    for intercept, consistent in ((-50.0, True), (50.0, False)):
        pipe.calibration = Calibration("gap", 1.0, intercept, decision=50.0)
        done = pipe(image, CAPTION, depth="first")
        assert done.consistent is consistent
        assert done.mask.any() == bool(done.words) == (not consistent)
        assert done.region.any()
        assert done.score == pytest.approx(100.0 if consistent else 0.0)
    pipe.calibration = replace(pipe.calibration, map_threshold=0.999)
    assert pipe(image, CAPTION, depth="first").mask.sum() == 4  # one latent
    pipe.calibration = Calibration("clip_pair", 1.0, 0.0, 50.0)
    with pytest.raises(ValueError, match="calibration is of clip_pair, and only gap"):
        pipe(image, CAPTION, depth="score")


def test_trajectories_edited_latents_and_finetuning(pipe, image, quick):
    before = weights_of(pipe)
    how = replace(
        quick,
        maps=MapSettings(kind="trajectory", draws=2, steps=4, order=4),
        latent="edited",
        alignment=replace(quick.alignment, finetune_steps=2, finetune_lr=1e-3),
    )
    done = pipe(image, CAPTION, settings=how)
    for old, new in zip(before, weights_of(pipe), strict=True):
        assert all(torch.equal(old[name], new[name]) for name in old)
    plain = replace(how, alignment=quick.alignment)
    assert (pipe(image, CAPTION, settings=plain).first.raw != done.first.raw).any()
    assert "finetune" in done.seconds


def test_the_clip_scorer_looks_at_the_edited_region(pipe, image, quick, clip):
    pipe.clip = clip
    how = replace(quick, scorer="clip", unit="phrase")
    done = pipe(image, CAPTION, settings=how)
    assert [word.text for word in done.candidates] == [
        *("red circle left", "blue square", "black background")
    ]
    assert set(done.scores) == {"gap", "relative_gap", "clip_pair", "clip_region", "clip_edit"}
    box = done.box
    crop = done.edited.crop((box.left, box.top, box.right + 1, box.bottom + 1))
    expected = clip.likeness([crop], [f"A photo of {w.text}" for w in done.candidates])[0]
    assert [w.score for w in done.candidates] == pytest.approx(expected.tolist())
    pair = clip.likeness([done.edited], [CAPTION])
    assert abs(float(pair)) <= 1
    with pytest.raises(ValueError, match="clip needs a CLIP model and depth full"):
        pipe(image, CAPTION, settings=how, depth="first")


def test_the_attention_scorer_leaves_the_network_as_it_is(pipe, image, quick):
    processors = dict(pipe.unet.attn_processors)
    done = pipe(image, CAPTION, settings=replace(quick, scorer="attention"), depth="first")
    assert pipe.unet.attn_processors == processors
    assert all(word.score > 0 for word in done.candidates)


def test_kept_attention_is_the_networks_own(pipe):
    model = DiffusionModel(pipe)
    x = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    inputs = x, torch.tensor([10, 500, 900]), model.encode_text([CAPTION]).expand(3, -1, -1)
    assert map_size(pipe.unet, (16, 16)) == (8, 8)
    with torch.no_grad():
        plain = model.denoiser()(*inputs)
        with kept_attention(pipe.unet, 64) as kept:
            torch.testing.assert_close(model.denoiser()(*inputs), plain)
    maps = kept.mean((8, 8))
    torch.testing.assert_close(maps.sum(0), torch.ones(8, 8))
    rows = mean_attention(pipe.unet, model.denoiser(), inputs, max_rows=2)
    torch.testing.assert_close(rows, maps)
    with kept_attention(pipe.unet, 7) as none:
        model.denoiser()(*inputs)
    with pytest.raises(ValueError, match="no cross-attention with 7 places"):
        none.mean((1, 7))


def test_tokens_of_a_phrase(stock):
    caption = "a red zebra, blue square"
    ids = stock.tokenizer(caption)["input_ids"]
    for text in ("red", "zebra", "blue square"):
        start = caption.index(text)
        found = token_positions(caption, Phrase(text, start, start + len(text)), stock.tokenizer)
        own = stock.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert [ids[k] for k in found] == own


def test_given_phrases_are_scored(pipe, image):
    phrases = [Phrase("red circle", 2, 12), Phrase("background", 46, 56)]
    done = pipe(image, CAPTION, depth="first", phrases=phrases)
    assert [word[:3] for word in done.candidates] == [tuple(phrase) for phrase in phrases]


@pytest.mark.parametrize(
    ("caption", "options", "message"),
    [
        ("  ", {}, "the caption is empty"),
        (" ".join(["red"] * 14 + ["blue", "square"]), {}, "'blue square' would be lost"),
        ("they are it", {}, "has no word that an image can contradict"),
        (CAPTION, {"depth": "all"}, "depth must be one of score, first, full, got 'all'"),
    ],
)
def test_wrong_options_are_named(pipe, image, caption, options, message):
    with pytest.raises(ValueError, match=message):
        pipe(image, caption, **options)


def test_what_is_not_finite_is_no_score(pipe, image, quick):
    pipe.unet.conv_out.bias.data.fill_(float("nan"))
    still = replace(quick, alignment=replace(quick.alignment, steps=0))
    with pytest.raises(DataError, match="a denoising error is not finite"):
        pipe(image, CAPTION, settings=still, depth="score")
    with pytest.raises(DataError, match="the loss is not finite at step 1"):
        pipe(image, CAPTION, depth="score")


def test_long_captions_are_refused_soon(stock):
    counted = []

    def tokenizer(text, **options):
        counted.append(text)
        return stock.tokenizer(text, **options)

    tokenizer.model_max_length = stock.tokenizer.model_max_length
    with pytest.raises(DataError, match=r"'red red .* \.\.\.' would be lost") as caught:
        check_length("red " * 4000, tokenizer)
    assert len(str(caught.value)) < 400
    assert len(counted) < 20
    with pytest.raises(DataError, match="give at most 20,000"):
        check_length("r" * 20_001, tokenizer)
    with pytest.raises(DataError, match="not valid Unicode"):
        check_length("red \ud800", tokenizer)


def test_more_steps_than_timesteps_are_refused(pipe, image, quick):
    for how in (
        replace(quick, maps=replace(quick.maps, steps=1001)),
        replace(quick, edit=replace(quick.edit, steps=1001)),
    ):
        with pytest.raises(ValueError, match="the model has 1000 timesteps"):
            pipe(image, CAPTION, settings=how)


def test_wrong_images_are_named(pipe, image, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        pipe(tmp_path / "none.png", CAPTION)
    with pytest.raises(DataError, match="uint8"):
        pipe(image / 255, CAPTION)
    with pytest.raises(DataError, match="31 x 32 pixels"):
        pipe(image[:, :31], CAPTION, resize=False)
