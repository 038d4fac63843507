"""Metrics per image of 512 x 512 against the plain formulas, and masks against plain loops.

``python -m pytest packages/multi-edits/bench/bench_metrics.py -s --device cpu`` (or cuda). The CPU
part uses one thread. Values are tested to be equal; times are only printed. Networks are random:
what is measured is how often and in what batches they run.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from multi_edits.benchmark import Record, decode_mask, encode_mask
from multi_edits.edits import derive_edits
from multi_edits.metrics.aspects import aspect_accuracy, kept_prompt, reverted_prompts
from multi_edits.metrics.clip import clip_similarity, directional_similarity, load_clip
from multi_edits.metrics.measuring import MetricModels, measure_edit
from multi_edits.metrics.perceptual import load_lpips
from multi_edits.metrics.pixels import mse, psnr, ssim
from multi_edits.metrics.structure import DinoKeys, self_similarity, structure_distance
from papercommons.testing.timing import compare_speed
from PIL import Image
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

transformers = pytest.importorskip("transformers")

SIDE = 512
SOURCE = "a cat sitting on a wooden chair in a dark room"
TARGET = "a red dog standing on a metal chair in a dark room with a window"


@pytest.fixture(autouse=True)
def _one_thread(device):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def mask():
    y, x = np.mgrid[:SIDE, :SIDE]
    return (y - 200) ** 2 + (x - 300) ** 2 < 120**2


@pytest.fixture(scope="module")
def pictures():
    random = np.random.default_rng(0)
    first = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    second = np.clip(first + random.normal(0, 20, first.shape), 0, 255).astype(np.uint8)
    return Image.fromarray(first), Image.fromarray(second)


@pytest.fixture(scope="module")
def images(pictures, device):
    found = (torch.from_numpy(np.array(p)).permute(2, 0, 1)[None] / 255 for p in pictures)
    return tuple(image.to(device) for image in found)


@pytest.fixture
def note(record):
    def keep(what, ours, plain, against, rounds=3):
        speed = compare_speed(ours, plain, rounds=rounds)
        record(
            measured=what,
            size=f"{SIDE} x {SIDE}",
            ours=f"{1e3 * speed.ours_s:.1f} ms",
            other=f"{against}, {1e3 * speed.reference_s:.1f} ms",
            **speed.ratios(),
        )

    return keep


def test_pixels(images, mask, note):
    a, b = images
    outside = torch.from_numpy(~mask).to(a.device)[None, None]
    functions = {
        "SSIM": (ssim, lambda a, b: structural_similarity_index_measure(a, b, data_range=1.0)),
        "PSNR": (psnr, lambda a, b: peak_signal_noise_ratio(a, b, data_range=1.0)),
    }
    for name, (ours, plain) in functions.items():

        def run_plain(plain=plain):
            return plain(a * outside, b * outside)

        def run_ours(ours=ours):
            return ours(a, b, outside)

        torch.testing.assert_close(run_ours()[0], run_plain(), atol=1e-5, rtol=1e-5)
        note(f"{name} of the background", run_ours, run_plain, "torchmetrics")
    assert float(mse(a, b, outside)) > 0


def plain_decoding(runs):
    """As the benchmark's own evaluation does it, pixel by pixel."""
    mask = np.zeros(SIDE * SIDE)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        for k in range(length):
            mask[start + k] = 1
    mask = mask.reshape(SIDE, SIDE)
    mask[0, :] = mask[-1, :] = 1
    mask[:, 0] = mask[:, -1] = 1
    return mask.astype(bool)


def test_masks(mask, note):
    runs = encode_mask(mask)
    assert (decode_mask(runs) == plain_decoding(runs)).all()
    note(
        f"a mask of {len(runs) // 2} runs",
        lambda: decode_mask(runs),
        lambda: plain_decoding(runs),
        "pixel by pixel",
    )


def plain_self_similarity(keys):
    """As the benchmark's own evaluation writes it."""
    joined = keys.transpose(0, 1).reshape(1, keys.shape[1], -1)
    norm = joined.norm(dim=2, keepdim=True)
    factor = torch.clamp(norm @ norm.permute(0, 2, 1), min=1e-8)
    return joined @ joined.permute(0, 2, 1) / factor


def test_structure_distance(images, note, device):
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=384,
        intermediate_size=1536,
        num_hidden_layers=4,
        num_attention_heads=6,
        image_size=224,
        patch_size=16,
    )
    dino = DinoKeys(transformers.ViTModel(config, add_pooling_layer=False).eval()).to(device)
    a, b = images

    def together():
        return structure_distance(*dino(torch.cat([a, b])))

    def one_by_one():
        first, second = (plain_self_similarity(dino(image)[0]) for image in (a, b))
        return (first - second).square().mean()

    torch.testing.assert_close(together(), one_by_one(), atol=1e-6, rtol=1e-4)
    note("structure distance, the network with it", together, one_by_one, "one image at a time")
    keys = torch.rand(12, 785, 64, device=device)  # DINO ViT-B/8
    torch.testing.assert_close(self_similarity(keys), plain_self_similarity(keys)[0])


def test_lpips(images, mask, note, device, tmp_path):
    from torchmetrics.functional.image import lpips
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    network = squeezenet1_1(weights=None)
    torch.save(network.state_dict(), tmp_path / "squeezenet.pth")
    ours = load_lpips(tmp_path / "squeezenet.pth").to(device)
    plain = lpips._LPIPS(pretrained=True, net="squeeze", pnet_rand=True)
    layers = dict(network.features.named_children())
    for part in plain.net.slices:
        for name, layer in part.named_children():
            layer.load_state_dict(layers[name].state_dict())
    plain = plain.to(device)
    outside = torch.from_numpy(~mask).to(device)[None, None]
    a, b = images

    def run_plain():
        return plain(2 * a * outside - 1, 2 * b * outside - 1).flatten()

    torch.testing.assert_close(ours(a, b, outside), run_plain(), atol=1e-6, rtol=1e-4)
    note("LPIPS of the background", lambda: ours(a, b, outside), run_plain, "torchmetrics")


@pytest.fixture(scope="module")
def clip(tmp_path_factory, device):
    """Half the width and depth of CLIP ViT-B/16."""
    from multi_edits.tokenizer import make_tokenizer

    tokenizer = make_tokenizer(sorted(set(f"{SOURCE} {TARGET}".split())), 77)
    parts = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6}
    text = {"vocab_size": len(tokenizer), "num_attention_heads": 6}
    text |= {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    vision = parts | {"image_size": 224, "patch_size": 16, "num_attention_heads": 6}
    torch.manual_seed(0)
    config = transformers.CLIPConfig(text_config=parts | text, vision_config=vision)
    folder = tmp_path_factory.mktemp("clip")
    transformers.CLIPModel(config).save_pretrained(folder)
    images = transformers.CLIPImageProcessor()
    transformers.CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return load_clip(folder, device=device)


def test_clip_metrics(pictures, mask, clip, note):
    edits = tuple(derive_edits(SOURCE, TARGET))
    record = Record("1", "", None, SOURCE, TARGET, edits, mask_runs=tuple(encode_mask(mask)))
    before, after = pictures
    masked = Image.fromarray(np.array(after) * record.mask[:, :, None].astype(np.uint8))

    def together():
        return measure_edit(record, before, after, MetricModels(clip=clip))

    def similarity(image, prompt):
        return clip_similarity(clip.images([image]), clip.texts([prompt]))[0]

    def one_by_one():
        whole, reverted = reverted_prompts(record)
        pairs = [(similarity(after, whole), similarity(after, prompt)) for prompt in reverted]
        changes = [clip.images([image]) for image in (before, after)]
        changes += [clip.texts([prompt]) for prompt in (SOURCE, TARGET)]
        hits = [torch.stack([mine, other]) for mine, other in pairs]
        return {
            "clip": float(similarity(after, TARGET)),
            "clip_edited": float(similarity(masked, TARGET)),
            "d_clip": float(directional_similarity(*changes)[0]),
            "aspect_preservation": float(similarity(after, kept_prompt(record))),
            "aspect_accuracy": aspect_accuracy(
                edits, torch.tensor(0.0), torch.stack([pair[1] - pair[0] for pair in hits])
            ),
        }

    found = together()
    for name, value in one_by_one().items():
        assert found[name] == pytest.approx(value, abs=1e-2), name
    note(f"all CLIP metrics, {len(edits)} edits", together, one_by_one, "each metric by itself", 1)
