from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest_plugins = ["papercommons.testing.fixtures"]

CAPTION = "a red circle left of a blue square on a black background"
LENGTH = 16


def pytest_configure() -> None:
    # not above: pytest wants to import the plugin itself, to rewrite its asserts
    from papercommons.testing.fixtures import require_installed

    require_installed("d_tiil")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of the tests' reference values."""
    return Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def arrays(data):
    """Reference values of a file as tensors, by name."""
    import torch

    def read(name: str):
        with np.load(data / f"{name}.npz") as file:
            return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}

    return read


@pytest.fixture(scope="session")
def unet(arrays):
    """The small network of the reference values."""
    diffusers = pytest.importorskip("diffusers")
    network = diffusers.UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    values = arrays("noise_difference_mask")
    weights = {k.removeprefix("unet/"): v for k, v in values.items() if k.startswith("unet/")}
    network.load_state_dict(weights)
    return network.eval()


@pytest.fixture
def toy():
    """A denoiser without networks: 4 channels, embeddings (B, 3, 5), linear in the embedding."""
    import torch

    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(5, 4 * 8 * 8, generator=generator) * 0.2

    def denoise(latents, timesteps, embeddings):
        assert len(latents) == len(timesteps) == len(embeddings)
        said = (embeddings.mean(1) @ weight).view(-1, 4, 8, 8)
        return 0.5 * latents + said * (1 + timesteps[:, None, None, None] / 1000)

    return denoise


@pytest.fixture(scope="session")
def alpha_bars():
    """Noise levels of Stable Diffusion."""
    import torch

    return torch.linspace(0.00085**0.5, 0.012**0.5, 1000).square().neg().add(1).cumprod(0)


@pytest.fixture(scope="session")
def image():
    """A 32 x 32 picture of two shapes, uint8."""
    pixels = np.full((32, 32, 3), 20, dtype=np.uint8)
    pixels[10:22, 3:14] = (220, 40, 40)
    pixels[10:22, 18:29] = (50, 80, 230)
    return pixels


@pytest.fixture(scope="session")
def quick():
    """Settings that take a moment."""
    from d_tiil.settings import AlignmentSettings, EditSettings, LocateSettings, MapSettings

    return LocateSettings(
        alignment=AlignmentSettings(steps=3, lr=2e-2, batch=2, patience=0),
        maps=MapSettings(draws=2, steps=4, blur=0.0),
        edit=EditSettings(steps=2, guidance=2.0),
        pairs=3,
        max_rows=16,
    )


@pytest.fixture(scope="session")
def stock():
    """A tiny, untrained Stable Diffusion pipeline; tests leave it as it is."""
    pytest.importorskip("diffusers")
    from d_tiil.tiny import make_tiny

    return make_tiny(
        CAPTION.split(),
        max_length=LENGTH,
        channels=(8, 16, 16),
        vae_channels=(8, 8),
        prediction="epsilon",
        seed=1,
    )


@pytest.fixture(scope="session")
def folder(stock, quick, tmp_path_factory):
    """That pipeline as a folder, with quick settings."""
    from d_tiil.settings import write_settings

    path = tmp_path_factory.mktemp("model") / "tiny"
    stock.save_pretrained(path)
    write_settings(path, quick)
    return path


@pytest.fixture
def pipe(folder):
    """The pipeline under test over that folder."""
    from d_tiil import DTIILPipeline

    pipeline = DTIILPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="session")
def call():
    """Run a command as the shell would; gives its exit code."""
    from d_tiil import cli
    from papercommons.cli import run_command

    def call(verb: str, *arguments: object) -> int:
        if verb not in ("make-pairs", "eval", "calibrate", "train") and (
            "--accelerator" not in arguments
        ):
            arguments = (*arguments, "--accelerator", "cpu")
        words = list(map(str, arguments))
        function = {"eval": "evaluate"}.get(verb, verb.replace("-", "_"))
        return run_command(getattr(cli, function), prog=f"d-tiil-{verb}", argv=words)

    return call
