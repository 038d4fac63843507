from __future__ import annotations

import diffusers
import pytest
import torch
from lightning.pytorch import Callback
from multi_edits.tiny import make_tiny, make_tiny_for
from multi_edits.tokenizer import make_tokenizer
from papercommons.cli import RunOptions
from papercommons.data.scene_data import SceneBatch, SceneData, as_images, draw_scenes
from papercommons.data.scenes import BACKGROUND, CROWDED, SIMPLE, Fact, longest_caption, words
from papercommons.errors import DataError
from papercommons.text_to_image.autoencoder import AutoencoderModule, set_latent_scale
from papercommons.text_to_image.binding import draw_captions, measure_binding
from papercommons.text_to_image.module import TextToImageModule, save_pipeline
from papercommons.text_to_image.text_encoder import PlaceReader, TextEncoderModule
from papercommons.text_to_image.training import sketch, train_text_to_image
from papercommons.text_to_image.vocabulary import make_merges
from papercommons.training import fit, seed_everything
from torch.nn import functional as F

CPU = RunOptions(accelerator="cpu")
BRIGHTNESS = ("black", "purple", "white")


def small(preset=SIMPLE, **options):
    """Return a pipeline as narrow as it may be."""
    options = {"channels": (8, 8, 16), "vae_channels": (8, 8)} | options
    return make_tiny(words(preset), max_length=longest_caption(preset) + 2, **options)


def images_of(scenes):
    return as_images(torch.stack([torch.from_numpy(s.render()) for s in scenes]).movedim(-1, 1))


def same_weights(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_words_are_single_tokens_and_others_fall_apart():
    for preset in (SIMPLE, CROWDED):
        tokenizer = make_tokenizer(words(preset), 40)
        for scene in draw_scenes(preset, 20, seed=0):
            tokens = tokenizer.tokenize(scene.caption())
            assert tokens == [f"{word}</w>" for word in scene.caption().split()]
    ids = tokenizer("a red circle", padding="max_length").input_ids
    assert len(ids) == 40
    assert ids[0] == tokenizer.bos_token_id
    assert set(ids[4:]) == {tokenizer.eos_token_id}
    assert tokenizer.tokenize("zoo, 7") == ["z", "o", "o</w>", ",</w>", "7</w>"]
    assert tokenizer.unk_token_id not in tokenizer("zoo, 7").input_ids[1:-1]
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "a red circle"


def test_merges_keep_words_whole_that_share_letters():
    known = ["red", "striped", "triangle", "tri", "angle", "edred"]
    tokenizer = make_tokenizer(known, 10)
    for word in known:
        assert len(tokenizer.tokenize(word)) == 1
    assert make_merges(["ab", "a"]) == [("a", "b</w>")]
    with pytest.raises(ValueError, match="'Red': must be of lower-case"):
        make_tokenizer(["Red"], 10)
    with pytest.raises(ValueError, match="max_length must be >= 3"):
        make_tokenizer(known, 2)


def test_the_tiny_pipeline_is_ordinary(tmp_path):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    pipeline = make_tiny_for(SIMPLE)
    assert torch.equal(torch.get_rng_state(), state)
    folder = save_pipeline(pipeline, tmp_path / "model")
    loaded = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    captions = ["a red circle left of a blue square on a black background", ""]
    made = draw_captions(pipeline, captions, steps=2)
    assert made.shape == (2, 32, 32, 3)
    assert (made == draw_captions(loaded, captions, steps=2)).all()
    assert (made == draw_captions(loaded, captions, steps=2, batch_size=1)).mean() > 0.99
    assert (made != draw_captions(loaded, captions, steps=2, seed=1)).any()
    save_pipeline(small(), folder)  # a pipeline may be replaced
    assert not list(tmp_path.glob(".*"))
    changed = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    assert changed.unet.config.block_out_channels == [8, 8, 16]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="holds other files"):
        save_pipeline(pipeline, tmp_path / "other")
    with pytest.raises(DataError, match="is a file"):
        save_pipeline(pipeline, tmp_path / "other" / "notes.txt")


def test_attention_is_where_it_is_asked_for():
    for full, wanted in ((False, {16, 64}), (True, {16, 64, 256})):
        unet = small(full_attention=full).unet
        positions = []
        for name, module in unet.named_modules():
            if name.endswith("attn2"):
                module.to_q.register_forward_hook(
                    lambda _, __, q, to=positions: to.append(len(q[0]))
                )
        unet(torch.randn(1, 4, 16, 16), 5, torch.randn(1, 14, 64))
        assert set(positions) == wanted
    noise = small(prediction="epsilon")
    assert small().scheduler.config.prediction_type == "v_prediction"
    assert noise.scheduler.config.prediction_type == "epsilon"
    assert same_weights(small().unet, noise.unet)
    assert not same_weights(small().unet, small(seed=1).unet)
    with pytest.raises(ValueError, match="multiple of 8 from 16 on, got 20"):
        small(size=20)
    with pytest.raises(ValueError, match=r"multiples of 8, got \(8, 8, 12\)"):
        small(channels=(8, 8, 12))


def test_latents_get_a_deviation_of_one():
    vae = small().vae
    images = images_of(draw_scenes(SIMPLE, 64, seed=0))
    scale = set_latent_scale(vae, images)
    assert vae.config.scaling_factor == scale
    with torch.no_grad():
        latents = vae.encode(images).latent_dist.mode() * vae.config.scaling_factor
    assert latents.std().item() == pytest.approx(1, rel=1e-5)
    with pytest.raises(ValueError, match="standard deviation is nan"):
        set_latent_scale(vae, images * torch.nan)


def test_the_autoencoder_learns():
    seed_everything(0)
    data = SceneData("simple", train=64, val=8, batch_size=8)
    module = AutoencoderModule(small().vae)
    _, history = fit(module, data, epochs=3, run=CPU)
    assert history.rows[-1]["val/mse"] < 0.7 * history.rows[0]["train/mse"]
    with pytest.raises(ValueError, match="need lr > 0"):
        AutoencoderModule(module.vae, lr=0.0)


def test_the_text_encoder_learns_what_words_mean():
    seed_everything(0)
    pipeline = small()
    data = SceneData("simple", train=640, val=32, batch_size=16)
    module = TextEncoderModule(pipeline.text_encoder, pipeline.tokenizer)
    pooled = F.avg_pool2d(as_images(data.val.pictures), 2)
    _, history = fit(module, data, epochs=4, run=CPU)
    variance = (pooled - pooled.mean(0)).square().mean().item()
    assert history.rows[-1]["val/loss"] < 0.6 * variance
    texts = [f"a red circle left of a blue square on a {word} background" for word in BRIGHTNESS]
    tokens = pipeline.tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
    corners = module.reader(pipeline.text_encoder(tokens)[0])[:, :, 0, 0].mean(1)
    assert corners[0] + 0.2 < corners[1] < corners[2] - 0.2
    with pytest.raises(ValueError, match="need lr > 0"):
        TextEncoderModule(pipeline.text_encoder, pipeline.tokenizer, warmup=1.0)


def test_the_reader_puts_answers_where_its_places_are():
    reader = PlaceReader(8)
    reader.answer = torch.nn.Identity()
    reader.attention.forward = lambda asked, *_, **__: (
        torch.arange(64.0).view(1, 64, 1).expand(2, 64, 12),
        None,
    )
    drawn = reader(torch.zeros(2, 5, 8))
    places = torch.arange(64.0).view(8, 8)
    assert torch.equal(
        drawn, places.repeat_interleave(2, 0).repeat_interleave(2, 1).expand(2, 3, 16, 16)
    )


class Stops(TextToImageModule):
    """Fails in the second epoch, while sketching or after."""

    sketching = False

    def on_train_epoch_start(self):
        if self.current_epoch == 1 and (self.least_noise > 0) == self.sketching:
            raise RuntimeError("power cut")


class StopsSketching(Stops):
    sketching = True


def stop(part):
    if part.current_epoch == 1:
        raise RuntimeError("power cut")


def train(folder, *, resume=None, kind=TextToImageModule):
    seed_everything(3)
    data = SceneData("crowded", train=16, val=8, batch_size=8, seed=3)
    module = kind(small(CROWDED))
    run = RunOptions(accelerator="cpu", seed=3, resume=resume)
    histories = train_text_to_image(
        module,
        data,
        autoencoder_epochs=2,
        text_epochs=2,
        sketch_epochs=2,
        epochs=2,
        run=run,
        out=folder,
    )
    return module, *histories


def without_time(history):
    return [
        {name: value for name, value in row.items() if name != "seconds"} for row in history.rows
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All parts, epochs of two steps each."""
    return train(tmp_path_factory.mktemp("whole"))


def test_a_resumed_run_is_the_unbroken_one(whole, tmp_path, monkeypatch):
    module, *histories = whole
    assert [*(len(history.rows) for history in histories), module.steps] == [2, 2, 2, 2, 4]
    assert {"train/loss", "val/loss"} <= histories[3].rows[0].keys()
    for part, resume in ((AutoencoderModule, None), (TextEncoderModule, "last")):
        with monkeypatch.context() as patched:
            patched.setattr(part, "on_train_epoch_start", stop)
            with pytest.raises(RuntimeError, match="power cut"):
                train(tmp_path, resume=resume)
    for kind in (StopsSketching, Stops):
        with pytest.raises(RuntimeError, match="power cut"):
            train(tmp_path, resume="last", kind=kind)
    resumed, *again = train(tmp_path, resume="last")
    assert same_weights(resumed, module)
    assert not same_weights(resumed.average, resumed.network)
    assert resumed.vae.config.scaling_factor == module.vae.config.scaling_factor
    assert resumed.steps == 4
    assert [*map(without_time, again)] == [*map(without_time, histories)]


def test_the_sketch_is_of_the_highest_noise_and_of_all_facts(monkeypatch):
    seen = []

    def note(self, network, latents, captions, times, noise):
        seen.append((times, captions))
        return self.average["unet"].conv_in.weight.sum() * 0 + sum(
            p.sum() for p in network.parameters()
        )

    monkeypatch.setattr(TextToImageModule, "_loss", note)
    data = SceneData("crowded", train=16, val=8, batch_size=8, seed=3)
    module = TextToImageModule(small(CROWDED), empty=0.0)
    run = RunOptions(accelerator="cpu", seed=3)
    sketch(module, data, epochs=2, run=run, out=None)
    times = torch.cat([times for times, _ in seen])
    assert 900 <= times.min() < 930
    assert 970 < times.max() < 1000
    said = {caption for _, captions in seen for caption in captions}
    scenes = [*data.train.scenes, *data.val.scenes]
    assert said == {scene.caption() for scene in scenes}
    assert module.least_noise == 0
    assert module.steps == 0
    assert same_weights(module.average, module.network)


def test_a_share_of_the_levels_of_noise_is_high():
    module = TextToImageModule(small(SIMPLE), noisy=0.5)
    seed_everything(0)
    times = module._draw_times(20_000)
    assert (times.min(), times.max()) == (0, 999)
    assert (times >= 600).float().mean() == pytest.approx(0.5 + 0.5 * 0.4, abs=0.01)
    with pytest.raises(ValueError, match="noisy"):
        TextToImageModule(small(SIMPLE), noisy=1.0)


def test_a_checkpoint_makes_the_same_pipeline(whole, tmp_path):
    module = whole[0]
    folder = module.save_pretrained(tmp_path / "model")
    loaded = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    assert same_weights(loaded.unet, module.average["unet"])
    assert same_weights(loaded.text_encoder, module.average["text_encoder"])
    assert loaded.vae.config.scaling_factor == module.vae.config.scaling_factor
    captions = [scene.caption() for scene in draw_scenes(CROWDED, 2, seed=1)]
    made = draw_captions(module.pipeline(), captions, steps=2)
    assert (made == draw_captions(loaded, captions, steps=2)).all()
    trained = draw_captions(module.pipeline(ema=False), captions, steps=2)
    assert (trained != made).any()


def batch_of(count, seed=0):
    scenes = draw_scenes(SIMPLE, count, seed=seed)
    return SceneBatch(images_of(scenes), [scene.caption() for scene in scenes])


def test_the_loss_is_the_squared_error_of_the_noise(monkeypatch):
    module = TextToImageModule(small(prediction="epsilon"), empty=0.0, noisy=0.0)
    batch = batch_of(4)
    monkeypatch.setattr(module, "log", lambda *args, **options: None)
    torch.manual_seed(7)
    found = module.training_step(batch, 0)
    torch.manual_seed(7)
    torch.rand(4)
    latents = module.vae.encode(batch.images).latent_dist.sample() * 0.18215
    noise = torch.randn_like(latents)
    times = torch.randint(1000, (4,))
    kept = module.scheduler.alphas_cumprod[times].view(4, 1, 1, 1)
    pipeline = module.pipeline(ema=False)
    text = pipeline.encode_prompt(batch.captions, "cpu", 1, False)[0]
    noised = kept.sqrt() * latents + (1 - kept).sqrt() * noise
    wanted = (pipeline.unet(noised, times, text).sample - noise).square().mean()
    torch.testing.assert_close(found, wanted)
    assert not any(p.requires_grad for p in module.vae.parameters())
    found.backward()
    assert all(p.grad is not None for p in module.network["unet"].parameters())
    assert all(p.grad is None for p in module.average.parameters())


def test_some_captions_are_left_empty(monkeypatch):
    module, seen = TextToImageModule(small(), empty=0.4), []

    def note(network, latents, captions, times, noise):
        seen.extend(captions)
        return noise.sum()

    monkeypatch.setattr(module, "_loss", note)
    monkeypatch.setattr(module, "log", lambda *args, **options: None)
    batch = batch_of(40)
    for _ in range(10):
        module.training_step(batch, 0)
    assert set(seen) == {"", *batch.captions}
    assert seen.count("") / 400 == pytest.approx(0.4, abs=0.1)


def test_v_prediction_aims_at_v():
    pipeline = small()
    pipeline.scheduler.register_to_config(prediction_type="v_prediction")
    module = TextToImageModule(pipeline)
    latents, noise, times = (
        torch.randn(2, 4, 16, 16),
        torch.randn(2, 4, 16, 16),
        torch.tensor([9, 700]),
    )
    kept = module.scheduler.alphas_cumprod[times].view(2, 1, 1, 1)
    v = kept.sqrt() * noise - (1 - kept).sqrt() * latents

    def perfect(noised, times, text):
        torch.testing.assert_close(noised, kept.sqrt() * latents + (1 - kept).sqrt() * noise)
        return type("Output", (), {"sample": v})

    network = {"text_encoder": module.network["text_encoder"], "unet": perfect}
    assert module._loss(network, latents, ["", ""], times, noise) < 1e-10
    pipeline.scheduler.register_to_config(prediction_type="sample")
    with pytest.raises(ValueError, match="predicts 'sample'"):
        TextToImageModule(pipeline)
    for name, value in {"lr": 0.0, "warmup": 1.0, "ema_decay": 1.0, "empty": -0.1}.items():
        with pytest.raises(ValueError, match=f"{name} must be"):
            TextToImageModule(small(), **{name: value})


def test_the_average_follows_slowly():
    seed_everything(0)
    module = TextToImageModule(small(), ema_decay=0.5, lr=1e-2)
    path = []

    class Watch(Callback):
        def on_train_batch_end(self, *args):
            path.append(next(module.network.parameters()).detach().clone())

    start = next(module.average.parameters()).clone()
    data = SceneData("simple", train=24, val=1, batch_size=8)
    fit(module, data, epochs=1, run=CPU, callbacks=[Watch()])
    for step, weights in enumerate(path, start=1):
        start = torch.lerp(weights, start, min(0.5, step / (step + 9)))
    torch.testing.assert_close(next(module.average.parameters()), start)


def test_binding_counts_what_is_right():
    scenes = draw_scenes(CROWDED, 10, seed=2)
    pictures = torch.stack([torch.from_numpy(scene.render()) for scene in scenes]).numpy()
    assert set(measure_binding(pictures, scenes).values()) == {1.0}
    thing = next(thing for thing in scenes[0].things if thing.present)
    other = "red" if thing.color != "red" else "blue"
    wrong = [
        scenes[0].edited([Fact(thing.place, "color", other)]),
        scenes[1].edited([Fact(BACKGROUND, "color", "white")]),
    ]
    asked = sum(thing.present for scene in scenes for thing in scene.things)
    assert scenes[1].background != "white"
    found = measure_binding(pictures, [*wrong, *scenes[2:]])
    assert found["color"] == found["binding"] == pytest.approx(1 - 1 / asked)
    assert found["background"] == pytest.approx(0.9)
    assert found["scene"] == pytest.approx(0.8)
    assert found["shape"] == found["texture"] == found["present"] == 1
