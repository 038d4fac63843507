"""semforge's loss in a plain torch loop: the root is learnt without one label, from the rules."""

from __future__ import annotations

import torch
from semforge import LabelGraph, task_losses
from semforge.heads import HeadName, create_head
from torch import Tensor, nn

GRAPH = LabelGraph.soft_or(
    "fake",
    {"expression": ["eyes", "mouth"], "age": ["mouth", "skin"]},
    local=["eyes", "mouth", "skin"],
    strict_root=True,
)
UNKNOWN = 2
ALTERED = torch.tensor(  # attribute and region of four ways to alter a face; the rest stay real
    [[1, 0, 1, 0, 0], [1, 0, 0, 1, 0], [0, 1, 0, 1, 0], [0, 1, 0, 0, 1], *[[0] * 5] * 4]
)


def draw_faces(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return noisy pictures (count, 15, 10) and labels (count, 6) of the nodes of the graph.

    A third of the rows shows each region; an altered one is brighter, on a side that says why.
    """
    labels = ALTERED[torch.randint(len(ALTERED), (count,), generator=generator)]
    pictures = torch.randn(count, 3, 5, 2, 5, generator=generator)
    side = labels[:, None, :2] * labels[:, 2:, None]
    pictures += 0.9 * side[:, :, None, :, None]
    fake = labels.amax(1, keepdim=True)
    return pictures.reshape(count, 15, 10), torch.cat([fake, labels], 1)


def accuracy(kind: HeadName) -> float:
    """Train with a head on labels that lack the root; return how often it is right on the root."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    head = create_head(kind, GRAPH)
    network = nn.Sequential(nn.Flatten(), nn.Linear(150, 32), nn.ReLU(), nn.Linear(32, 6))
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(400):
        pictures, labels = draw_faces(64, generator)
        labels[:, 0] = UNKNOWN
        loss = task_losses(head, network(pictures), labels).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    pictures, labels = draw_faces(2000, generator)
    found = head.probabilities(network(pictures))[:, 0] > 0.5
    return (found == labels[:, 0]).float().mean().item()


def main() -> tuple[float, float]:
    """Return the accuracy on real or fake of independent nodes, and of the graph."""
    return accuracy("flat"), accuracy("graph")


if __name__ == "__main__":
    print("real or fake, never labelled: flat {:.3f}, graph {:.3f}".format(*main()))
