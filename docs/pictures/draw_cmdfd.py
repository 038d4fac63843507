"""cmdfd: do sound and mouth say the same? Two recognisers are asked, one hears and one sees.

They are small teachers of the package, trained on genuine clips alone. Detectors that were trained
on another kind of forgery do not find swapped sound, see docs/papers/cmdfd.md.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from card import BLUE, GREY, ORANGE, TEXT, TITLE, plain, save, show
from cmdfd.clips import to_gray
from cmdfd.corpus import Recipe, make_planned, plan_corpus
from cmdfd.kinds import TalkingClip
from cmdfd.losses import jensen_shannon
from cmdfd.mouths import CLASSES, OPENING
from cmdfd.small_teacher import SmallTeacher
from papercommons.metrics.roc import binary_auc
from torch import Tensor
from torch.nn import functional as F

RECIPE = Recipe(
    count=480,
    kinds=("real", "swap"),
    unseen=(),
    people=40,
    seconds=(2.0, 2.0),
    size=64,
    val_fraction=0,
    test_fraction=0.25,
)
STEPS, BATCH, LR = 240, 16, 5e-3
KINDS = {"real": ("genuine", BLUE), "swap": ("sound swapped", ORANGE)}
LARGE = 160  # pixels of a face that is shown


def streams(clips: list[TalkingClip]) -> tuple[Tensor, Tensor, Tensor]:
    """Return sound (n, S), grey mouths (n, T, 32, 32), and what is heard in frames (n, T)."""
    waves = np.stack([clip.waveform for clip in clips])
    mouths = np.stack([to_gray(clip.frames)[:, 32:, 16:48] for clip in clips])
    classes = np.stack([clip.classes for clip in clips])
    return torch.from_numpy(waves), torch.from_numpy(mouths), torch.from_numpy(classes)


def train(waves: Tensor, mouths: Tensor, classes: Tensor) -> SmallTeacher:
    """Return recognisers of the classes of sounds after one cycle of the learning rate."""
    torch.manual_seed(0)
    pair = SmallTeacher(len(CLASSES), dim=32)
    optimiser = torch.optim.Adam(pair.parameters(), lr=LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LR, total_steps=STEPS)
    for step in range(STEPS):
        rows = torch.randint(len(waves), (BATCH,))
        seen = mouths[rows].flip(3) if step % 2 else mouths[rows]
        said = pair.audio_logits(waves[rows], mouths.shape[1]), pair.visual_logits(seen)
        loss = sum(F.cross_entropy(logits.mT, classes[rows]) for logits in said)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return pair.eval()


def main() -> None:
    """Draw the middle clip of either kind: a frame, loudness, the mouth, and the answer."""
    plans = plan_corpus(RECIPE)
    spoken = [plan for plan in plans if plan.split == "train" and plan.kind == "real"]
    pair = train(*streams([make_planned(plan, RECIPE) for plan in spoken]))
    tests = [plan for plan in plans if plan.split == "test"]
    clips = [make_planned(plan, RECIPE) for plan in tests]
    with torch.inference_mode():
        waves, mouths, _ = streams(clips)
        apart = jensen_shannon(*pair(waves, mouths)).mean(1).numpy()
    kinds = np.array([plan.kind for plan in tests])
    print(f"cmdfd: AUC of swapped sound {binary_auc(apart, kinds == 'swap'):.3f}")

    def draw(figure: Any) -> None:
        left, right = figure.subfigures(1, 2, width_ratios=[1, 3.6])
        places = zip(left.subplots(2, 1), right.subplots(2, 1), strict=True)
        for (face, axes), (kind, (name, colour)) in zip(places, KINDS.items(), strict=True):
            among = np.flatnonzero(kinds == kind)
            chosen = among[np.argsort(apart[among])[len(among) // 2]]
            opening = clips[chosen].mouths[:, OPENING]
            large = make_planned(tests[chosen], replace(RECIPE, size=LARGE))
            show(face, large.frames[opening.argmax()], interpolation="antialiased")
            loud = np.sqrt(np.square(clips[chosen].waveform.reshape(len(opening), -1)).mean(1))
            axes.fill_between(range(len(opening)), loud / loud.max(), color=GREY, linewidth=0)
            axes.plot(opening / opening.max(), color=colour)
            title = f"{name}: heard, seen {apart[chosen]:.2f} bits apart"
            axes.set_title(title, fontsize=TITLE, loc="left", color=colour)
            axes.set(xticks=[], yticks=[], ylim=(0, 1.05))
            axes.margins(x=0)
            plain(axes)
        right.supxlabel("grey: the sound, line: the mouth", fontsize=TEXT)

    save("cmdfd", draw)


if __name__ == "__main__":
    main()
