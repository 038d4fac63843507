"""nlran: is there a lesion in a made-up chest, and where do the network's features respond?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from card import BLUE, GREY, TEXT, TITLE, mark, plain, save, show
from nlran import NLRAN
from nlran.heatmaps import heat_maps, to_input_grid
from nlran.phantoms import CLEAR, make_phantom
from papercommons.pictures import heat
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

SIZE, TRAINED, STEPS, LR = 32, 200, 160, 3e-3
LABELS = ("Normal", "CP")  # no lesion, two in one lung


def chests(count: int, seed: int) -> tuple[Tensor, Tensor, np.ndarray]:
    """Return volumes in [0, 1] (n, 1, 32, 32, 32), classes in turn (n,), and lesions (n, ...)."""
    made = [
        make_phantom(LABELS[i % 2], (seed, i), size=SIZE, noise=20.0, lesions=CLEAR)
        for i in range(count)
    ]
    hu = torch.from_numpy(np.stack([hu for hu, _ in made]).astype(np.float32))[:, None]
    masks = np.stack([mask for _, mask in made])
    return ((hu + 1000) / 1400).clamp(0, 1), torch.arange(count) % 2, masks


def train(volumes: Tensor, target: Tensor) -> NLRAN:
    """Return a small network with one attention module and one non-local block."""
    torch.manual_seed(0)
    network = NLRAN(
        2, widths=(16, 32), depths=((2,),), last_units=2, stem_kernel=3, stem_pool=False
    ).to(memory_format=torch.channels_last_3d)
    optimiser = torch.optim.AdamW(network.parameters(), lr=LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LR, total_steps=STEPS)
    for _ in range(STEPS):
        chosen = torch.randint(len(volumes), (16,))
        axes = [axis for axis in (2, 3, 4) if torch.rand(()) < 0.5]
        loss = F.cross_entropy(network(volumes[chosen].flip(axes)), target[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval()


def main() -> None:
    """Draw the first unseen chest with lesions: a slice, the answer, the default heat map."""
    network = train(*chests(TRAINED, seed=0)[:2])
    volumes, target, masks = chests(60, seed=1)
    logits, maps = heat_maps(network, volumes, ["mask-trunk"])
    right = (logits.argmax(1) == target).float().mean()
    print(f"nlran: {right:.0%} of {len(target)} unseen chests are right")
    levels = to_input_grid(maps["mask-trunk"], (SIZE,) * 3).numpy()
    place = int(target.argmax())
    number = int(masks[place].sum((1, 2)).argmax())
    pixels = (255 * volumes[place, 0, number]).round().to(torch.uint8).numpy()
    smooth = Image.fromarray(pixels).convert("RGB").resize((256, 256), Image.Resampling.BICUBIC)
    found = heat(smooth, 255 * levels[place, number])
    shares = logits[place].softmax(0).tolist()

    def draw(figure: Any) -> None:
        left, middle, right = figure.subplots(1, 3, width_ratios=[1.3, 0.8, 1.3])
        show(left, smooth, "a slice of a chest")
        middle.bar(["none", "lesion"], shares, color=[GREY, BLUE], width=0.7)
        middle.set_title("answer", fontsize=TITLE, loc="center")
        middle.set(yticks=[], ylim=(0, 1.15))
        plain(middle, "bottom")
        for k, share in enumerate(shares):
            middle.text(k, share, f"{share:.2f}", ha="center", va="bottom", fontsize=TEXT)
        show(right, found, "heat map")
        mark(right, masks[place, number], found.size)

    save("nlran", draw)


if __name__ == "__main__":
    main()
