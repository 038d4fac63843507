from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from multi_edits.benchmark import Record
from multi_edits.edits import Edit
from multi_edits.metrics.clip import load_clip
from multi_edits.metrics.measuring import load_models, measure_edit
from multi_edits.metrics.perceptual import load_lpips
from multi_edits.metrics.structure import DinoKeys, load_dino
from papercommons.errors import DataError
from PIL import Image

transformers = pytest.importorskip("transformers")

WORDS = ["a", "cat", "dog", "red", "on", "chair"]


def picture(seed, size=(40, 48)):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    from multi_edits.tokenizer import make_tokenizer

    tokenizer = make_tokenizer(WORDS, 8)
    parts = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    parts["num_attention_heads"] = 2
    text = parts | {"vocab_size": len(tokenizer), "max_position_embeddings": 8}
    text |= {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    vision = parts | {"image_size": 16, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    transformers.CLIPModel(config).save_pretrained(folder)
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16)
    transformers.CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dino_folder(tmp_path_factory):
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=64,
        patch_size=16,
    )
    folder = tmp_path_factory.mktemp("dino")
    transformers.ViTModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def squeezenet():
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    return squeezenet1_1(weights=None).eval()


def test_clip_of_transformers(clip_folder):
    clip = load_clip(clip_folder)
    pictures, prompts = [picture(0), picture(1, (30, 30))], ["a cat", "a red dog on a chair"]
    images, texts = clip.images(pictures), clip.texts(prompts)
    assert images.shape == texts.shape == (2, 12)
    torch.testing.assert_close(images.norm(dim=1), torch.ones(2))
    # alone as together, and as the network itself scores them
    torch.testing.assert_close(clip.texts(prompts[:1]), texts[:1])
    torch.testing.assert_close(clip.images(pictures[1:]), images[1:])
    model = transformers.CLIPModel.from_pretrained(clip_folder).eval()
    processor = transformers.CLIPProcessor.from_pretrained(clip_folder)
    given = processor(text=prompts, images=pictures, return_tensors="pt", padding=True)
    with torch.no_grad():
        logits = model(**given).logits_per_image / model.logit_scale.exp()
    torch.testing.assert_close(images @ texts.T, logits)


def test_long_prompts_are_refused_by_name(clip_folder):
    with pytest.raises(DataError, match="'a red dog on a red chair' has more than the 8 tokens"):
        load_clip(clip_folder).texts(["a cat", "a red dog on a red chair"])


def test_clip_of_open_clip(tmp_path, monkeypatch):
    open_clip = pytest.importorskip("open_clip")
    config = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {
            "context_length": 8,
            "vocab_size": 49408,
            "width": 16,
            "heads": 2,
            "layers": 1,
        },
    }
    (tmp_path / "tiny-clip.json").write_text(json.dumps(config))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", [])
    open_clip.add_model_config(tmp_path / "tiny-clip.json")
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-clip").eval()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    clip = load_clip(f"open_clip:tiny-clip={tmp_path / 'weights.pt'}")
    images, texts = clip.images([picture(0)]), clip.texts(["a cat", "a red dog"])
    assert images.shape == (1, 12)
    with torch.no_grad():
        wanted = model.encode_text(open_clip.get_tokenizer("tiny-clip")(["a red dog"]))
    torch.testing.assert_close(texts[1:], torch.nn.functional.normalize(wanted, dim=1))
    with pytest.raises(DataError, match="more than the 8 tokens"):
        clip.texts(["a cat", "a red dog on a red chair"])
    for name in ("tiny-clip", "no-such=x", f"tiny-clip={tmp_path / 'gone.pt'}"):
        with pytest.raises(DataError, match="open_clip:"):
            load_clip(f"open_clip:{name}")


def test_dino_gives_the_keys_of_the_last_layer(dino_folder):
    images = torch.rand(2, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    keys = load_dino(dino_folder)(images)
    # 224 x 268 pixels: 14 x 16 patches of 16, and the class token
    assert keys.shape == (2, 2, 14 * 16 + 1, 8)
    from torchvision.transforms import functional as T

    vit = transformers.ViTModel.from_pretrained(dino_folder, attn_implementation="eager").eval()
    resized = T.resize(images, [224], antialias=True)
    resized = T.normalize(resized, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.no_grad():
        hidden = vit(resized, interpolate_pos_encoding=True, output_hidden_states=True)
    before = dict(vit.named_modules())
    norm = [m for n, m in before.items() if n.endswith("layernorm_before")][-1]
    linear = [m for n, m in before.items() if n.rsplit(".", 1)[-1] in ("key", "k_proj")][-1]
    wanted = linear(norm(hidden.hidden_states[1])).view(2, -1, 2, 8).transpose(1, 2)
    torch.testing.assert_close(keys, wanted, atol=1e-5, rtol=1e-5)


def test_long_images_are_not_made_longer_than_480(dino_folder):
    assert load_dino(dino_folder)(torch.rand(1, 3, 20, 100)).shape[2] == 6 * 30 + 1


def test_the_reference_s_range(dino_folder):
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    plain, odd = load_dino(dino_folder), load_dino(dino_folder, pixels="0..255")
    torch.testing.assert_close(odd(images / 255), plain(images))
    assert not torch.allclose(odd(images), plain(images), atol=1e-3)
    with pytest.raises(ValueError, match=r"0\.\.1 or 0\.\.255"):
        DinoKeys(torch.nn.Identity(), pixels="-1..1")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_lpips_is_that_of_torchmetrics(squeezenet, tmp_path, suffix):
    from safetensors.torch import save_file
    from torchmetrics.functional.image import lpips

    path = tmp_path / f"squeezenet{suffix}"
    {".pth": torch.save, ".safetensors": save_file}[suffix](squeezenet.state_dict(), path)
    a, b = torch.rand(2, 3, 3, 40, 32, generator=torch.Generator().manual_seed(0))
    mask = torch.rand(3, 1, 40, 32, generator=torch.Generator().manual_seed(1)) > 0.3
    reference = lpips._LPIPS(pretrained=True, net="squeeze", pnet_rand=True)
    state = {name.split(".", 1)[1]: value for name, value in squeezenet.features.state_dict(
        prefix="f.").items()}  # fmt: skip
    slices = {name.split(".", 2)[2]: name for name in reference.net.slices.state_dict(prefix="s.")}
    reference.net.slices.load_state_dict(
        {name.removeprefix("s."): state[plain] for plain, name in slices.items()}
    )
    wanted = reference(2 * a * mask - 1, 2 * b * mask - 1).flatten()
    found = load_lpips(path)
    torch.testing.assert_close(found(a, b, mask), wanted, atol=1e-6, rtol=1e-5)
    assert found(a, a).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="alike"):
        found(a, b[:2])


def test_other_weights_are_refused(clip_folder, dino_folder, tmp_path):
    with pytest.raises(DataError, match=r"missing|far larger"):
        load_dino(clip_folder)
    with pytest.raises(DataError):
        load_clip(dino_folder)
    for load in (load_clip, load_dino):
        with pytest.raises(DataError, match="no such folder, and not a hub id"):
            load(tmp_path / "gone")
        with pytest.raises(DataError, match="not a readable"):
            load(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        load_lpips(tmp_path / "gone.pth")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(DataError, match="does not fit SqueezeNet"):
        load_lpips(tmp_path / "other.pth")
    import pickle

    (tmp_path / "code.pth").write_bytes(pickle.dumps(print))
    with pytest.raises(DataError, match="code"):
        load_lpips(tmp_path / "code.pth")


def test_all_metrics_from_folders(clip_folder, dino_folder, squeezenet, tmp_path):
    torch.save(squeezenet.state_dict(), tmp_path / "squeezenet.pth")
    models = load_models(
        clip=clip_folder,
        dino=dino_folder,
        lpips=tmp_path / "squeezenet.pth",
        scorer=lambda image, question: "[1]",
    )
    assert models.unavailable == {}
    record = Record(
        "1",
        "",
        None,
        "a cat on a chair",
        "a [dog] on a chair",
        (Edit("cat", "dog", 1),),
        (1,),
        mask_runs=(100, 300),
        mask_size=(40, 48),
    )
    found = measure_edit(record, picture(0), picture(1), models)
    assert None not in found.values()
    assert all(np.isfinite(value) for value in found.values())
    same = measure_edit(record, picture(0), picture(0), models)
    assert same["structure_distance"] == same["background_lpips"] == same["d_clip"] == 0
    assert found["structure_distance"] > 0
    assert found["background_lpips"] > 0
    assert found["vlm_accuracy"] == 1
