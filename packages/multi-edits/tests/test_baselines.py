"""LEDITS++ and image-to-image: the same as diffusers alone, where diffusers alone works."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

diffusers = pytest.importorskip("diffusers")

from multi_edits import Edit, MultiEditsPipeline, derive_edits  # noqa: E402
from multi_edits.baselines import (  # noqa: E402
    EditPrompt,
    Img2ImgSettings,
    LeditsSettings,
    edit_prompts,
    edit_with_img2img,
    edit_with_leditspp,
)
from multi_edits.ledits import NearestLevelStore, ledits_pipeline  # noqa: E402
from papercommons.errors import DataError  # noqa: E402

SOURCE = "a red circle left of a blue square on a black background"
TARGET = "a green circle left of a blue dog on a white background"
EDITS = derive_edits(SOURCE, TARGET)
NO_CHECKS = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
EVERYWHERE = LeditsSettings(masks="noise", threshold=0.0)


def pixels(image):
    return np.asarray(image).astype(int)


def parts(pipe):
    names = ("vae", "unet", "text_encoder", "tokenizer")
    return {name: getattr(pipe, name) for name in names} | NO_CHECKS


@pytest.fixture(scope="module")
def picture(image):
    return Image.fromarray(image)


def test_prompts_are_the_new_phrases_and_the_deleted_ones_reversed():
    edits = [Edit("cat", "dog", 1), Edit("hat", "", 4), Edit("", "sun", 6, strength=0.5)]
    assert edit_prompts(edits) == [
        EditPrompt("dog", False),
        EditPrompt("hat", True),
        EditPrompt("sun", False, 0.5),
    ]
    assert edit_prompts(edits[:1], drop_old=True) == [("dog", False, 1.0), ("cat", True, 1.0)]
    assert edit_prompts([Edit("cat", "dog", 1, strength=0.0)]) == []


def test_ledits_without_attention_masks_is_that_of_diffusers(pipe, picture):
    scheduler = diffusers.DPMSolverMultistepScheduler.from_config(
        pipe.scheduler.config, algorithm_type="sde-dpmsolver++", solver_order=2
    )
    plain = diffusers.LEditsPPPipelineStableDiffusion(**parts(pipe), scheduler=scheduler)
    plain.set_progress_bar_config(disable=True)
    own = pipe.unet.attn_processors
    plain.invert(picture, num_inversion_steps=4, generator=torch.Generator().manual_seed(3))
    theirs = plain(
        editing_prompt=["green", "dog", "white"], use_intersect_mask=False, edit_threshold=0.7
    )
    pipe.unet.set_attn_processor(own)
    settings = LeditsSettings(masks="noise", threshold=0.7)
    ours = edit_with_leditspp(pipe, picture, EDITS, steps=4, settings=settings, seed=3)
    assert (pixels(ours.image) == pixels(theirs.images[0])).all()
    assert ours.rows == 4 + 4 * (1 + 3)


@pytest.mark.parametrize("masks", ["both", "attention"])
def test_masks_from_attention_need_no_map_at_a_quarter_of_the_side(pipe, picture, masks):
    own = {name: type(processor) for name, processor in pipe.unet.attn_processors.items()}
    settings = LeditsSettings(masks=masks, drop_old=True)
    done = edit_with_leditspp(pipe, picture, EDITS, steps=4, settings=settings)
    assert done.rows == 4 + 4 * (1 + 6)
    assert {name: type(p) for name, p in pipe.unet.attn_processors.items()} == own
    assert type(pipe.scheduler) is diffusers.DDIMScheduler
    free = edit_with_leditspp(pipe, picture, EDITS, steps=4, settings=EVERYWHERE)
    assert (pixels(done.image) != pixels(free.image)).any()


def test_only_the_tokens_of_a_prompt_make_its_mask(pipe):
    editor = ledits_pipeline(pipe)
    editor.batch_size = 1
    *_, counts = editor.encode_prompt(
        device=pipe.device,
        num_images_per_prompt=1,
        enable_edit_guidance=True,
        editing_prompt=["green", "a blue dog"],
    )
    assert counts == [1, 5]  # "dog" has three


def test_maps_at_a_quarter_of_the_side_are_those_of_diffusers():
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=2,
        norm_num_groups=4,
        cross_attention_dim=8,
    )
    ours = NearestLevelStore(unet, (16, 32), batch_size=1)
    theirs = type(ours).__mro__[1](average=True, batch_size=1, max_size=32, max_resolution=None)
    attention = torch.rand(3 * 2, 4 * 8, 7)  # empty and two edits, two heads
    for store in (ours, theirs):
        store(attention, is_cross=True, place_in_unet="up", editing_prompts=2)
    asked = (["x", "y"], (4, 8), ["up", "down"], True, 1)
    maps = [s.aggregate_attention(s.step_store, *asked) for s in (ours, theirs)]
    torch.testing.assert_close(*maps)
    torch.testing.assert_close(maps[0][0], attention[4:].mean(0).view(4, 8, 7))


def test_a_reversed_prompt_takes_back_what_the_prompt_gives(pipe, picture):
    def edited(*prompts, guidance=5.0):
        settings = LeditsSettings(masks="noise", threshold=0.0, guidance=guidance)
        done = edit_with_leditspp(pipe, picture, (), prompts=prompts, steps=3, settings=settings)
        return pixels(done.image)

    more, less = EditPrompt("white", False), EditPrompt("white", True)
    assert np.abs(edited(more, less) - edited(more, guidance=0.0)).max() <= 1
    assert (edited(more) != edited(less)).any()
    doubled = EditPrompt("white", False, 2.0)
    assert (edited(doubled) == edited(more, guidance=10.0)).all()


def test_image_to_image_is_that_of_diffusers(pipe, picture):
    plain = diffusers.StableDiffusionImg2ImgPipeline(**parts(pipe), scheduler=pipe.scheduler)
    plain.set_progress_bar_config(disable=True)
    theirs = plain(
        TARGET,
        picture,
        strength=0.5,
        num_inference_steps=6,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(5),
    )
    settings = Img2ImgSettings(strength=0.5, guidance=3.0)
    marked = TARGET.replace("dog", "[dog]")
    ours = edit_with_img2img(pipe, picture, marked, steps=6, settings=settings, seed=5)
    away = abs(pixels(ours.image).astype(int) - pixels(theirs.images[0]))
    assert away.max() <= 1  # older diffusers round 8-bit values in another way
    assert away.mean() < 0.01
    assert ours.rows == 3 * 2


def test_xl_models_work_too(xl_parts, picture):
    pipe = MultiEditsPipeline(**xl_parts)
    done = edit_with_leditspp(pipe, picture, EDITS, steps=3)
    assert done.image.size == (32, 32)
    assert done.rows == 3 + 3 * (1 + 3)
    again = edit_with_img2img(pipe, picture, TARGET, steps=3, seed=1)
    assert (pixels(again.image) != pixels(done.image)).any()


def test_the_seed_decides(pipe, picture):
    def run(seed):
        return pixels(edit_with_leditspp(pipe, picture, EDITS[:1], steps=2, seed=seed).image)

    assert (run(0) == run(0)).all()
    assert (run(0) != run(1)).any()


def test_without_edits_the_image_comes_back(pipe, picture):
    done = edit_with_leditspp(pipe, picture, ())
    assert (pixels(done.image) == pixels(picture)).all()
    assert done.rows == 0


def test_bad_sizes_prompts_and_settings_are_named(pipe, picture):
    small = picture.resize((40, 32))
    with pytest.raises(DataError, match=r"40 x 32 .* multiples of 32; resize it, .* 32 x 32"):
        edit_with_leditspp(pipe, small, EDITS)
    done = edit_with_leditspp(pipe, small, EDITS[:1], steps=2, resize=True)
    assert done.image.size == (32, 32)
    long = [EditPrompt("red " * 30, False)]
    with pytest.raises(DataError, match="would be cut off"):
        edit_with_leditspp(pipe, picture, (), prompts=long)
    with pytest.raises(DataError, match="would be cut off"):
        edit_with_img2img(pipe, picture, "red " * 30)
    with pytest.raises(ValueError, match="steps must be at least 2, got 1"):
        edit_with_leditspp(pipe, picture, EDITS, steps=1)
    with pytest.raises(ValueError, match=r"1 steps at strength 0\.8 are none"):
        edit_with_img2img(pipe, picture, TARGET, steps=1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LeditsSettings(guidance=-1), "guidance must be a number >= 0, got -1"),
        (lambda: LeditsSettings(threshold=1), r"threshold must be in \[0, 1\), got 1"),
        (lambda: LeditsSettings(skip=-0.1), r"skip must be in \[0, 1\), got -0\.1"),
        (lambda: LeditsSettings(warmup=-1), "warmup must be >= 0, got -1"),
        (lambda: LeditsSettings(masks="none"), "masks must be both, attention or noise, got none"),
        (lambda: Img2ImgSettings(strength=0), r"strength must be in \(0, 1\], got 0"),
        (lambda: Img2ImgSettings(guidance=float("nan")), "guidance must be a number"),
    ],
)
def test_settings_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
