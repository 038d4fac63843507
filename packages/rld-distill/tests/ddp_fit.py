"""Trains a linear student for four steps; torchrun starts it in two processes, the test in one."""

import sys

import torch
from papercommons.cli import RunOptions, leave_process_group
from papercommons.training import fit, gather_predictions, seed_everything
from rld_distill.data import DistillData
from rld_distill.lightning import RLDModule
from torch import nn


def linear(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 10))


def train(*, batch_size, run):
    seed_everything(0)
    data = DistillData("digits", batch_size=batch_size, size=8)
    module = RLDModule(linear(0), linear(1), 10, warmup_epochs=0, lr=0.01)
    fit(module, data, epochs=1, run=run)
    predictions = gather_predictions(module, data.loader(data.splits.test), run=run)
    index = torch.cat([p.indices for p in predictions])
    logits = torch.cat([p.logits for p in predictions])
    order = index.argsort()
    return {
        "weight": module.student[2].weight.detach().cpu(),
        "index": index[order],
        "logits": logits[order],
    }


if __name__ == "__main__":
    run = RunOptions(
        accelerator="cpu", devices="2", strategy="ddp", trainer={"limit_train_batches": 4}
    )
    found = train(batch_size=32, run=run)
    if torch.distributed.get_rank() == 0:
        torch.save(found, sys.argv[1])
    leave_process_group()
