"""Trains a verifier for two epochs; torchrun starts it in two processes, the test in one."""

import sys
from pathlib import Path

import torch
from papercommons.cli import RunOptions, leave_process_group
from papercommons.training import fit, seed_everything
from ssl_hv.data import WordData
from ssl_hv.presets import Recipe
from ssl_hv.supervised import VerifierModule
from ssl_hv.verifier import SiameseVerifier


def train(folder, *, batch_size, run):
    """Without batch norm, whose statistics are those of one process, and without augmentation."""
    seed_everything(0)
    data = WordData(folder, batches="pairs", batch_size=batch_size, resize=32, max_per_writer=8)
    verifier = SiameseVerifier("vit-tiny", encoder_options={"image_size": 32})
    module = VerifierModule(verifier, augmentation="none", recipe=Recipe("sgd", lr=0.05), warmup=0)
    before = verifier.head.projection.weight.detach().clone()
    _, history = fit(module, data, epochs=2, run=run)
    return {
        "moved": verifier.head.projection.weight.detach() - before,
        "weights": {name: value.detach() for name, value in verifier.named_parameters()},
        "logged": {k: v for k, v in history.rows[-1].items() if k != "seconds"},
    }


if __name__ == "__main__":
    run = RunOptions(accelerator="cpu", devices="2", strategy="ddp")
    found = {"fit": train(sys.argv[1], batch_size=8, run=run)}
    sys.path.insert(0, str(Path(__file__).parent))
    from ddp_losses import two_steps

    rank = torch.distributed.get_rank()
    found["losses"] = two_steps(rank, 2)
    if rank == 0:
        torch.save(found, sys.argv[2])
    leave_process_group()
