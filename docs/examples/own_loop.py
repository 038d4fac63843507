"""A plain torch loop with rld_loss: a small network learns digits from a larger one."""

from __future__ import annotations

import torch
from rld_distill import rld_loss
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F


def train(
    network: nn.Module, images: Tensor, labels: Tensor, *, teacher: nn.Module | None = None
) -> None:
    """Train `network` on the labels, and on the teacher's logits where there is a teacher."""
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(30):
        for batch in torch.randperm(len(images)).split(64):
            logits, target = network(images[batch]), labels[batch]
            loss = F.cross_entropy(logits, target)
            if teacher is not None:
                with torch.inference_mode():
                    teacher_logits = teacher(images[batch])
                loss = loss + rld_loss(logits, teacher_logits, target, temperature=4.0)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


@torch.inference_mode()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of images that the network names rightly."""
    return (network(images).argmax(1) == labels).float().mean().item()


def main() -> tuple[float, float]:
    """Return the accuracy on unseen digits of the teacher and of the student."""
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32) / 16
    labels = torch.tensor(digits.target)
    teacher = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    student = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    train(teacher, images[:1200], labels[:1200])
    train(student, images[:1200], labels[:1200], teacher=teacher)
    test = images[1200:], labels[1200:]
    return accuracy(teacher, *test), accuracy(student, *test)


if __name__ == "__main__":
    print("accuracy on unseen digits: teacher {:.3f}, student {:.3f}".format(*main()))
