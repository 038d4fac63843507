"""defi-net learns to mark what was changed through the autoencoder of multi-edits' tiny model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from defi_net import DeFINet, boundary_loss, edge_label, structure_loss
from multi_edits.tiny import make_tiny_for
from papercommons.data.scenes import SIMPLE, draw_edits, draw_scene
from papercommons.metrics.localization import dilate
from papercommons.metrics.roc import binary_auc
from torch import Tensor, nn

UNSEEN = slice(448, 512)


def draw(count: int) -> list[Tensor]:
    """Return scenes, edited ones, where, and where all things are, each (count, ., 32, 32)."""
    random, rows = np.random.default_rng(0), []
    for _ in range(count):
        scene = draw_scene(random, SIMPLE)
        (edit,) = draw_edits(random, scene, ["color"])  # of one of two things
        marks = {thing.place: dilate(scene.mask(thing.place), 3) for thing in scene.things}
        views = [view.render().transpose(2, 0, 1) for view in (scene, scene.edited([edit]))]
        rows.append([*views, marks[edit.place][None], sum(marks.values())[None]])
    return [torch.from_numpy(np.stack(part)).float() for part in zip(*rows, strict=True)]


def train(network: nn.Module, loss_of: Callable[[Tensor], Tensor]) -> None:
    """Take steps down the loss of batches; a batch is places (16,) before those of `UNSEEN`."""
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(150):
        optimiser.zero_grad()
        loss_of(torch.randint(UNSEEN.start, (16,))).backward()
        optimiser.step()


def main() -> tuple[float, ...]:
    """Return the AUC of pixels of unseen pictures: of marking all things, and of defi-net."""
    torch.manual_seed(0)
    *views, masks, things = draw(UNSEEN.stop)
    scenes, edited = (view / 127.5 - 1 for view in views)
    vae, network = make_tiny_for(SIMPLE).vae, DeFINet("hrnet_tiny", width=12)
    train(vae, lambda rows: (vae(edited[rows]).sample - edited[rows]).square().mean())
    through = torch.cat([vae(part).sample.detach() for part in edited.split(64)]).clamp(-1, 1)
    pictures = (127.5 * torch.where(masks > 0, through, scenes) + 127.5).round() / 255

    def loss_of(rows: Tensor) -> Tensor:
        (edges, found), mask = network(network.normalize(pictures[rows])), masks[rows]
        return 5 * structure_loss(found, mask) + boundary_loss(edges, edge_label(mask))

    train(network, loss_of)
    found = network.eval()(network.normalize(pictures[UNSEEN]))[1].detach()
    return tuple(binary_auc(scores, masks[UNSEEN]) for scores in (things[UNSEEN], found))


if __name__ == "__main__":
    print("AUC of edited pixels: all things {:.3f}, defi-net {:.3f}".format(*main()))
