"""Baselines without a diffusion model: chance, everything, CLIP."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from d_tiil.baselines import clip_baseline, full_baseline, random_baseline
from d_tiil.clip import ClipModel
from d_tiil.evaluation import Judgement
from d_tiil.measures import judge_all
from d_tiil.records import Record
from d_tiil.scene_pairs import ScenePairOptions, draw_scene_pairs
from papercommons.errors import DataError
from PIL import Image

HALVES = Image.fromarray(
    np.repeat(np.array([[[250, 0, 0]] * 16 + [[0, 0, 250]] * 16], np.uint8), 16, 0)
)


@pytest.fixture(scope="module")
def records():
    return draw_scene_pairs(ScenePairOptions(count=6, calibration=0, kinds=("color", "background")))


def test_everything_is_wrong(records):
    found = Judgement.of("full", judge_all(full_baseline, records), draws=50)
    areas = [r.true_mask((32, 32)).mean() for r in records if r.inconsistent]
    assert found.value("iou").value == pytest.approx(np.mean(areas))
    assert found.value("false_alarm_area").value == found.value("control_area").value == 1
    assert found.value("auc").value == found.value("control_auc").value == 0.5
    assert found.value("pixel_auc").value == 0.5
    assert found.value("token_recall").value == 1
    assert found.value("token_precision").value < 0.2


def test_chance(records):
    method = random_baseline(3)
    found = Judgement.of("random", judge_all(method, records), draws=50)
    assert 0.4 < found.value("pixel_auc").value < 0.6
    assert found.value("word_top1").value < 0.8
    first, again, other = method(records[0]), random_baseline(3)(records[0]), method(records[1])
    assert (first.score, first.top) == (again.score, again.top)
    assert (first.map == again.map).all()
    assert first.score != other.score
    assert random_baseline(4)(records[0]).score != first.score
    nothing = Record("n", np.zeros((16, 16, 3), np.uint8), "of the")
    assert (method(nothing).top, full_baseline(nothing).words) == (None, ())


class Colors:
    """Pictures and texts by how red, green and blue they are."""

    @staticmethod
    def images(pictures):
        return torch.stack([torch.tensor(np.asarray(p)).float().mean((0, 1)) for p in pictures])

    @staticmethod
    def texts(texts):
        names = ("red", "green", "blue")
        return torch.tensor([[float(name in text) for name in names] for text in texts]) + 0.01

    @staticmethod
    def patches(picture):
        return torch.tensor(np.asarray(picture)).float()


def test_clip_by_a_model_that_knows_colours():
    from d_tiil.clip_patches import ClipPatches

    clip = ClipModel(Colors.images, Colors.texts)
    find = clip_baseline(clip, ClipPatches(Colors.patches))
    picture = np.asarray(HALVES)
    right = find(Record("a", picture, "red and blue"))
    wrong = find(Record("b", picture, "red and green"))
    assert right.score < wrong.score
    assert wrong.top.text == "green"
    assert wrong.words == (wrong.top,)
    assert wrong.map.shape == (16, 32)
    assert (wrong.map[:, :16] == 0).all()
    assert (wrong.map[:, 16:] == 1).all()
    assert clip_baseline(clip)(Record("b", picture, "red")).map is None


def small_clip(path):
    transformers = pytest.importorskip("transformers")
    from d_tiil.tokenizer import make_tokenizer

    tokens = make_tokenizer(["red", "blue"], 12)
    small = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    ids = {
        f"{name}_token_id": getattr(tokens, f"{name}_token_id") for name in ("bos", "eos", "pad")
    }
    text = {**small, **ids, "vocab_size": len(tokens), "max_position_embeddings": 12}
    vision = {**small, "image_size": 24, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    torch.manual_seed(0)
    model = transformers.CLIPModel(config)
    model.save_pretrained(path)
    tokens.save_pretrained(path)
    size = {"height": 24, "width": 24}
    transformers.CLIPImageProcessor(size=size, crop_size=size).save_pretrained(path)
    return model.eval()


def test_patches_of_transformers(tmp_path):
    from d_tiil.clip_patches import ClipPatches

    model = small_clip(tmp_path)
    patches, clip = ClipPatches.from_pretrained(tmp_path), ClipModel.from_pretrained(tmp_path)
    text = clip.embed_texts(["red"])[0]
    found = patches.likeness(HALVES, text)
    assert found.shape == (3, 3)
    assert found.abs().max() <= 1 + 1e-6
    vision = model.vision_model
    from transformers import CLIPImageProcessor

    processor = CLIPImageProcessor.from_pretrained(tmp_path)
    square = HALVES.resize((24, 24), Image.Resampling.BICUBIC)
    pixels = processor([square], return_tensors="pt").pixel_values
    with torch.no_grad():
        out = vision(pixel_values=pixels)
        patch = vision.post_layernorm(out.last_hidden_state[:, 1 + 3 + 2])
        vector = torch.nn.functional.normalize(model.visual_projection(patch)[0], dim=0)
    torch.testing.assert_close(found[1, 2], vector @ text, rtol=1e-4, atol=1e-4)
    scaled = patches.unlikeness(HALVES, text)
    assert (scaled.min(), scaled.max()) == (0, 1)
    assert scaled.argmin() == found.argmax()
    finding = clip_baseline(clip, patches)(Record("a", np.asarray(HALVES), "a red thing"))
    assert finding.map.shape == (3, 3)


def test_patches_of_open_clip(tmp_path):
    open_clip = pytest.importorskip("open_clip")
    from d_tiil.clip_patches import ClipPatches
    from safetensors.torch import save_model

    small = {"layers": 1, "width": 64}
    config = {
        "embed_dim": 8,
        "vision_cfg": {**small, "image_size": 24, "patch_size": 8, "head_width": 32},
        "text_cfg": {**small, "context_length": 16, "vocab_size": 49408, "heads": 2},
    }
    torch.manual_seed(0)
    model = open_clip.CLIP(**config).eval()
    save_model(model, str(tmp_path / "open_clip_model.safetensors"))
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3}
    text = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
    (tmp_path / "open_clip_config.json").write_text(text)
    found = ClipPatches.from_pretrained(tmp_path).likeness(HALVES, torch.eye(8)[0])
    square = np.asarray(HALVES.resize((24, 24), Image.Resampling.BICUBIC), np.float32)
    pixels = torch.from_numpy(square / 127.5 - 1).permute(2, 0, 1)[None]
    with torch.no_grad():
        states = model.visual.ln_post(model.visual.transformer(model.visual._embeds(pixels)))
        vectors = torch.nn.functional.normalize(states[0, 1:] @ model.visual.proj, dim=-1)
    torch.testing.assert_close(found, vectors[:, 0].view(3, 3), rtol=1e-3, atol=1e-3)
    (tmp_path / "open_clip_model.safetensors").unlink()
    with pytest.raises(DataError, match=r"no open_clip_model\.safetensors"):
        ClipPatches.from_pretrained(tmp_path)


def test_no_model(tmp_path):
    from d_tiil.clip_patches import ClipPatches

    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match="not a readable CLIP model"):
        ClipPatches.from_pretrained(tmp_path)
