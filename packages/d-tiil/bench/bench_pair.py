"""One pair of picture and caption: alignment, maps and words against the reference's way.

``python -m pytest packages/d-tiil/bench/bench_pair.py -s --device cpu`` (or cuda), with ``--model
FOLDER`` (a trained model of simple scenes) also how well the maps of both ways fit the truth. The
reference's way is written plainly here: one timestep and noise per step for 500 steps, gradients
of all weights kept, maps at the end of guided trajectories, one after the other. For words the
reference asks another model, CLIP, about an edited picture; ours are beside the same captions one
by one. The CPU part uses one thread. Times and memory are only printed.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from statistics import fmean

import pytest
import torch
from d_tiil.maps import even_timesteps, sigmas_of
from d_tiil.masks import scale_map, to_bytes
from d_tiil.measures import iou
from d_tiil.model import DiffusionModel
from d_tiil.phrases import content_words, neutralised
from d_tiil.scene_pairs import ScenePairOptions, draw_scene_pairs
from d_tiil.settings import TINY
from d_tiil.steps import Run
from papercommons.testing.timing import compare_speed, peak_memory
from torch.nn import functional as F

pytest.importorskip("diffusers")

STEPS, TIMED = 500, 20  # of the reference's alignment, and of those that are timed
LR = 2e-3  # a tenth of ours, over twelve times the steps
DRAWS, GUIDANCE, LAST = 10, 7.0, 5  # of its maps: noises, and steps of ten that are run
KINDS = ("color", "shape", "background")
PARTS = ("vae", "unet", "scheduler", "text_encoder", "tokenizer")


@pytest.fixture(autouse=True)
def _one_thread(device):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(request):
    return request.config.getoption("--model")


@pytest.fixture(scope="module")
def run(folder, device):
    from d_tiil import DTIILPipeline
    from d_tiil.tiny import make_tiny_for
    from papercommons.data.scenes import SIMPLE

    if folder:
        pipe = DTIILPipeline.from_pretrained(folder)
    else:
        pipe = DTIILPipeline(
            **{k: v for k, v in make_tiny_for(SIMPLE).components.items() if k in PARTS}
        )
    pipe.to(device)
    pipe.set_progress_bar_config(disable=True)
    pipe.settings = TINY
    return Run(DiffusionModel(pipe), TINY, 0, lambda total: pipe.progress_bar(total=total))


def pairs(count):
    """Pairs of the study's kinds in turn, others than the study's."""
    options = ScenePairOptions(
        count=0, calibration=-(-count // len(KINDS)), kinds=KINDS, parts=("caption",)
    )
    found = draw_scene_pairs(options, seed=9)
    each = options.calibration
    return [found[k % len(KINDS) * each + k // len(KINDS)] for k in range(count)]


@pytest.fixture(scope="module")
def record_of_pair():
    return pairs(1)[0]


@pytest.fixture(scope="module")
def inputs(run, record_of_pair):
    latents = run.model.encode(record_of_pair.open_image())
    given, empty = run.model.encode_text([record_of_pair.caption, ""]).split(1)
    return latents, given, empty


def plain_alignment(run, latents, start, steps):
    """The reference's alignment; weights gather gradients that nobody uses."""
    unet, levels = run.model.pipe.unet, run.model.alpha_bars
    unet.requires_grad_(True)
    denoise = run.model.denoiser()
    generator = torch.Generator(latents.device).manual_seed(0)
    text = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([text], lr=LR)
    for _ in range(steps):
        noise = torch.randn(latents.shape, generator=generator, device=latents.device)
        t = torch.randint(len(levels), (1,), generator=generator, device=latents.device)
        level = levels[t].view(1, 1, 1, 1)
        noisy = level.sqrt() * latents + (1 - level).sqrt() * noise
        loss = F.mse_loss(denoise(noisy, t, text), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unet.zero_grad(set_to_none=True)
    return text.detach()


@torch.no_grad()
def plain_map(run, latents, first, second, empty):
    """The reference's map: for each noise and text five guided steps, the last one's difference."""
    levels = run.model.alpha_bars
    timesteps = even_timesteps(2 * LAST, len(levels)).to(latents.device)
    sigmas = sigmas_of(levels[timesteps])
    denoise = run.model.denoiser()
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(latents.shape[-2:], device=latents.device)
    for _ in range(DRAWS):
        noise = torch.randn(latents.shape, generator=generator).to(latents.device)
        predictions = []
        for text in (first, second):
            state, both = latents + sigmas[LAST] * noise, torch.cat([empty, text])
            for k in range(LAST, 2 * LAST):
                scaled = (state / (sigmas[k] ** 2 + 1).sqrt()).repeat(2, 1, 1, 1)
                plain, said = denoise(scaled, timesteps[k].expand(2), both).chunk(2)
                predicted = plain + GUIDANCE * (said - plain)
                if k + 1 < 2 * LAST:
                    state = state + (sigmas[k + 1] - sigmas[k]) * predicted
            predictions.append(predicted)
        total += (predictions[0] - predictions[1]).square().sum(1).sqrt()[0]
    return total / DRAWS


@torch.no_grad()
def plain_words(run, latents, texts):
    """The errors of captions, one row of the network after the other."""
    return torch.cat([one_error(run, latents, text) for text in texts.split(1)])


def one_error(run, latents, text):
    alone = Run(run.model, replace(run.settings, max_rows=1), run.seed, run.progress)
    return alone.errors(latents, text)


def ours_alignment(run, latents, given):
    return run.align(latents, given, "alignment").embedding


def texts_of(run, record):
    words = content_words(record.caption)
    return run.model.encode_text(
        [record.caption, *(neutralised(record.caption, word, "a") for word in words)]
    )


@pytest.fixture(scope="module")
def spent():
    """Seconds of both ways, by part."""
    return {}


def mebibytes(function, device):
    return peak_memory(function, device) / 2**20


def test_alignment(run, inputs, device, spent, record):
    latents, given, _ = inputs
    ours = partial(ours_alignment, run, latents, given)
    speed = compare_speed(ours, partial(plain_alignment, run, latents, given, TIMED), rounds=3)
    few = partial(plain_alignment, run, latents, given, 2)
    memory = [mebibytes(function, device) for function in (ours, few)]
    more = STEPS / TIMED
    how = TINY.alignment
    spent["alignment"] = (speed.ours_s, more * speed.reference_s)
    record(
        measured=f"alignment against {STEPS} steps of one noise, weight gradients on",
        size=f"{how.steps} steps of {how.batch} at most",
        ours=f"{speed.ours_s:.2f} s, {memory[0]:.0f} MiB",
        reference=f"{more * speed.reference_s:.2f} s, {memory[1]:.0f} MiB",
        **{name: round(more * value, 2) for name, value in speed.ratios().items()},
        memory=round(memory[0] / memory[1], 3),
    )


def test_map(run, inputs, device, spent, record):
    latents, given, empty = inputs
    other = given + 0.1 * torch.sin(torch.arange(given.numel()).view(given.shape)).to(given)
    ours = partial(run.map, latents, other, given, 0.3)
    plain = partial(plain_map, run, latents, other, given, empty)
    speed = compare_speed(ours, plain, rounds=3)
    memory = [mebibytes(function, device) for function in (ours, plain)]
    spent["map"] = (speed.ours_s, speed.reference_s)
    record(
        measured="a map at single noise levels against guided trajectories, one by one",
        size=f"{TINY.maps.draws} against {DRAWS} noises",
        ours=f"{speed.ours_s:.3f} s, {memory[0]:.0f} MiB",
        reference=f"{speed.reference_s:.2f} s, {memory[1]:.0f} MiB",
        **speed.ratios(),
        memory=round(memory[0] / memory[1], 3),
    )


def test_words(run, record_of_pair, inputs, device, spent, record):
    latents, texts = inputs[0], texts_of(run, record_of_pair)
    ours, plain = partial(run.errors, latents, texts), partial(plain_words, run, latents, texts)
    torch.testing.assert_close(ours(), plain(), rtol=1e-3, atol=1e-4)
    speed = compare_speed(ours, plain, rounds=1)
    ways = (Run.errors, plain_words)
    memory = [mebibytes(partial(way, run, latents, texts), device) for way in ways]
    spent["words"] = (speed.ours_s, speed.reference_s)
    record(
        measured="words by neutralising, in batches against one by one",
        size=f"{len(texts)} captions, {TINY.pairs} noises",
        ours=f"{speed.ours_s:.2f} s, {memory[0]:.0f} MiB",
        reference=f"{speed.reference_s:.2f} s, {memory[1]:.0f} MiB",
        **speed.ratios(),
        memory=round(memory[0] / memory[1], 3),
    )


def test_all_together(spent, record):
    if not spent:
        pytest.skip("nothing was timed")
    ours, reference = map(sum, zip(*spent.values(), strict=True))
    record(
        measured="step 1 of a pair: " + ", ".join(spent),
        size="as above",
        ours=f"{ours:.2f} s",
        reference=f"{reference:.2f} s",
        ratio=round(reference / ours, 2),
    )


def test_maps_fit_the_truth(run, folder, request, record):
    if not folder:
        pytest.skip("no trained model; pass --model FOLDER")
    count, found = request.config.getoption("--pairs"), {"ours": [], "reference": []}
    empty = run.model.encode_text([""])
    for pair in pairs(count):
        latents = run.model.encode(pair.open_image())
        given = run.model.encode_text([pair.caption])
        mine = run.map(latents, ours_alignment(run, latents, given), given, TINY.threshold)
        aligned = plain_alignment(run, latents, given, STEPS)
        theirs = to_bytes(scale_map(plain_map(run, latents, aligned, given, empty))).cpu().numpy()
        truth = pair.true_mask((32, 32))
        for name, mask in (("ours", mine.mask), ("reference", theirs > 255 * TINY.threshold)):
            found[name].append(iou(mask.repeat(2, 0).repeat(2, 1), truth))
    values = {name: fmean(each) for name, each in found.items()}
    record(
        measured="IoU of step 1 to the truth, threshold 0.3",
        size=f"{count} pairs: {', '.join(KINDS)} in turn",
        ours=f"{values['ours']:.3f}",
        reference=f"{values['reference']:.3f}",
        difference=round(values["ours"] - values["reference"], 3),
    )
