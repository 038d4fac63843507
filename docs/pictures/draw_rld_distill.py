"""rld-distill: a digit that the teacher gets wrong, and what refined logits make of its answer."""

from __future__ import annotations

from typing import Any

import torch
from card import BLUE, GREY, ORANGE, TEXT, TITLE, plain, save, show
from rld_distill import rld_loss
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

TRAINED, EPOCHS, TEMPERATURE = 1200, 10, 1.0


def train_teacher(images: Tensor, labels: Tensor) -> nn.Module:
    """Return a small network, trained for too short a time to be always right."""
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    optimiser = torch.optim.Adam(teacher.parameters(), lr=2e-3)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(64):
            loss = F.cross_entropy(teacher(images[batch]), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return teacher.eval()


def refined(logits: Tensor, true: int) -> Tensor:
    """Return the student's probabilities at which `rld_loss` is 0, shape (C,).

    The true class gets the teacher's largest probability; the classes below the true one share the
    rest in the teacher's proportions; the others get nothing.
    """
    teacher = (logits / TEMPERATURE).softmax(0)
    rest = torch.where(logits < logits[true], teacher, 0.0)
    found = rest / rest.sum() * (1 - teacher.max())
    found[true] = teacher.max()
    student = TEMPERATURE * found.clamp(min=1e-12).log()
    loss = rld_loss(student[None], logits[None], torch.tensor([true]), temperature=TEMPERATURE)
    if loss > 1e-4:
        raise RuntimeError(f"these are not the probabilities that RLD asks for: loss {loss:.2g}")
    return found


def main() -> None:
    """Draw the first unseen digit that the teacher gets wrong."""
    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32) / 16
    labels = torch.tensor(digits.target)
    teacher = train_teacher(images[:TRAINED], labels[:TRAINED])
    with torch.inference_mode():
        logits = teacher(images)
    wrong = (logits.argmax(1) != labels).nonzero()[:, 0]
    place = int(wrong[wrong >= TRAINED][0])
    true, said = int(labels[place]), int(logits[place].argmax())
    targets = {
        f"the teacher says {said}": (logits[place] / TEMPERATURE).softmax(0),
        "RLD teaches": refined(logits[place], true),
    }

    def draw(figure: Any) -> None:
        first, *others = figure.subplots(1, 3, width_ratios=[1, 1.5, 1.5])
        show(first, 255 - 255 * images[place].view(8, 8), f"it is a {true}")
        top = 1.15 * max(float(shares.max()) for shares in targets.values())
        for axes, (title, shares) in zip(others, targets.items(), strict=True):
            colours = [ORANGE if k == true else BLUE if k == said else GREY for k in range(10)]
            axes.bar(range(10), shares.tolist(), color=colours, width=0.85)
            axes.set_title(title, fontsize=TITLE, loc="center")
            axes.set(xticks=range(10), yticks=[], ylim=(0, top))
            plain(axes, "bottom")
            for k in (true, said):
                if shares[k] > 0:
                    where = {"ha": "center", "va": "bottom", "fontsize": TEXT}
                    axes.text(k, float(shares[k]), f"{shares[k]:.2f}", **where)

    save("rld-distill", draw)


if __name__ == "__main__":
    main()
