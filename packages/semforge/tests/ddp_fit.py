"""Trains with Auto-lambda; torchrun starts it in two processes, the test in one."""

import sys
from typing import NamedTuple

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from papercommons.cli import leave_process_group
from semforge.lightning import SemForgeModule
from torch.utils.data import DataLoader

GRAPH = {"nodes": ["fake", "age"], "subsumption": [["fake", "age"]]}
QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


class Faces(NamedTuple):
    images: torch.Tensor
    labels: torch.Tensor


def batches(seed):
    chance = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (4, 8, 1), generator=chance).expand(-1, -1, 2)
    images = torch.rand(4, 8, 3, 32, 32, generator=chance)
    return DataLoader(
        [Faces(*batch) for batch in zip(images, labels, strict=True)], batch_size=None
    )


def train(form, seed, **options):
    """Return all parameters and weights after four steps, those of every other step of lambda."""
    torch.manual_seed(0)
    module = SemForgeModule(
        "tiny",
        GRAPH,
        image_size=32,
        dropout=0.0,
        weighting="autol",
        lambda_form=form,
        lambda_lr=0.05,
        lambda_every=2,
    )
    loaders = CombinedLoader({"train": batches(seed), "meta": batches(seed + 100)}, "min_size")
    trainer = Trainer(max_epochs=1, accelerator="cpu", **QUIET, **options)
    trainer.fit(module, loaders)
    return {name: value.detach().clone() for name, value in module.named_parameters()}


if __name__ == "__main__":
    two = {"devices": 2, "strategy": "ddp", "use_distributed_sampler": False}
    found = {}
    for form in ("exact", "finite"):
        same = train(form, 0, **two)
        rank = torch.distributed.get_rank()
        own = train(form, rank, **two)
        of_all = [None, None]
        torch.distributed.all_gather_object(of_all, own)
        found[form] = {"same": same, "own": of_all}
    if rank == 0:
        torch.save(found, sys.argv[1])
    leave_process_group()
