"""Trains on phantoms for two epochs; torchrun starts it in two processes, the test in one."""

import sys

import torch
from nlran.data import CTData
from nlran.lightning import NLRANModule
from nlran.model import nlran_tiny
from papercommons.cli import RunOptions, leave_process_group
from papercommons.training import fit, gather_predictions, seed_everything


def train(folder, *, batch_size, run):
    seed_everything(0)
    data = CTData(
        folder,
        batch_size=batch_size,
        size=(32, 32, 32),
        val_fraction=0.3,
        test_fraction=0,
        augment=True,
    )
    module = NLRANModule(nlran_tiny(norm="group"), lr=0.01, optimizer="sgd")
    _, history = fit(module, data, epochs=2, run=run)
    predictions = gather_predictions(module, data.loader(data.splits["val"]), run=run)
    index = torch.cat([p.indices for p in predictions])
    logits = torch.cat([p.logits for p in predictions])
    order = index.argsort()
    return {
        "weight": module.network.head.weight.detach().cpu(),
        "stem": module.network.stem[0].weight.detach().cpu(),
        "index": index[order],
        "logits": logits[order],
        "logged": {k: v for k, v in history.rows[-1].items() if k != "seconds"},
    }


if __name__ == "__main__":
    run = RunOptions(accelerator="cpu", devices="2", strategy="ddp", precision="64-true")
    found = train(sys.argv[1], batch_size=3, run=run)
    if torch.distributed.get_rank() == 0:
        torch.save(found, sys.argv[2])
    leave_process_group()
