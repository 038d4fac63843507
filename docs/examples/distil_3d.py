"""rld-distill's loss teaches a slim 3-D network what one of nlran's knows of small scans."""

from __future__ import annotations

import torch
from nlran import NLRAN
from rld_distill import rld_loss
from torch import Tensor, nn
from torch.nn import functional as F


def draw_scans(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return noisy scans (count, 1, 16, 16, 16) and which of four corners holds a bright ball."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (count,), generator=generator)
    centre = torch.stack([torch.zeros(count), labels // 2 * 8.0, labels % 2 * 8.0], 1) + 4
    centre += torch.randn(count, 3, generator=generator)
    grid = torch.stack(torch.meshgrid(*[torch.arange(16.0)] * 3, indexing="ij"), -1)
    ball = torch.exp(-(grid - centre[:, None, None, None]).square().sum(-1) / 8)
    return (0.3 * ball + 0.7 * torch.rand(ball.shape, generator=generator))[:, None], labels


def train(net: nn.Module, scans: Tensor, labels: Tensor, teacher: nn.Module | None = None) -> None:
    """Train on the labels, and on a teacher's logits if there is one."""
    optimiser = torch.optim.Adam(net.parameters(), lr=4e-3)
    for _ in range(240):
        rows = torch.randint(len(scans), (32,))
        logits = net.train()(scans[rows])
        loss = F.cross_entropy(logits, labels[rows])
        if teacher is not None:
            with torch.inference_mode():
                told = teacher.eval()(scans[rows])
            loss = loss + rld_loss(logits, told, labels[rows], temperature=2.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def main() -> tuple[float, float, float]:
    """Return a student's accuracy on unseen scans, and its KL divergence from the teacher there.

    The divergence first of one that learned from labels alone, then of the taught one.
    """
    torch.manual_seed(0)
    (scans, labels), (unseen, truth) = draw_scans(512, seed=0), draw_scans(256, seed=1)
    teacher = NLRAN(4, widths=(8, 16, 16, 16), depths=((), (1,), ()), last_units=1)
    train(teacher, scans, labels)
    wanted, distances = teacher.eval()(unseen).log_softmax(1), []
    for taught in (None, teacher):
        torch.manual_seed(1)
        pairs = [(nn.Conv3d(a, b, 3, 2, 1), nn.ReLU()) for a, b in ((1, 4), (4, 8), (8, 8))]
        slim = nn.Sequential(*sum(pairs, ()), nn.Flatten(), nn.Linear(64, 4))
        train(slim, scans, labels, taught)
        found = slim(unseen).log_softmax(1)
        distances.append(F.kl_div(found, wanted, reduction="batchmean", log_target=True).item())
    return (found.argmax(1) == truth).float().mean().item(), distances[0], distances[1]


if __name__ == "__main__":
    print("accuracy {:.3f}; KL divergence {:.3f}, taught {:.3f}".format(*main()))
