"""The tiny model's module; training itself is tested in papercommons' own terms in a moment."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")

from d_tiil import DTIILPipeline
from d_tiil.lightning import DTIILModule
from d_tiil.settings import TINY
from papercommons.cli import RunOptions
from papercommons.data.scene_data import SceneData
from papercommons.training import fit


def test_two_steps_a_checkpoint_and_a_folder_with_settings(tmp_path, image, quick):
    module = DTIILModule("simple", lr=1e-3)
    data = SceneData("simple", train=16, val=4, batch_size=8)
    _, history = fit(
        module, data, epochs=1, run=RunOptions(accelerator="cpu"), out=tmp_path / "run"
    )
    assert module.steps == 2
    assert np.isfinite(history.rows[0]["val/loss"])
    loaded = DTIILModule.load_from_checkpoint(tmp_path / "run/last.ckpt", weights_only=True)
    assert loaded.hparams == module.hparams
    pipe = DTIILPipeline.from_pretrained(loaded.save_pretrained(tmp_path / "model"))
    assert pipe.settings == TINY
    pipe.set_progress_bar_config(disable=True)
    average = module.average["unet"]
    for ours, theirs in zip(pipe.unet.parameters(), average.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    caption = "a red circle left of a blue square on a black background"
    assert pipe(image, caption, depth="first", settings=quick).mask.shape == (32, 32)


def test_other_models_keep_their_own_settings(stock, tmp_path):
    module = DTIILModule(pipeline=stock)
    folder = module.save_pretrained(tmp_path / "model")
    assert not (folder / "d_tiil.json").exists()
    with pytest.raises(ValueError, match="did you mean simple"):
        DTIILModule("simpel")
