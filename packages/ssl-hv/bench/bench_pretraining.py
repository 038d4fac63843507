"""Pre-training images per second, against a plain loop with the same augmentation.

``python -m pytest packages/ssl-hv/bench/bench_pretraining.py -s --device cpu`` (or cuda). Both see
the same files, the same random changes and the same network; the plain loop opens every file anew
and changes one image at a time, as a map-style dataset with transforms does. Times are only
printed.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from papercommons.data.words import open_words
from papercommons.testing.timing import compare_speed
from PIL import Image
from ssl_hv.augmentation import handwriting, paper
from ssl_hv.data import WordData
from ssl_hv.encoders import LayoutResNet
from ssl_hv.objectives.vicreg import VICReg
from ssl_hv.verifier import as_ink
from torch.utils.data import DataLoader, Dataset

WRITERS, WORDS, BATCH = 16, 20, 64


class PlainDataset(Dataset):
    """Two views of one file at a time."""

    def __init__(self, paths, change):
        self.paths, self.change = paths, change

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        image = torch.from_numpy(np.array(Image.open(self.paths[index]).convert("L")))
        ink = as_ink(image[None, None])
        return self.change(ink)[0], self.change(ink)[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of the size of CEDAR's, with strokes."""
    root = tmp_path_factory.mktemp("words")
    rng = np.random.default_rng(0)
    for number in range(WRITERS * WORDS):
        picture = np.full((64, 64), 255, np.uint8)
        for _ in range(6):
            row, column = rng.integers(4, 50, 2)
            picture[row : row + 10, column : column + 2] = rng.integers(0, 90)
        place = root / f"writer{number % WRITERS:02d}" / f"{number:04d}.png"
        place.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(place)
    return root


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("change", [handwriting, paper], ids=["handwriting", "paper"])
@pytest.mark.parametrize("step", [False, True], ids=["views", "views and step"])
def test_epoch(change, step, folder, device, record):
    words = open_words(folder)
    data = WordData(words, batches="images", batch_size=BATCH)
    paths = [words.files[place].path for place in data.splits["unlabelled"]]
    objective = VICReg(LayoutResNet(width=16)).to(device)
    optimizer = torch.optim.SGD(objective.parameters(), lr=1e-4)

    def learn(views):
        if step:
            optimizer.zero_grad()
            objective(views)["loss"].backward()
            optimizer.step()

    def ours():
        for batch in data.train_dataloader():
            images = as_ink(batch.images.to(device))
            learn([change(images), change(images)])

    def plain():
        loader = DataLoader(PlainDataset(paths, change), BATCH, shuffle=True, drop_last=True)
        for views in loader:
            learn([view.to(device) for view in views])

    speed = compare_speed(ours, plain, rounds=3)
    seen = len(paths) // BATCH * BATCH
    record(
        measured=f"pre-training, {change.__name__}, {'with' if step else 'without'} VICReg's step",
        ours=f"{seen / speed.ours_s:,.0f} images/s",
        plain=f"{seen / speed.reference_s:,.0f} images/s",
        **speed.ratios(),
        memory=None,
    )
