"""Kinds of models: plain, velocity, consistency, XL; and those that are refused."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

diffusers = pytest.importorskip("diffusers")

from multi_edits import AspectGroup, Edit, MultiEditsPipeline  # noqa: E402
from multi_edits.model import EditingModel  # noqa: E402
from papercommons.errors import DataError  # noqa: E402

OPTIONS = {
    "source_prompt": "a red circle left of a blue square",
    "edits": [Edit("red", "green", 1)],
    "groups": [AspectGroup("rigid", (0,))],
    "steps": 2,
}


def with_scheduler(pipe, scheduler):
    """Return the pipeline with another scheduler."""
    parts = {name: part for name, part in pipe.components.items() if name != "scheduler"}
    other = MultiEditsPipeline(**parts, scheduler=scheduler)
    other.set_progress_bar_config(disable=True)
    return other


def test_a_saved_pipeline_loads_again(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "again")
    again = MultiEditsPipeline.from_pretrained(tmp_path / "again")
    for ours, theirs in zip(again.unet.parameters(), pipe.unet.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_velocity_is_made_noise(pipe, image):
    config = pipe.scheduler.config
    velocity = with_scheduler(
        pipe, diffusers.DDIMScheduler.from_config(config, prediction_type="v_prediction")
    )
    ends = diffusers.DDIMScheduler.from_config(
        config, prediction_type="v_prediction", rescale_betas_zero_snr=True
    )
    assert float(ends.alphas_cumprod[-1]) < 1e-6
    for other in (velocity, with_scheduler(pipe, ends)):
        assert other(image, **OPTIONS).image.size == (32, 32)


def test_a_consistency_model_has_its_own_timesteps(pipe, image):
    lcm = with_scheduler(pipe, diffusers.LCMScheduler.from_config(pipe.scheduler.config))
    assert EditingModel(lcm).timesteps(4) == [999, 759, 499, 259]
    assert EditingModel(pipe).timesteps(4) == [999, 749, 499, 249]
    with pytest.raises(ValueError, match=r"1\.\.50"):
        EditingModel(lcm).timesteps(51)
    assert lcm(image, **OPTIONS).image.size == (32, 32)


def test_xl_has_two_encoders_and_sizes(xl_parts, image):
    xl = MultiEditsPipeline(**xl_parts)
    xl.set_progress_bar_config(disable=True)
    encoded = EditingModel(xl).prompts(["a red circle", "a"])
    theirs = diffusers.StableDiffusionXLPipeline(**xl_parts).encode_prompt(
        ["a red circle", "a"], do_classifier_free_guidance=False
    )
    torch.testing.assert_close(encoded.states, theirs[0])
    torch.testing.assert_close(encoded.pooled, theirs[2])
    done = xl(image, **OPTIONS)
    assert done.image.size == (32, 32)
    assert done.masks.shape == (1, 16, 16)


@pytest.mark.parametrize("zeros", [True, False])
def test_an_xl_folder_says_whether_the_empty_prompt_is_zeros(xl_parts, image, tmp_path, zeros):
    stock = diffusers.StableDiffusionXLPipeline(**xl_parts, force_zeros_for_empty_prompt=zeros)
    stock.save_pretrained(tmp_path)
    xl = MultiEditsPipeline.from_pretrained(tmp_path)
    xl.set_progress_bar_config(disable=True)
    seen = []
    xl.unet.register_forward_pre_hook(lambda _, args, named: seen.append(named), with_kwargs=True)
    xl(image, **OPTIONS)
    states, pooled = (
        seen[0]["encoder_hidden_states"],
        seen[0]["added_cond_kwargs"]["text_embeds"],
    )
    half = len(states) // 2
    assert states[half:].any(dim=(1, 2)).all()
    assert pooled[half:].any(dim=1).all()
    for unconditional in (states[:half], pooled[:half]):
        assert bool(unconditional.any()) != zeros


def test_prompts_are_encoded_as_stable_diffusion_does(pipe, stock):
    encoded = EditingModel(pipe).prompts(["a red circle", ""])
    theirs = stock.encode_prompt(["a red circle", ""], "cpu", 1, False)[0]
    torch.testing.assert_close(encoded.states, theirs)
    assert encoded.pooled is None


def test_images_survive_the_autoencoders_scale(pipe, image):
    model = EditingModel(pipe)
    from PIL import Image

    latents = model.encode(Image.fromarray(image))
    factor = pipe.vae.config.scaling_factor
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1
    expected = pipe.vae.encode(pixels).latent_dist.mode() * factor
    torch.testing.assert_close(latents, expected.detach(), rtol=1e-4, atol=1e-5)
    with pytest.raises(DataError, match="not finite"):
        model.decode(latents * float("nan"))


def test_half_precision_needs_a_gpu(folder, image):
    half = MultiEditsPipeline.from_pretrained(folder, dtype=torch.float16)
    with pytest.raises(ValueError, match="float16 needs a GPU"):
        half(image, **OPTIONS)


def altered(folder, tmp_path, part, **changes):
    """Return a copy of the folder with other settings of a part."""
    copy = tmp_path / "altered"
    shutil.copytree(folder, copy)
    names = {"": "model_index.json", "scheduler": "scheduler/scheduler_config.json"}
    path = copy / names.get(part, f"{part}/config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return copy


def test_models_that_cannot_be_used_are_refused_with_the_reason(folder, tmp_path):
    flow = {"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}
    with pytest.raises(DataError, match="FluxPipeline is a flow model"):
        MultiEditsPipeline.from_pretrained(altered(folder, tmp_path / "a", "", **flow))
    with pytest.raises(DataError, match=r"has no text_encoder; a text-to-image"):
        MultiEditsPipeline.from_pretrained(
            altered(folder, tmp_path / "b", "", text_encoder=[None, None])
        )
    sample = altered(folder, tmp_path / "c", "scheduler", prediction_type="sample")
    with pytest.raises(DataError, match="predicts sample; only epsilon and v_prediction"):
        MultiEditsPipeline.from_pretrained(sample)


def test_flow_schedulers_and_inpainting_networks_are_refused(pipe):
    with pytest.raises(DataError, match="FlowMatchEulerDiscreteScheduler has no table"):
        with_scheduler(pipe, diffusers.FlowMatchEulerDiscreteScheduler())
    parts = dict(pipe.components)
    config = dict(pipe.unet.config) | {"in_channels": 9}
    parts["unet"] = diffusers.UNet2DConditionModel.from_config(config)
    with pytest.raises(DataError, match="takes 9 channels and gives 4, latents have 4"):
        MultiEditsPipeline(**parts)


@pytest.mark.parametrize("where", ["", "unet"])
def test_code_in_a_models_folder_is_not_run(folder, tmp_path, where):
    marker = tmp_path / "ran"
    named = {"unet": ["evil", "Evil"]} if where else {"_class_name": ["evil", "Evil"]}
    hostile = altered(folder, tmp_path, "", **named)
    (hostile / where / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass")
    with pytest.raises(DataError, match=r"evil\.py: a model's folder must hold no Python file"):
        MultiEditsPipeline.from_pretrained(hostile)
    assert not marker.exists()


def test_what_is_no_pipeline_is_named(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no model_index\.json"):
        MultiEditsPipeline.from_pretrained(tmp_path / "empty")
    with pytest.raises(DataError, match="no such folder, and not a hub id"):
        MultiEditsPipeline.from_pretrained(tmp_path / "none")
    shutil.copytree(folder, tmp_path / "broken")
    (tmp_path / "broken/unet/config.json").write_text("{")
    with pytest.raises(DataError, match=r"broken/unet/config\.json: not readable JSON"):
        MultiEditsPipeline.from_pretrained(tmp_path / "broken")


def test_a_folder_without_its_tokenizer_or_nested_without_end(folder, tmp_path):
    hostile = tmp_path / "hostile"
    shutil.copytree(folder, hostile)
    shutil.rmtree(hostile / "tokenizer")
    with pytest.raises(DataError):
        MultiEditsPipeline.from_pretrained(hostile)
    (hostile / "model_index.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match="not readable"):
        MultiEditsPipeline.from_pretrained(hostile)


def test_code_behind_a_link_is_not_run(folder, tmp_path):
    hostile, elsewhere = tmp_path / "hostile", tmp_path / "elsewhere"
    shutil.copytree(folder, hostile)
    elsewhere.mkdir()
    (elsewhere / "evil.py").write_text("raise SystemExit")
    (hostile / "more").symlink_to(elsewhere)
    with pytest.raises(DataError, match=r"evil\.py: a model's folder must hold no Python file"):
        MultiEditsPipeline.from_pretrained(hostile)


@pytest.mark.parametrize(
    "change", [{"layers_per_block": 10**6}, {"cross_attention_dim": 10**7}, {"sample_size": 10**6}]
)
def test_a_folder_that_promises_a_huge_network(folder, tmp_path, change):
    shutil.copytree(folder, tmp_path / "hostile")
    config = tmp_path / "hostile" / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(DataError, match=r"must be at most 10,000|far larger than its file"):
        MultiEditsPipeline.from_pretrained(tmp_path / "hostile")


@pytest.mark.parametrize("steps", [10**9, 0, "x"])
def test_noise_of_very_many_steps(folder, tmp_path, steps):
    shutil.copytree(folder, tmp_path / "hostile")
    config = tmp_path / "hostile" / "scheduler" / "scheduler_config.json"
    held = json.loads(config.read_text()) | {"num_train_timesteps": steps}
    config.write_text(json.dumps(held))
    with pytest.raises(DataError, match="num_train_timesteps must be in"):
        MultiEditsPipeline.from_pretrained(tmp_path / "hostile")
