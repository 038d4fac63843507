"""Trains one step and judges six images; torchrun starts it in two processes, the test in one."""

import os
import sys

import torch
from defi_net.data import MaskBatch
from defi_net.lightning import CLAMP, DeFINetModule
from defi_net.model import DeFINet
from lightning.pytorch import Trainer
from papercommons.cli import leave_process_group
from torch.utils.data import DataLoader

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
}


def batches(count=6, *, rank=0, processes=1):
    """One image each; every third is authentic, and one is forged all over."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for i in range(count):
        masks = torch.zeros(1, 1, 24, 24)
        masks[..., : 24 if i == 1 else 4 * (i % 3), :] = 1
        images = torch.rand(1, 3, 24, 24, generator=generator) * (1 - masks) + 0.5 * masks
        made.append(MaskBatch(images, masks, [str(i)], ["authentic" if i % 3 == 0 else "patch"]))
    return DataLoader(made[rank::processes], batch_size=None)


def judge(*, rank=0, processes=1):
    torch.manual_seed(0)
    module = DeFINetModule(DeFINet("hrnet_tiny", 4), edge_weight=0.0, schedule="constant")
    trainer = Trainer(
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        max_steps=1,
        **CLAMP,
        **QUIET,
    )
    loader = batches(rank=rank, processes=processes)
    (logged,) = trainer.validate(module, loader, verbose=False)
    trainer.fit(module, loader)
    return logged


if __name__ == "__main__":
    rank = int(os.environ["RANK"])
    logged = judge(rank=rank, processes=2)
    if rank == 0:
        torch.save(logged, sys.argv[1])
    leave_process_group()
