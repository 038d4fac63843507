from __future__ import annotations

import json

import diffusers
import numpy as np
import pytest
import torch
from multi_edits.lightning import MultiEditsModule
from multi_edits.training import train_model
from papercommons.cli import RunOptions
from papercommons.data.scene_data import SceneData, draw_scenes
from papercommons.data.scenes import SIMPLE
from papercommons.errors import DataError
from papercommons.text_to_image.binding import draw_captions
from papercommons.text_to_image.options import SceneModelOptions
from papercommons.training import fit

FEW = SceneModelOptions(
    scenes="simple", count=16, epochs=2, autoencoder_epochs=1, batch_size=8, judged=3
)


def test_the_default_model_attends_at_two_levels():
    module = MultiEditsModule()
    longest = module.tokenizer.model_max_length
    caption = "a striped red circle top left and " * 3 + "a plain blue square bottom right"
    assert len(module.tokenizer(caption + " on a grey background").input_ids) == longest
    names = [name for name, _ in module.network["unet"].named_modules() if name.endswith("attn2")]
    assert {name.split(".attentions")[0] for name in names} == {
        "down_blocks.1",
        "mid_block",
        "up_blocks.1",
    }
    with pytest.raises(ValueError, match="did you mean crowded"):
        MultiEditsModule("crowd")


def test_two_steps_and_a_checkpoint(tmp_path):
    module = MultiEditsModule("simple", full_attention=False, lr=1e-3)
    before = [p.clone() for p in module.network.parameters()]
    vae = [p.clone() for p in module.vae.parameters()]
    data = SceneData("simple", train=16, val=4, batch_size=8)
    run = RunOptions(accelerator="cpu")
    _, history = fit(module, data, epochs=1, run=run, out=tmp_path)
    assert module.steps == 2
    assert np.isfinite(history.rows[0]["val/loss"])
    moved = [
        not torch.equal(*pair) for pair in zip(before, module.network.parameters(), strict=True)
    ]
    assert sum(moved) > 0.9 * len(moved)
    assert all(torch.equal(*pair) for pair in zip(vae, module.vae.parameters(), strict=True))
    loaded = MultiEditsModule.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert loaded.hparams == module.hparams
    assert (loaded.lr, loaded.steps) == (1e-3, 2)
    pipeline = MultiEditsModule(pipeline=module.pipeline()).pipeline()
    captions = [draw_scenes(SIMPLE, 1, seed=0)[0].caption()]
    made = [
        draw_captions(p, captions, steps=2)
        for p in (module.pipeline(), loaded.pipeline(), pipeline)
    ]
    assert (made[0] == made[1]).all()
    assert (made[0] == made[2]).all()


def test_the_training_command_leaves_an_ordinary_folder(tmp_path):
    out = tmp_path / "run"
    run = RunOptions(accelerator="cpu", seed=2)
    result = train_model(str(out), FEW, run)
    assert result.metrics["steps"] == 4
    assert 0 <= result.metrics["test/binding"] <= 1
    saved = json.loads((out / "result.json").read_text())
    assert saved["seed"] == 2
    assert "tiny model" in saved["limits"]
    assert (out / "report.html").stat().st_size > 10_000
    loaded = diffusers.StableDiffusionPipeline.from_pretrained(out / "model")
    assert loaded("a red circle", num_inference_steps=1).images[0].size == (32, 32)
    with pytest.raises(DataError, match="overwrite"):
        train_model(str(out), FEW, run)
    again = train_model(str(out), FEW, RunOptions(accelerator="cpu", seed=2, resume="last"))
    assert again.metrics["test/present"] == result.metrics["test/present"]
    assert again.metrics["val/loss"] == result.metrics["val/loss"]
    trial = RunOptions(accelerator="cpu", dry_run=True)
    assert train_model(str(tmp_path / "none"), FEW, trial).files == {}
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("wrong", [{"count": 0}, {"epochs": 0}, {"lr": 0.0}, {"judged": -1}])
def test_wrong_options_are_told(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"--{name} must be >"):
        SceneModelOptions(**wrong)
