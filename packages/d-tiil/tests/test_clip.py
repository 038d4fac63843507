"""CLIP models of both libraries, made up, as folders."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from d_tiil.clip import ClipModel
from papercommons.errors import DataError
from PIL import Image

transformers = pytest.importorskip("transformers")

PICTURES = [Image.new("RGB", (40, 30), color) for color in ("red", "blue")]
TEXTS = ["a photo of red", "a photo of a blue thing " * 9]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from d_tiil.tokenizer import make_tokenizer

    path = tmp_path_factory.mktemp("clip") / "hf"
    tokens = make_tokenizer(["red", "blue"], 12)
    small = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = {
        **small,
        "vocab_size": len(tokens),
        "max_position_embeddings": 12,
        "bos_token_id": tokens.bos_token_id,
        "eos_token_id": tokens.eos_token_id,
        "pad_token_id": tokens.pad_token_id,
    }
    vision = {**small, "image_size": 16, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    torch.manual_seed(0)
    transformers.CLIPModel(config).save_pretrained(path)
    tokens.save_pretrained(path)
    size = {"height": 16, "width": 16}
    transformers.CLIPImageProcessor(size=size, crop_size=size).save_pretrained(path)
    return path


def test_a_model_of_transformers(folder):
    clip = ClipModel.from_pretrained(folder)
    found = clip.likeness(PICTURES, TEXTS)
    assert found.shape == (2, 2)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    images, texts = clip.embed_images(PICTURES), clip.embed_texts(TEXTS)
    torch.testing.assert_close(images.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(images @ texts.T, found)
    torch.testing.assert_close(clip.embed_texts(TEXTS[:1]), texts[:1], rtol=1e-4, atol=1e-5)
    model = transformers.CLIPModel.from_pretrained(folder)
    pixels = transformers.CLIPImageProcessor.from_pretrained(folder)(PICTURES, return_tensors="pt")
    with torch.no_grad():
        plain = model.visual_projection(model.vision_model(**pixels).pooler_output)
    torch.testing.assert_close(images, torch.nn.functional.normalize(plain), rtol=1e-4, atol=1e-5)


def test_a_model_of_open_clip(tmp_path):
    open_clip = pytest.importorskip("open_clip")
    small = {"layers": 1, "width": 64}
    config = {
        "embed_dim": 8,
        "vision_cfg": {**small, "image_size": 16, "patch_size": 8, "head_width": 32},
        "text_cfg": {**small, "context_length": 16, "vocab_size": 49408, "heads": 2},
    }
    place = tmp_path / "open"
    place.mkdir()
    torch.manual_seed(0)
    model = open_clip.CLIP(**config)
    from safetensors.torch import save_model

    save_model(model, str(place / "open_clip_model.safetensors"))
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3}
    text = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
    (place / "open_clip_config.json").write_text(text)
    clip = ClipModel.from_pretrained(place)
    assert clip.likeness(PICTURES, TEXTS).shape == (2, 2)
    pixels = np.asarray(PICTURES[0].resize((16, 16))).astype(np.float32) / 127.5 - 1
    with torch.no_grad():
        plain = model.eval().encode_image(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    ours = clip.embed_images(PICTURES[:1])
    torch.testing.assert_close(ours, plain / plain.norm(), rtol=1e-3, atol=1e-3)
    (place / "open_clip_model.safetensors").unlink()
    with pytest.raises(DataError, match=r"no open_clip_model\.safetensors"):
        ClipModel.from_pretrained(place)


def test_what_is_no_model_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match=r"config\.json: not readable JSON"):
        ClipModel.from_pretrained(tmp_path)
