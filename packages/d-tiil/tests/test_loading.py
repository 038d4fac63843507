"""Kinds of models: plain, velocity, inpainting, XL; and those that are refused."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

from d_tiil import DTIILPipeline  # noqa: E402
from d_tiil.model import DiffusionModel, frozen  # noqa: E402
from papercommons.errors import DataError  # noqa: E402
from PIL import Image  # noqa: E402

TEXT = "a red circle left of a blue square"


def changed(pipe, **parts):
    """Return the pipeline with other parts."""
    other = DTIILPipeline(**{**pipe.components, **parts})
    other.set_progress_bar_config(disable=True)
    other.settings = pipe.settings
    return other


def test_a_saved_pipeline_loads_again_with_its_settings(pipe, quick, tmp_path):
    pipe.save_pretrained(tmp_path / "again")
    again = DTIILPipeline.from_pretrained(tmp_path / "again")
    for ours, theirs in zip(again.unet.parameters(), pipe.unet.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert again.settings == pipe.settings == quick


def test_velocity_is_made_noise(pipe, image):
    config = pipe.scheduler.config
    kinds = {"prediction_type": "v_prediction"}
    for options in (kinds, kinds | {"rescale_betas_zero_snr": True}):
        other = changed(pipe, scheduler=diffusers.DDIMScheduler.from_config(config, **options))
        model = DiffusionModel(other)
        x = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        timesteps, text = torch.tensor([100, 900]), model.encode_text([TEXT, ""])
        velocity = other.unet(x, timesteps, text).sample
        a = model.alpha_bars[timesteps][:, None, None, None]
        expected = a.sqrt() * velocity + (1 - a).sqrt() * x
        torch.testing.assert_close(model.denoiser()(x, timesteps, text), expected)
        assert model.rows == 2
    assert other(image, TEXT, depth="score").score <= 100


def test_texts_are_encoded_as_stable_diffusion_does(pipe, stock):
    encoded = DiffusionModel(pipe).encode_text([TEXT, ""])
    torch.testing.assert_close(encoded, stock.encode_prompt([TEXT, ""], "cpu", 1, False)[0])


def test_images_survive_the_autoencoders_scale(pipe, image):
    model = DiffusionModel(pipe)
    latents = model.encode(Image.fromarray(image))
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1
    expected = pipe.vae.encode(pixels).latent_dist.mode() * pipe.vae.config.scaling_factor
    torch.testing.assert_close(latents, expected.detach(), rtol=1e-4, atol=1e-5)
    with pytest.raises(DataError, match="not finite"):
        model.decode(latents * float("nan"))


def test_images_are_scaled_to_the_models_size(pipe):
    model = DiffusionModel(pipe)
    large = Image.new("RGB", (300, 150))
    assert model.fit(large, resize=True).size == (48, 24)  # 32 x 32 pixels, multiples of 8
    assert model.fit(Image.new("RGB", (32, 32)), resize=True).size == (32, 32)
    assert model.fit(large, resize=False).size == (300, 150)
    with pytest.raises(DataError, match="4000 x 1 pixels, which is too long and narrow"):
        model.fit(Image.new("RGB", (4000, 1)), resize=True)
    with pytest.raises(DataError, match="31 x 32 pixels and the model needs multiples of 2"):
        model.fit(Image.new("RGB", (31, 32)), resize=False)


def test_frozen_weights_ask_for_gradients_again(pipe):
    pipe.unet.requires_grad_(True)
    first = next(pipe.unet.parameters())
    first.requires_grad_(False)
    with frozen(pipe.unet):
        assert not any(weight.requires_grad for weight in pipe.unet.parameters())
    assert [w.requires_grad for w in pipe.unet.parameters()].count(False) == 1
    assert not first.requires_grad


def inpainting_parts(pipe):
    torch.manual_seed(0)
    config = dict(pipe.unet.config) | {"in_channels": 9}
    unet = diffusers.UNet2DConditionModel.from_config(config).eval()
    return {**pipe.components, "unet": unet}


def test_an_inpainting_model_gets_mask_and_image(pipe, image):
    seen = []
    parts = inpainting_parts(pipe)
    parts["unet"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    pipe.use_inpainting(**parts)
    others = []
    hook = pipe.unet.register_forward_pre_hook(lambda _, inputs: others.append(inputs[0]))
    done = pipe(image, TEXT)
    hook.remove()
    assert done.rows == sum(map(len, seen)) + sum(map(len, others))
    mask = torch.from_numpy(done.first.mask)
    assert len(seen) == done.settings.edit.steps
    assert torch.equal(seen[0][0, 4], mask.float())
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1
    hidden = mask.repeat_interleave(2, 0).repeat_interleave(2, 1)
    masked = DiffusionModel(pipe).encode_pixels(pixels * ~hidden)
    torch.testing.assert_close(seen[0][:1, 5:], masked, rtol=1e-4, atol=1e-5)
    assert done.edited.size == (32, 32)


def test_inpainting_models_are_loaded_beside_and_refused_alone(pipe, folder, tmp_path):
    with pytest.raises(DataError, match="takes 4 channels and an inpainting one takes 9"):
        DTIILPipeline.from_pretrained(folder, inpainting=folder)
    parts = inpainting_parts(pipe)
    with pytest.raises(DataError, match="takes 9 channels and gives 4, latents have 4"):
        DTIILPipeline(**parts)
    kept = {k: v for k, v in parts.items() if v is not None}
    left_out = {"safety_checker": None, "feature_extractor": None}
    stock = diffusers.StableDiffusionInpaintPipeline(
        **kept, **left_out, requires_safety_checker=False
    )
    stock.save_pretrained(tmp_path / "inpainting")
    both = DTIILPipeline.from_pretrained(folder, inpainting=tmp_path / "inpainting")
    assert both._inpainting.unet.config.in_channels == 9


def test_xl_aligns_the_pooled_vector_too(stock, image, quick):
    def encoder(kind, tokens):
        config = transformers.CLIPTextConfig(
            vocab_size=len(tokens),
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=tokens.model_max_length,
            projection_dim=8,
            bos_token_id=tokens.bos_token_id,
            eos_token_id=tokens.eos_token_id,
            pad_token_id=tokens.pad_token_id,
        )
        return kind(config).eval()

    torch.manual_seed(0)
    tokens = stock.tokenizer
    unet = diffusers.UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        transformer_layers_per_block=2,
        attention_head_dim=2,
        norm_num_groups=4,
        cross_attention_dim=64,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 8,
    ).eval()
    parts = {
        "vae": stock.vae,
        "unet": unet,
        "scheduler": stock.scheduler,
        "text_encoder": encoder(transformers.CLIPTextModel, tokens),
        "tokenizer": tokens,
        "text_encoder_2": encoder(transformers.CLIPTextModelWithProjection, tokens),
        "tokenizer_2": tokens,
    }
    xl = DTIILPipeline(**parts)
    xl.set_progress_bar_config(disable=True)
    packed = DiffusionModel(xl).encode_text([TEXT, ""])
    theirs = diffusers.StableDiffusionXLPipeline(**parts).encode_prompt(
        TEXT, do_classifier_free_guidance=False
    )
    torch.testing.assert_close(packed[:1, :-1], theirs[0])
    torch.testing.assert_close(packed[:1, -1, :8], theirs[2])
    assert not packed[0, -1, 8:].any()
    assert not packed[1].any()
    done = xl(image, TEXT, settings=quick)
    moved = (done.embeddings.aligned - done.embeddings.caption)[0, -1]
    assert moved[:8].abs().min() > 0
    assert not moved[8:].any()
    assert done.mask.shape == (32, 32)


def test_half_precision_needs_a_gpu_and_bfloat16_does_not(folder, image):
    with pytest.raises(ValueError, match="float16 needs a GPU"):
        DTIILPipeline.from_pretrained(folder, dtype=torch.float16)(image, TEXT)
    rough = DTIILPipeline.from_pretrained(folder, dtype=torch.bfloat16)
    rough.set_progress_bar_config(disable=True)
    done = rough(image, TEXT)
    assert done.embeddings.aligned.dtype == torch.float32
    assert done.aligned.losses.isfinite().all()
    assert np.isfinite(done.score)


def altered(folder, tmp_path, part, **changes):
    """Return a copy of the folder with other settings of a part."""
    copy = tmp_path / "altered"
    shutil.copytree(folder, copy)
    names = {"": "model_index.json", "scheduler": "scheduler/scheduler_config.json"}
    path = copy / names.get(part, f"{part}/config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return copy


def test_models_that_cannot_be_used_are_refused_with_the_reason(folder, tmp_path, pipe):
    flow = {"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}
    with pytest.raises(DataError, match="FluxPipeline is a flow model"):
        DTIILPipeline.from_pretrained(altered(folder, tmp_path / "a", "", **flow))
    with pytest.raises(DataError, match=r"has no text_encoder; a text-to-image"):
        DTIILPipeline.from_pretrained(
            altered(folder, tmp_path / "b", "", text_encoder=[None, None])
        )
    sample = altered(folder, tmp_path / "c", "scheduler", prediction_type="sample")
    with pytest.raises(DataError, match="predicts sample; only epsilon and v_prediction"):
        DTIILPipeline.from_pretrained(sample)
    with pytest.raises(DataError, match="FlowMatchEulerDiscreteScheduler has no table"):
        changed(pipe, scheduler=diffusers.FlowMatchEulerDiscreteScheduler())


@pytest.mark.parametrize("where", ["", "unet"])
def test_code_in_a_models_folder_is_not_run(folder, tmp_path, where):
    marker = tmp_path / "ran"
    named = {"unet": ["evil", "Evil"]} if where else {"_class_name": ["evil", "Evil"]}
    hostile = altered(folder, tmp_path, "", **named)
    (hostile / where / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass")
    with pytest.raises(DataError, match=r"evil\.py: a model's folder must hold no Python file"):
        DTIILPipeline.from_pretrained(hostile)
    assert not marker.exists()


def test_what_is_no_pipeline_is_named(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no model_index\.json"):
        DTIILPipeline.from_pretrained(tmp_path / "empty")
    with pytest.raises(DataError, match="no such folder, and not a hub id"):
        DTIILPipeline.from_pretrained(tmp_path / "none")
    shutil.copytree(folder, tmp_path / "broken")
    (tmp_path / "broken/unet/config.json").write_text("{")
    with pytest.raises(DataError, match=r"broken/unet/config\.json: not readable JSON"):
        DTIILPipeline.from_pretrained(tmp_path / "broken")
    shutil.copytree(folder, tmp_path / "settings")
    (tmp_path / "settings/d_tiil.json").write_text('{"thresholds": 1}')
    with pytest.raises(DataError, match=r"d_tiil\.json: not readable settings"):
        DTIILPipeline.from_pretrained(tmp_path / "settings")


def test_latents_of_an_inpainting_model_must_fit(pipe, image):
    parts = inpainting_parts(pipe)
    pipe.use_inpainting(**parts)
    pipe._inpainting.vae = SimpleNamespace(
        config=SimpleNamespace(block_out_channels=(8,), latent_channels=4)
    )
    with pytest.raises(DataError, match="latents have another size"):
        pipe(image, TEXT)


def test_a_folder_without_its_tokenizer(folder, tmp_path):
    hostile = tmp_path / "hostile"
    shutil.copytree(folder, hostile)
    shutil.rmtree(hostile / "tokenizer")
    with pytest.raises(DataError):
        DTIILPipeline.from_pretrained(hostile)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("unet", {"layers_per_block": 10**6}),
        ("unet", {"block_out_channels": [8, 16, 10**4]}),
        ("unet", {"sample_size": 10**6}),
        ("vae", {"block_out_channels": [8, 10**4]}),
        ("text_encoder", {"vocab_size": 10**9}),
    ],
)
def test_a_folder_that_promises_a_huge_network(folder, tmp_path, part, change):
    shutil.copytree(folder, tmp_path / "hostile")
    config = tmp_path / "hostile" / part / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    says = r"must be at most 10,000|far larger than its file|allocate memory"
    with pytest.raises(DataError, match=says):
        DTIILPipeline.from_pretrained(tmp_path / "hostile")


@pytest.mark.parametrize("steps", [10**9, 0, "x"])
def test_noise_of_very_many_steps(folder, tmp_path, steps):
    shutil.copytree(folder, tmp_path / "hostile")
    config = tmp_path / "hostile" / "scheduler" / "scheduler_config.json"
    held = json.loads(config.read_text()) | {"num_train_timesteps": steps}
    config.write_text(json.dumps(held))
    with pytest.raises(DataError, match="num_train_timesteps must be in"):
        DTIILPipeline.from_pretrained(tmp_path / "hostile")
