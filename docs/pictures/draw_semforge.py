"""semforge: a drawn face is altered, and a small network names what and shows where."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from card import BLUE, GREY, TITLE, mark, plain, save, show
from cmdfd.talking import film, make_speaker
from papercommons.metrics.roc import binary_auc
from papercommons.pictures import heat
from PIL import Image
from semforge import LabelGraph, SemForgeNet, task_losses
from semforge.backbones import TinyNetwork
from semforge.crops import Cropper
from semforge.detection import SeenFace
from semforge.edits import edit_face, kinds_of
from semforge.inspector import Inspector
from semforge.regions import union
from semforge.verdicts import Look, heat_map, judge_face
from torch import Tensor, nn
from torch.nn import functional as F

GRAPH = LabelGraph.ffsc()
KINDS = tuple(kinds_of(GRAPH))  # expression, age, identity
SIZE, FRAMES, PICTURES, STEPS, BATCH, LR = 64, 12, 1500, 600, 32, 3e-3
SEEN, UNSEEN = range(60), range(60, 80)  # people


class Residue(nn.Module):
    """A small network that sees what differs from the mean of the pixels around."""

    image_size = SIZE

    def __init__(self) -> None:
        super().__init__()
        self.network = TinyNetwork(16)
        self.dim = self.network.dim

    def forward(self, images: Tensor) -> Tensor:
        """Return features (N, dim) of images (N, 3, S, S)."""
        around = F.avg_pool2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), 5, stride=1)
        features: Tensor = self.network(4 * (images - around))
        return features


class Faces(NamedTuple):
    """Faces in [0, 1] (n, 3, S, S), and labels (n, nodes)."""

    pictures: Tensor
    labels: Tensor


def draw_faces(people: range, count: int) -> Faces:
    """Return faces, six of ten altered in one attribute, with one generator's trace."""
    rng = np.random.default_rng(people.start)
    frames = []
    for person in people:
        mouths = rng.uniform(0, [0.5, 1, 0.5, 0.3], (FRAMES, 4))
        frames.append(film(make_speaker(person), mouths, rng, size=72)[:, 3:67, 4:68])
    faces, labels = [], []
    for _ in range(count):
        own, other = (frames[k][rng.integers(FRAMES)] for k in rng.choice(len(people), 2, False))
        face, label = own, np.zeros(len(GRAPH.nodes), np.int8)
        if rng.random() < 0.6:
            kind = KINDS[rng.integers(len(KINDS))]
            face, label = edit_face(own, rng, GRAPH, kind=kind, family="checker", other=other)
        faces.append(face)
        labels.append(label)
    pictures = torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2) / 255
    return Faces(pictures, torch.from_numpy(np.stack(labels)))


def train(faces: Faces) -> SemForgeNet:
    """Return a network with the graph's head after one cycle of the learning rate."""
    torch.manual_seed(0)
    net = SemForgeNet(Residue(), GRAPH, root_prior="balanced")
    optimiser = torch.optim.Adam(net.parameters(), lr=LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LR, total_steps=STEPS)
    for step in range(STEPS):
        rows = torch.randint(PICTURES, (BATCH,))
        pictures = faces.pictures[rows]
        scores = net(net.normalised(pictures.flip(3) if step % 2 else pictures))
        loss = task_losses(net.head, scores, faces.labels[rows]).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return net.eval()


def main() -> None:
    """Draw the middle one of the unseen faces with two regions altered, and what is said of it."""
    net, test = train(draw_faces(SEEN, PICTURES)), draw_faces(UNSEEN, 300)
    with torch.inference_mode():
        p = net.probabilities(net(net.normalised(test.pictures)))[:, 0]
    print(f"semforge: AUC of fake {binary_auc(p, test.labels[:, 0]):.3f}")
    few = (test.labels.sum(1) == 4).nonzero()[:, 0]  # fake, an attribute, two regions
    place = int(few[p[few].argsort()[len(few) // 2]])
    _, _, *regions = (node for node, on in zip(GRAPH.nodes, test.labels[place], strict=True) if on)
    face = (255 * test.pictures[place]).round().to(torch.uint8).permute(1, 2, 0).numpy()
    inspector = Inspector(net, torch.device("cpu"), "32-true", None, {})
    look = Look(Cropper("none", SIZE), 1, BATCH, 0.0, "occlusion", node=0)
    seen = SeenFace(face[None], [None], np.zeros(1), [0])
    verdict = judge_face(seen, 1, inspector, look, {})
    levels: Any = heat_map(face, inspector, look)[0]
    strength = levels.clip(0) / levels.max()
    large = Image.fromarray(face).resize((256, 256), Image.Resampling.BICUBIC)
    marked = heat(large, 255 * strength)
    likeliest = sorted(verdict.probabilities.items(), key=lambda item: -item[1])[:5]

    def draw(figure: Any) -> None:
        left, middle, bars = figure.subplots(1, 3, width_ratios=[1.2, 1.2, 1])
        show(left, large, "an altered face")
        show(middle, marked, "where it looks")
        mark(middle, union(regions, SIZE) > 0.5, marked.size)
        names, shares = zip(*likeliest, strict=True)
        colours = [BLUE if name in verdict.decoded else GREY for name in names]
        bars.barh(names, shares, color=colours)
        bars.set(xticks=[], xlim=(0, 1))
        bars.set_title("what it says", fontsize=TITLE, loc="center")
        bars.invert_yaxis()
        plain(bars, "left")

    save("semforge", draw)


if __name__ == "__main__":
    main()
