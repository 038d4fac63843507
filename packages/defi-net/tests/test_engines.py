from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
from defi_net.engines import CLASSICAL, EngineOptions, check_engine, open_engine
from defi_net.patchfill import patch_fill
from papercommons.errors import DataError


def stripes(height=64, width=64):
    wave = 100 + 60 * np.sin(np.arange(width) * 2 * np.pi / 8)
    return np.broadcast_to(np.rint(wave)[None, :, None], (height, width, 3)).astype(np.uint8).copy()


def hole(shape=(64, 64), size=14):
    mask = np.zeros(shape, dtype=bool)
    mask[20 : 20 + size, 24 : 24 + size] = True
    return mask


@pytest.fixture
def needs(request):
    def need(name):
        for module in {"telea": ["cv2"], "ns": ["cv2"], "biharmonic": ["skimage"]}.get(name, []):
            pytest.importorskip(module)

    return need


@pytest.mark.parametrize("name", CLASSICAL)
def test_engines_fill_the_hole_and_nothing_else(name, needs):
    needs(name)
    photo = np.random.default_rng(0).integers(60, 90, (64, 64, 3)).astype(np.uint8)
    damaged, mask = photo.copy(), hole()
    damaged[mask] = 255
    made = open_engine(name)(damaged, mask, np.random.default_rng(1))
    assert made.photo.dtype == np.uint8
    np.testing.assert_array_equal(made.photo[~mask], photo[~mask])
    assert made.photo[mask].max() < 130  # nothing of the white is left
    assert made.photo[mask].min() > 20
    again = open_engine(name)(damaged, mask, np.random.default_rng(1))
    np.testing.assert_array_equal(made.photo, again.photo)


@pytest.mark.parametrize("name", ["telea", "ns"])
def test_the_radius_is_drawn_and_told(name, needs):
    needs(name)
    engine = open_engine(name, EngineOptions(radius=(3, 10)))
    photo, mask = stripes(), hole()
    rng = np.random.default_rng(0)
    told = {engine(photo, mask, rng).settings for _ in range(60)}
    assert told == {f"radius={k}" for k in range(3, 11)}


def test_biharmonic_continues_a_slope(needs):
    needs("biharmonic")
    ramp = np.broadcast_to(np.arange(64)[None, :, None] * 3, (64, 64, 3)).astype(np.uint8)
    made = open_engine("biharmonic")(ramp, hole(), np.random.default_rng(0))
    assert np.abs(made.photo.astype(int) - ramp).max() <= 1


def test_patches_continue_a_texture():
    photo, mask = stripes(), hole()
    damaged = photo.copy()
    damaged[mask] = 0
    error = np.abs(patch_fill(damaged, mask, np.random.default_rng(0)).astype(int) - photo)
    assert error.max() <= 40
    assert error[mask].mean() < 4


def test_patches_are_copied_not_mixed():
    rng = np.random.default_rng(0)
    photo = (rng.integers(0, 2, (48, 48, 1)) * 255 * np.ones(3)).astype(np.uint8)
    filled = patch_fill(photo, hole((48, 48), 10), rng)
    assert set(np.unique(filled)) == {0, 255}


@pytest.mark.parametrize("shape", [(16, 16), (17, 60), (70, 33)])
def test_patches_fill_any_shape_of_picture_and_hole(shape):
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 9, (*shape, 3), dtype=np.uint8)
    mask = np.zeros(shape, dtype=bool)
    mask[: shape[0] // 2, -5:] = True
    photo[mask] = 255
    assert patch_fill(photo, mask, rng)[mask].max() < 9


def test_patches_get_smaller_where_the_mask_is_dense():
    photo = np.full((24, 24, 3), 50, dtype=np.uint8)
    mask = np.zeros((24, 24), dtype=bool)
    mask[::5] = True
    photo[mask] = 200
    assert (patch_fill(photo, mask, np.random.default_rng(0)) == 50).all()
    mask[::2] = True
    with pytest.raises(DataError, match="no unmasked patch of 3x3"):
        patch_fill(photo, mask, np.random.default_rng(0))


def test_patches_are_found_where_hardly_any_is_left():
    photo = np.full((24, 24, 3), 200, dtype=np.uint8)
    mask = np.ones((24, 24), dtype=bool)
    mask[5:8, 14:17] = False
    photo[~mask] = 50
    for seed in range(5):
        assert (patch_fill(photo, mask, np.random.default_rng(seed)) == 50).all()


def test_unknown_engines_and_options_are_refused():
    with pytest.raises(ValueError, match="no engine 'telia'; did you mean telea"):
        check_engine("telia")
    with pytest.raises(ValueError, match="no engine 'telea:x'"):
        check_engine("telea:x")
    for options, message in (
        (EngineOptions(radius=(5, 3)), "radius must be a range"),
        (EngineOptions(steps=0), "steps must be >= 1"),
        (EngineOptions(strength=0), "strength in"),
    ):
        with pytest.raises(ValueError, match=message):
            open_engine("patch", options)


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("ns", "cv2", "synth"),
        ("biharmonic", "skimage", "synth"),
        ("diffusers:x", "diffusers", "diffusers"),
    ],
)
def test_an_absent_library_is_told_with_its_extra(name, module, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError, match=rf'needs {module}, .* pip install "defi-net\[{extra}\]"'):
        check_engine(name)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """The tiny offline pipeline of the specification's section 4, with random weights."""
    diffusers = pytest.importorskip("diffusers")
    import torch

    torch.manual_seed(0)
    blocks = {"block_out_channels": (32, 64), "norm_num_groups": 8}
    made = diffusers.StableDiffusionInpaintPipeline(
        vae=diffusers.AutoencoderKL(
            latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            **blocks,
        ),
        unet=diffusers.UNet2DConditionModel(
            sample_size=64,
            in_channels=9,
            out_channels=4,
            cross_attention_dim=32,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            **blocks,
        ),
        scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
        text_encoder=None,
        tokenizer=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    folder = tmp_path_factory.mktemp("pipeline")
    made.save_pretrained(folder)
    return folder


def test_diffusers_makes_whole_pictures(pipeline):
    engine = open_engine(f"diffusers:{pipeline}", EngineOptions(steps=2))
    photo, mask = stripes(60, 68), hole((60, 68))  # no multiples of what the pipeline works in
    made = engine(photo, mask, np.random.default_rng(0))
    assert made.photo.shape == photo.shape
    assert made.photo.dtype == np.uint8
    assert made.settings == "steps=2"
    assert (made.photo[~mask] != photo[~mask]).any()  # the autoencoder changes what is not masked
    again = engine(photo, mask, np.random.default_rng(0))
    np.testing.assert_array_equal(made.photo, again.photo)
    other = engine(photo, mask, np.random.default_rng(1))
    assert (made.photo != other.photo).any()


@pytest.mark.parametrize("change", [{"layers_per_block": 10**6}, {"cross_attention_dim": 10**7}])
def test_a_pipeline_that_promises_a_huge_network(pipeline, tmp_path, change):
    shutil.copytree(pipeline, tmp_path / "hostile")
    config = tmp_path / "hostile" / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(DataError, match=r"must be at most 10,000|far larger than its file"):
        open_engine(f"diffusers:{tmp_path / 'hostile'}", EngineOptions(steps=2))


def test_code_in_a_pipelines_folder_is_not_run(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": ["evil", "Evil"]}')
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass")
    with pytest.raises(DataError, match=r"evil\.py: a model's folder must hold no Python file"):
        open_engine(f"diffusers:{tmp_path}")
    assert not (tmp_path / "ran").exists()


def test_folders_without_an_inpainting_pipeline_are_refused(pipeline, tmp_path):
    with pytest.raises(DataError, match="no diffusers pipeline"):
        check_engine("diffusers")
    with pytest.raises(DataError, match="no diffusers pipeline"):
        check_engine(f"diffusers:{tmp_path}")
    index = tmp_path / "model_index.json"
    index.write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(DataError, match="a StableDiffusionPipeline does not inpaint"):
        open_engine(f"diffusers:{tmp_path}")
    index.write_text(json.dumps({"_class_name": "StableDiffusionInpaintPipeline"}))
    with pytest.raises(DataError, match="cannot be loaded as a StableDiffusionInpaintPipeline"):
        open_engine(f"diffusers:{tmp_path}")
    index.write_text("[")
    with pytest.raises(DataError, match="not readable"):
        open_engine(f"diffusers:{tmp_path}")
