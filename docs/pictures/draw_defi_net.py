"""defi-net: a spoon is inpainted away in a photograph, and a small network finds where."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from card import mark, save, show
from defi_net import DeFINet, boundary_loss, edge_label, structure_loss
from defi_net.engines import EngineOptions, open_engine
from defi_net.localizer import Localizer
from defi_net.masks import draw_mask
from papercommons.data.distortions import noise
from papercommons.metrics.roc import binary_auc
from papercommons.pictures import heat
from PIL import Image
from skimage import data
from torch import Tensor

SIZE, CROPS, STEPS, BATCH, LR = 64, 2400, 400, 8, 4e-3
SENSOR = 4.0  # its noise, in grey levels
SEEN = ("astronaut", "chelsea", "rocket", "brick", "gravel", "immunohistochemistry", "camera")
INPAINT = open_engine("telea", EngineOptions(radius=(5, 5)))


def inpainted(photo: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a photograph with a sensor's noise, inpainted where the mask is."""
    noisy = noise(photo, SENSOR, rng)
    return np.where(mask[..., None], INPAINT(noisy, mask, rng).photo, noisy)


def make_crops(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return crops of the photographs in [0, 1] (n, 3, 64, 64), and masks (n, 1, 64, 64)."""
    photos = [np.atleast_3d(getattr(data, name)()) for name in SEEN]
    crops, masks = [], []
    for number in range(CROPS):
        photo = photos[number % len(photos)]
        top, left = (int(rng.integers(side - SIZE)) for side in photo.shape[:2])
        crop = photo[top : top + SIZE, left : left + SIZE]
        masks.append(draw_mask("freeform", (SIZE, SIZE), rng, area=(0.05, 0.4)))
        crops.append(inpainted(np.broadcast_to(crop, (SIZE, SIZE, 3)), masks[-1], rng))
    pictures = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2) / 255
    return pictures, torch.from_numpy(np.stack(masks))[:, None].float()


def train(pictures: Tensor, masks: Tensor) -> DeFINet:
    """Return a small network after one cycle of the learning rate."""
    torch.manual_seed(0)
    network = DeFINet("hrnet_tiny", width=12)
    optimiser = torch.optim.Adam(network.parameters(), lr=LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LR, total_steps=STEPS)
    for _ in range(STEPS):
        rows = torch.randint(len(pictures), (BATCH,))
        edges, found = network(network.normalize(pictures[rows]))
        loss = 5 * structure_loss(found, masks[rows])
        loss = loss + boundary_loss(edges, edge_label(masks[rows]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network


def main() -> None:
    """Draw an unseen photograph, the same without its spoon, and what is found."""
    rng = np.random.default_rng(0)
    localizer = Localizer(train(*make_crops(rng)), way="whole")
    cup = Image.fromarray(data.coffee()).resize((300, 200), Image.Resampling.LANCZOS)
    photo = np.asarray(cup)[:192, 60:252]
    y, x = np.mgrid[:192, :192]
    spoon = np.hypot((x - 122) / 25, (y - 139) / 27) < 1
    forged = inpainted(photo, spoon, rng)
    found = localizer(forged)
    print(f"defi-net: AUC of the pixels {binary_auc(found, spoon):.3f}")
    panels = {
        "photo": Image.fromarray(photo),
        "inpainted": Image.fromarray(forged),
        "found": heat(Image.fromarray(forged), 255 * found),
    }

    def draw(figure: Any) -> None:
        row = figure.subplots(1, 3)
        for axes, (title, pixels) in zip(row, panels.items(), strict=True):
            show(axes, pixels, title, interpolation="antialiased")
        mark(row[-1], spoon, panels["found"].size)

    save("defi-net", draw)


if __name__ == "__main__":
    main()
