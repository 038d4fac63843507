"""All models here are written by one helper, to be read or refused: so over 400 lines."""

from __future__ import annotations

import json
import re

import pytest
import torch
from gits_sampling.adapters import Guided
from gits_sampling.loading import load_denoiser
from gits_sampling.models import EmpiricalDenoiser, digits_gauss10
from gits_sampling.schedule import check_sigmas
from gits_sampling.solvers import sample
from gits_sampling.warming import warm_up
from papercommons.errors import DataError

diffusers = pytest.importorskip("diffusers")
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array_"),  # diffusers' own
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

SMALL = {
    "sample_size": 8,
    "block_out_channels": (8, 8),
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "attention_head_dim": 8,
}
BLOCKS = {
    "down_block_types": ("DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
}


def make_unet(channels=1, out=None, **options):
    torch.manual_seed(0)
    out = channels if out is None else out
    unet = diffusers.UNet2DModel(
        in_channels=channels, out_channels=out, **SMALL, **BLOCKS, **options
    )
    return unet.eval()


def save_pipeline(folder, scheduler, **options):
    unet = make_unet(**options)
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler()).save_pretrained(folder)
    scheduler.save_pretrained(folder / "scheduler")
    index = (folder / "model_index.json").read_text()
    name = type(scheduler).__name__
    (folder / "model_index.json").write_text(index.replace("DDPMScheduler", name))
    return unet


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("unet/config.json", {"layers_per_block": 10**6}, "must be at most 10,000"),
        ("unet/config.json", {"sample_size": "x"}, "says no sample_size"),
        ("unet/config.json", {"sample_size": [8, 8, 8]}, "says no sample_size"),
        ("unet/config.json", {"sample_size": [10**4, 10**5]}, "must be at most 10,000"),
        ("unet/config.json", {"block_out_channels": [8, 10**4]}, "far larger than its file"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**9}, "must be in"),
    ],
)
def test_a_folder_that_promises_too_much(tmp_path, file, change, message):
    save_pipeline(tmp_path, diffusers.DDIMScheduler())
    config = tmp_path / file
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(DataError, match=message):
        load_denoiser(tmp_path)
    if file.startswith("unet"):
        with pytest.raises(DataError, match=message):
            load_denoiser(tmp_path / "unet")


def test_samples_of_too_many_values_are_refused():
    with pytest.raises(DataError, match="has more than 134,217,728 values"):
        load_denoiser("digits-gauss10", shape=(1, 10**5, 10**5))


def test_code_in_a_models_folder_is_not_run(tmp_path):
    save_pipeline(tmp_path, diffusers.DDIMScheduler())
    index = json.loads((tmp_path / "model_index.json").read_text()) | {"unet": ["evil", "Evil"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    evil = tmp_path / "unet" / "evil.py"
    evil.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass")
    with pytest.raises(DataError, match=r"evil\.py: a model's folder must hold no Python file"):
        load_denoiser(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_denoised_image_is_that_of_diffusers(tmp_path, kind):
    scheduler = diffusers.DDIMScheduler(prediction_type=kind, clip_sample=False)
    unet = save_pipeline(tmp_path, scheduler)
    loaded = load_denoiser(tmp_path)
    step = 400
    alpha = scheduler.alphas_cumprod[step].double()
    sigma = ((1 - alpha) / alpha).sqrt()
    x = float(sigma) * noise(2, 1, 8, 8)
    scaled = x * float(alpha) ** 0.5
    scheduler.set_timesteps(1000)
    with torch.no_grad():
        output = unet(scaled, step).sample
        found = loaded.denoiser(x, sigma)
    wanted = scheduler.step(output, step, scaled).pred_original_sample
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert loaded.shape == (1, 8, 8)
    assert loaded.network_calls == 1
    assert loaded.sigma_max == pytest.approx(157.407, rel=1e-4)
    assert loaded.sigma_min == pytest.approx(0.0100005, rel=1e-4)


def test_edm_is_that_of_diffusers(tmp_path):
    scheduler = diffusers.EDMEulerScheduler(sigma_min=0.01, sigma_max=50.0, sigma_data=0.7)
    unet = save_pipeline(tmp_path, scheduler)
    loaded = load_denoiser(tmp_path)
    sigma, x = torch.tensor(3.0, dtype=torch.float64), 3 * noise(2, 1, 8, 8)
    with torch.no_grad():
        inputs = scheduler.precondition_inputs(x, 3.0)
        output = unet(inputs, scheduler.precondition_noise(3.0)).sample
        found = loaded.denoiser(x, sigma)
    torch.testing.assert_close(found, scheduler.precondition_outputs(x, output, 3.0))
    assert (loaded.sigma_min, loaded.sigma_max) == (0.01, 50.0)
    own = loaded.default(6)
    scheduler.set_timesteps(5)
    torch.testing.assert_close(own[:-1].float(), scheduler.sigmas[:-1], rtol=1e-5, atol=0)
    assert own[-1] == 0


def test_flow_is_that_of_diffusers(tmp_path):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    unet = save_pipeline(tmp_path, scheduler)
    loaded = load_denoiser(tmp_path)
    t = 0.6
    state = noise(2, 1, 8, 8)
    with torch.no_grad():
        wanted = state - t * unet(state, 1000 * t).sample  # what is left at t = 0
        found = loaded.denoiser(state / (1 - t), torch.tensor(t / (1 - t), dtype=torch.float64))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    own = loaded.default(7)
    scheduler.set_timesteps(6)
    times = scheduler.sigmas[1:-1].double()
    torch.testing.assert_close(own[1:-1], times / (1 - times), rtol=1e-5, atol=0)
    assert own[0] == loaded.sigma_max
    check_sigmas(own)


@pytest.mark.parametrize(
    "name",
    ["DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler",
     "DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DDPMScheduler"],
)  # fmt: skip
def test_own_schedule_is_that_of_the_scheduler(tmp_path, name):
    options = {"skip_prk_steps": True} if name == "PNDMScheduler" else {}
    save_pipeline(tmp_path, getattr(diffusers, name)(**options))
    loaded = load_denoiser(tmp_path)
    own = loaded.default(6)
    assert own.shape == (6,)
    check_sigmas(own)
    scheduler = getattr(diffusers, name)(**options)
    scheduler.set_timesteps(5)
    steps = torch.as_tensor(scheduler.timesteps).double().unique().flip(0)
    table = scheduler.alphas_cumprod.double()
    at = ((1 - table) / table).sqrt()[steps.round().long()]
    torch.testing.assert_close(own[:-1], at, rtol=2e-2, atol=0)  # to the nearest training step
    end = sample(loaded.denoiser, float(own[0]) * noise(2, 1, 8, 8), own, solver="ipndm")
    assert end.isfinite().all()
    moved = loaded.own(6)
    check_sigmas(moved)
    assert moved[[0, -1]].tolist() == [loaded.sigma_max, loaded.sigma_min]
    if own[-1] > 0:
        assert torch.equal(moved[1:-1], own[1:-1])
    else:  # one step more, down to sigma_min
        assert torch.equal(moved[1:-1], loaded.default(7)[1:-2])


def test_network_folder_finds_its_scheduler_beside_it(tmp_path):
    unet = save_pipeline(tmp_path, diffusers.DDIMScheduler(prediction_type="v_prediction"))
    whole, part = load_denoiser(tmp_path), load_denoiser(tmp_path / "unet")
    x, sigma = 2 * noise(1, 1, 8, 8), torch.tensor(2.0, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(whole.denoiser(x, sigma), part.denoiser(x, sigma))
    assert whole.fingerprint() == part.fingerprint()
    alone = tmp_path / "elsewhere" / "unet"  # no scheduler beside it
    unet.save_pretrained(alone)
    with pytest.raises(DataError, match="give the prediction"):
        load_denoiser(alone)
    other = load_denoiser(alone, prediction="eps")
    assert other.fingerprint() != whole.fingerprint()
    assert other.default is None
    with pytest.raises(DataError, match="has no schedule of its own"):
        other.own(5)
    narrow = load_denoiser(tmp_path, sigma_min=1.0)
    with pytest.raises(DataError, match=r"does not lie between sigma 157\.407 and 1"):
        narrow.own(11)
    with pytest.raises(DataError, match="did you mean flow"):
        load_denoiser(alone, prediction="flows")


def test_learned_variance_is_left_out(tmp_path):
    unet = save_pipeline(tmp_path, diffusers.DDIMScheduler(), out=2)
    loaded = load_denoiser(tmp_path)
    sigma = torch.tensor(loaded.sigma_min, dtype=torch.float64)
    x = noise(2, 1, 8, 8)
    with torch.no_grad():
        output = unet(x / (1 + sigma.float() ** 2).sqrt(), 0).sample[:, :1]
        found = loaded.denoiser(x, sigma)
    torch.testing.assert_close(found, x - sigma.float() * output)


def test_class_labels_take_turns_and_guide(tmp_path):
    save_pipeline(tmp_path, diffusers.DDIMScheduler(), num_class_embeds=4)
    x, sigma = 2 * noise(1, 1, 8, 8).expand(5, 1, 8, 8), torch.tensor(2.0, dtype=torch.float64)
    with torch.no_grad():
        both = load_denoiser(tmp_path, condition=[0, 2]).denoiser(x, sigma)
        first = load_denoiser(tmp_path, condition=0).denoiser(x, sigma)
        second = load_denoiser(tmp_path, condition=2).denoiser(x, sigma)
        nothing = load_denoiser(tmp_path, condition=3).denoiser(x, sigma)
        guided = load_denoiser(tmp_path, condition=2, negative=3, guidance=4.0)
        found = guided.denoiser(x, sigma)
    assert (first - second).abs().max() > 1e-3
    torch.testing.assert_close(both[::2], first[::2])
    torch.testing.assert_close(both[1::2], second[1::2])
    torch.testing.assert_close(found, nothing + 4 * (second - nothing))
    assert isinstance(guided.denoiser, Guided)
    assert guided.network_calls == 2
    with pytest.raises(DataError, match="give class labels 0 to 3"):
        load_denoiser(tmp_path)
    with pytest.raises(DataError, match="0 to 3, got 4"):
        load_denoiser(tmp_path, condition=4)
    with pytest.raises(DataError, match=r"guidance needs the label .* \(negative\)"):
        load_denoiser(tmp_path, condition=1, guidance=2.0)


def test_dit_with_learned_variance_and_a_label_for_none(tmp_path):
    torch.manual_seed(0)
    transformer = diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        sample_size=8,
        num_embeds_ada_norm=10,
        norm_num_groups=2,
    ).eval()
    vae = diffusers.AutoencoderKL(block_out_channels=(4,), norm_num_groups=2)
    diffusers.DiTPipeline(transformer, vae, diffusers.DDIMScheduler()).save_pretrained(tmp_path)
    loaded = load_denoiser(tmp_path, condition=[7, 3], negative=10, guidance=2.0)
    assert loaded.shape == (4, 8, 8)
    sigma = torch.tensor(loaded.sigma_min, dtype=torch.float64)
    x = noise(2, 4, 8, 8)
    scaled, time = x / (1 + sigma.float() ** 2).sqrt(), torch.zeros(2, dtype=torch.long)
    with torch.no_grad():
        plain, wanted = (
            transformer(scaled, time, class_labels=torch.tensor(labels)).sample[:, :4]
            for labels in ([10, 10], [7, 3])
        )
        found = loaded.denoiser(x, sigma)
    assert (plain - wanted).abs().max() > 1e-3
    wanted = x - sigma.float() * (plain + 2 * (wanted - plain))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def make_text_pipeline(folder):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    words = ["<|startoftext|>", "<|endoftext|>", *"catdog", *(f"{c}</w>" for c in "tgacdo")]
    vocabulary = {word: k for k, word in enumerate(dict.fromkeys(words))}
    files = folder / "tokenizer-files"  # transformers 4 and 5 both read these
    files.mkdir()
    (files / "vocab.json").write_text(json.dumps(vocabulary))
    (files / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(files, model_max_length=8)
    config = transformers.CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=0,
        eos_token_id=1,
    )
    unet = diffusers.UNet2DConditionModel(
        in_channels=4,
        out_channels=4,
        cross_attention_dim=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **SMALL,
    )
    vae = diffusers.AutoencoderKL(block_out_channels=(4,), norm_num_groups=2)
    scheduler = diffusers.PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True
    )
    pipeline = diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=transformers.CLIPTextModel(config).eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return pipeline


def test_prompts_guide_a_text_pipeline(tmp_path):
    pipeline = make_text_pipeline(tmp_path)
    loaded = load_denoiser(tmp_path, condition=["cat", "dog"], guidance=5.0)
    assert loaded.network_calls == 2
    assert loaded.shape == (4, 8, 8)
    assert loaded.conditions == ("cat", "dog")
    assert loaded.sigma_max == pytest.approx(14.6146, rel=1e-4)
    sigma = torch.tensor(loaded.sigma_min, dtype=torch.float64)
    x = noise(2, 4, 8, 8)
    scaled = x / (1 + sigma.float() ** 2).sqrt()
    with torch.no_grad():
        text, empty = pipeline.encode_prompt(["cat", "dog"], "cpu", 1, True)
        plain = pipeline.unet(scaled, 0, empty).sample
        prompted = pipeline.unet(scaled, 0, text).sample
        found = loaded.denoiser(x, sigma)
    assert (text[0] - text[1]).abs().max() > 1e-3
    wanted = x - sigma.float() * (plain + 5 * (prompted - plain))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert load_denoiser(tmp_path, condition="cat").denoiser.scale == 7.5
    assert load_denoiser(tmp_path, condition="cat", guidance=1).network_calls == 1
    with pytest.raises(DataError, match="needs a condition; give prompts"):
        load_denoiser(tmp_path)
    with pytest.raises(DataError, match="pass the folder of the whole text pipeline"):
        load_denoiser(tmp_path / "unet", condition="cat")
    with pytest.raises(DataError, match="prompts must be text, got 3"):
        load_denoiser(tmp_path, condition=3)


def test_trained_network(tmp_path):
    pytest.importorskip("lightning")
    from gits_sampling.lightning import GITSModule
    from gits_sampling.saved import save_network

    torch.manual_seed(0)
    options = {"width": 8, "multipliers": [1, 1], "blocks": 1, "attention": []}
    module = GITSModule(
        shape=(1, 8, 8), num_classes=3, network_options=options, sigma_max=40.0, sigma_data=0.4
    )
    for weight in module.average.parameters():  # the last layer begins with zeros
        torch.nn.init.normal_(weight, std=0.2)
    save_network(module, tmp_path / "export")
    x, sigma = 2 * noise(3, 1, 8, 8), torch.tensor(2.0, dtype=torch.float64)
    loaded = load_denoiser(tmp_path / "export", condition=[2, 0], guidance=3.0)
    assert (loaded.sigma_min, loaded.sigma_max, loaded.shape) == (0.002, 40.0, (1, 8, 8))
    assert loaded.network_calls == 2
    with torch.no_grad():
        found = loaded.denoiser(x, sigma)
        parts = [module.denoiser(labels=label)(x, sigma) for label in (-1, 0, 2)]
    plain, zero, two = parts
    wanted = plain + 3 * (torch.stack([two[0], zero[1], two[2]]) - plain)
    torch.testing.assert_close(found, wanted)
    assert load_denoiser(tmp_path / "export").conditions == (0, 1, 2)
    for options, message in (
        ({"condition": 3}, "labels must be -1 to 2"),
        ({"condition": "cat"}, "class labels must be integers"),
        ({"negative": 1}, "takes no negative"),
        ({"prediction": "eps"}, "takes no prediction"),
    ):
        with pytest.raises(DataError, match=message):
            load_denoiser(tmp_path / "export", **options)
    (tmp_path / "broken.ckpt").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"broken\.ckpt"):
        load_denoiser(tmp_path / "broken.ckpt")


def test_digits_are_closed_form():
    loaded = load_denoiser("digits-empirical")
    assert isinstance(loaded.denoiser, EmpiricalDenoiser)
    assert (loaded.sigma_min, loaded.sigma_max, loaded.shape) == (0.002, 80.0, (1, 8, 8))
    assert loaded.like.dtype == torch.float64
    other = load_denoiser("digits-gauss10", sigma_max=40.0, dtype=torch.float32)
    assert other.sigma_max == 40.0
    options = {"sigma_min": 0.002, "sigma_max": 40.0, "shape": (1, 8, 8)}
    warm = warm_up(other.denoiser, samples=1, held_out=0, like=other.like, **options)
    assert warm.about["fingerprint"] == other.fingerprint() != loaded.fingerprint()
    assert other.like.dtype == torch.float32
    x, sigma = 2 * noise(3, 1, 8, 8), torch.tensor(2.0, dtype=torch.float64)
    torch.testing.assert_close(other.denoiser(x, sigma), digits_gauss10()(x, sigma))


def test_bad_folders(tmp_path):
    with pytest.raises(DataError, match="no model"):
        load_denoiser(tmp_path)
    save_pipeline(tmp_path, diffusers.DDIMScheduler())
    with pytest.raises(DataError, match="takes no condition"):
        load_denoiser(tmp_path, guidance=3.0)
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(DataError, match="not a readable diffusers model") as caught:
        load_denoiser(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    with pytest.raises(DataError, match="AutoencoderKL is not supported"):
        load_denoiser(tmp_path / "other")


def test_refused_schedulers(tmp_path):
    save_pipeline(tmp_path, diffusers.CMStochasticIterativeScheduler())
    with pytest.raises(DataError, match=re.escape("CMStochasticIterativeScheduler")):
        load_denoiser(tmp_path)
