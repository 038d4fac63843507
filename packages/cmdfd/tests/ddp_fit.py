"""Trains and validates; torchrun starts it in two processes, the test in one."""

import sys

import numpy as np
import torch
from cmdfd.data import ArrayClips, AVData
from cmdfd.lightning import CMDFDModule
from lightning.pytorch import Trainer
from papercommons.cli import leave_process_group

TINY = {"dim": 32, "visual_width": 4, "audio_layers": (1, 1, 1, 1), "tcn_layers": 1, "heads": 4}
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
}


def made(lengths, seed):
    chance = np.random.default_rng(seed)
    frames = [chance.integers(0, 256, (n, 16, 16)).astype(np.uint8) for n in lengths]
    waves = [(chance.normal(size=640 * n) / 9).clip(-1, 0.9).astype(np.float32) for n in lengths]
    return ArrayClips(frames, waves, [k % 2 for k in range(len(lengths))])


def run(**options):
    """Return what validation found before training, and the weights after some steps."""
    torch.manual_seed(0)
    data = AVData(made([6, 7, 6, 8, 7], 0), val=made([6, 6, 6, 7, 8], 1), frames_per_batch=14)
    module = CMDFDModule(TINY, lr=1e-3)
    trainer = Trainer(max_epochs=1, num_sanity_val_steps=0, **QUIET, **options)
    found = trainer.validate(module, data, verbose=False)[0]
    trainer.fit(module, data)
    return found, {name: value.detach().clone() for name, value in module.named_parameters()}


if __name__ == "__main__":
    found, weights = run(devices=2, strategy="ddp")
    of_all = [None, None]
    torch.distributed.all_gather_object(of_all, weights)
    if torch.distributed.get_rank() == 0:
        torch.save({"found": found, "weights": of_all}, sys.argv[1])
    leave_process_group()
