"""Two steps of objectives that see the whole batch; ddp_fit.py runs them in two processes."""

import torch
from ssl_hv.objectives.barlow_twins import BarlowTwins
from ssl_hv.objectives.dino import DINO
from ssl_hv.objectives.moco import MoCo
from ssl_hv.objectives.simclr import SimCLR
from ssl_hv.objectives.vicreg import VICReg
from torch import distributed as dist
from torch import nn


class Encoder(nn.Sequential):
    """Without batch norm, whose statistics are those of one process by design."""

    dim = 12

    def __init__(self):
        super().__init__(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16, self.dim), nn.Tanh())


def objectives():
    torch.manual_seed(0)
    made = {
        "simclr": SimCLR(Encoder()),
        "barlow": BarlowTwins(Encoder(), projection_dim=8),
        "barlow_wide": BarlowTwins(Encoder(), projection_dim=64),
        "vicreg": VICReg(Encoder(), projection_dim=8),
        "vicreg_wide": VICReg(Encoder(), projection_dim=64),
        "moco": MoCo(Encoder(), queue_size=10),
        "dino": DINO(Encoder(), prototypes=16, frozen=0),
    }
    for name, objective in made.items():
        if name not in ("moco", "dino"):
            width = 64 if name.endswith("wide") else 8
            objective.projector = nn.Linear(Encoder.dim, width)
    return made


def two_steps(rank=0, processes=1):
    """Return losses, gradients and buffers after two steps on this process' share of the batch."""
    found = {}
    for name, objective in objectives().items():
        generator = torch.Generator().manual_seed(1)
        objective.double()
        trained = {n: p for n, p in objective.named_parameters() if p.requires_grad}
        losses = []
        for progress in (0.5, 1.0):
            count = objective.views + objective.local_views
            images = torch.rand(count, 8, 1, 8, 8, generator=generator, dtype=torch.float64)
            own = images.chunk(processes, dim=1)[rank]
            loss = objective(list(own))["loss"]
            objective.zero_grad()
            loss.backward()
            losses.append(loss.detach())
            for parameter in trained.values():
                if processes > 1:  # as DistributedDataParallel would, which takes long to import
                    dist.all_reduce(parameter.grad)
                    parameter.grad /= processes
                parameter.data -= 0.01 * parameter.grad
            objective.update(progress)
        loss = torch.stack(losses)
        if processes > 1:
            dist.all_reduce(loss)
        gradients = {n: p.grad for n, p in trained.items()}
        found[name] = {"loss": loss / processes, **gradients, **dict(objective.named_buffers())}
    return found
