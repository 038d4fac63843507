from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest_plugins = ["papercommons.testing.fixtures"]

SOURCE = "a red circle left of a blue square on a black background"
TARGET = "a green circle left of a blue dog on a white background"
WORDS = [*SOURCE.split(), "green", "white"]
LENGTH = 24


def pytest_configure() -> None:
    # not above: pytest wants to import the plugin itself, to rewrite its asserts
    from papercommons.testing.fixtures import require_installed

    require_installed("multi_edits")


@pytest.fixture(scope="session")
def call() -> Callable[..., int]:
    """Run a command as the shell would; gives its exit code."""
    from multi_edits import cli
    from papercommons.cli import run_command

    commands = vars(cli) | {"eval": getattr(cli, "evaluate", None), "make-scenes": cli.make_scenes}

    def call(verb: str, *arguments: object) -> int:
        if verb not in ("make-scenes", "eval") and "--accelerator" not in arguments:
            arguments = (*arguments, "--accelerator", "cpu")
        words = list(map(str, arguments))
        return run_command(commands[verb], prog=f"multi-edits-{verb}", argv=words)

    return call


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of the tests' reference values."""
    return Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def parity(data):
    """Reference values as tensors, by name without the part before the slash."""
    import torch

    with np.load(data / "parity.npz") as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}

    def part(name: str):
        return {k.removeprefix(f"{name}/"): v for k, v in arrays.items() if k.startswith(name)}

    return part


@pytest.fixture(scope="session")
def image():
    """A 32 x 32 picture of two shapes, uint8."""
    pixels = np.full((32, 32, 3), 20, dtype=np.uint8)
    pixels[10:22, 3:14] = (220, 40, 40)
    pixels[10:22, 18:29] = (50, 80, 230)
    return pixels


@pytest.fixture(scope="session")
def tokenizer():
    """Of the words of the tests; "dog" has three tokens."""
    pytest.importorskip("transformers")
    from multi_edits.tokenizer import make_tokenizer

    return make_tokenizer(WORDS, LENGTH)


@pytest.fixture(scope="session")
def stock():
    """A tiny, untrained Stable Diffusion pipeline; tests leave it as it is."""
    pytest.importorskip("diffusers")
    from multi_edits.tiny import make_tiny

    return make_tiny(
        WORDS, max_length=LENGTH, full_attention=True, channels=(8, 8, 16), vae_channels=(8, 8)
    )


@pytest.fixture(scope="session")
def folder(stock, tmp_path_factory):
    """That pipeline as a folder."""
    path = tmp_path_factory.mktemp("model") / "tiny"
    stock.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def pipe(folder):
    """The pipeline under test over that folder."""
    from multi_edits import MultiEditsPipeline

    pipeline = MultiEditsPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="session")
def given(folder, image, tmp_path_factory):
    """The arguments of a plain edit, with groups so that there are three branches."""
    kinds = ("rigid", "non-rigid", "global")
    groups = [{"kind": kind, "edits": [k]} for k, kind in enumerate(kinds, 1)]
    quick = ("--steps", 3, "--group-steps", 2, "--mode", "parallel")
    place = tmp_path_factory.mktemp("given")
    Image.fromarray(image).save(place / "in.png")
    (place / "groups.json").write_text(json.dumps(groups))
    asked = ("--source", SOURCE, "--target", TARGET, "--groups", place / "groups.json")
    return ("--model", folder, "--image", place / "in.png", *asked, *quick)


@pytest.fixture(scope="session")
def edited(call, given, tmp_path_factory):
    """The folder of that edit; tests leave it as it is."""
    out = tmp_path_factory.mktemp("edited") / "out"
    assert call("edit", *given, "--out", out) == 0
    return out


@pytest.fixture(scope="session")
def xl_parts(stock):
    """Parts of a tiny pipeline of the XL kind: two text encoders, sizes as a condition."""
    import diffusers
    import torch
    import transformers

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
    return {
        "vae": stock.vae,
        "unet": unet,
        "scheduler": stock.scheduler,
        "text_encoder": encoder(transformers.CLIPTextModel, tokens),
        "tokenizer": tokens,
        "text_encoder_2": encoder(transformers.CLIPTextModelWithProjection, tokens),
        "tokenizer_2": tokens,
    }
