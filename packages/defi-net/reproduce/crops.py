"""Photographs that libraries bring along, and the crops of them that are judged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from defi_net.engines import EngineOptions
from defi_net.layouts import Sample, find_samples
from defi_net.reading import read_photo
from defi_net.recipe import Recipe
from defi_net.synth import synthesize
from papercommons.files import atomic_path
from PIL import Image

SEEN, UNSEEN = ("telea", "ns"), ("biharmonic", "patch")
SIZE, TEST_SEED = 64, 20_000
PER_PHOTO = {"train": 437, "test": 10}  # of 11 and 10: 600 batches of 8, 100 crops per engine
QUICK = {"train": 30, "test": 2}


def photographs() -> dict[str, dict[str, np.ndarray]]:
    """Return the photographs that libraries bring along, by split and name."""
    import matplotlib
    from skimage import data
    from sklearn.datasets import load_sample_image

    hopper = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    retina = data.retina()[350:1060, 350:1060]  # the middle: the rest is black
    train = {name: getattr(data, name)() for name in ("coffee", "chelsea", "brick", "gravel")}
    train |= {"hubble": data.hubble_deep_field(), "motorcycle": data.stereo_motorcycle()[0]}
    train |= {"coins": data.coins(), "tissue": data.immunohistochemistry(), "retina": retina}
    train |= {"china": load_sample_image("china.jpg"), "hopper": read_photo(hopper)}
    test = {name: getattr(data, name)() for name in ("astronaut", "rocket", "camera", "grass")}
    test["flower"] = load_sample_image("flower.jpg")
    return {"train": train, "test": test}


class Pictures:
    """The crops, and the photographs they are cut out of, in a folder.

    Args:
        folder: where they are written.
        data: folder with ``deepfillv2_places2/`` and ``photos_with_masks/``.
        quick: few crops.

    Attributes:
        counts: crops of a training set, and test crops of an engine.
    """

    def __init__(self, folder: Path, data: Path, *, quick: bool) -> None:
        self.folder, self.data = folder, data
        self.per_photo = QUICK if quick else PER_PHOTO
        of = {"train": 11, "test": 5 + len(self._new_photos())}
        self.counts = {split: of[split] * self.per_photo[split] for split in of}

    def train(self, seed: int) -> Path:
        """Return the folder of the training crops of a seed."""
        return self.folder / f"train-{seed}"

    def test(self) -> dict[tuple[str, str], list[Sample]]:
        """Return what is judged by (engine, photographs); of ``deepfill`` whole photographs."""
        found = {
            (engine, photos): find_samples(self.folder / f"test-{photos}-{engine}")
            for engine in (*SEEN, *UNSEEN, "authentic")
            for photos in ("earlier", "new")
        }
        whole = find_samples(self.data / "deepfillv2_places2", layout="deepfill")
        return found | {("deepfill", "deepfill"): whole}

    def make(self, seeds: Sequence[int]) -> None:
        """Cut and inpaint what is not there yet."""
        photos = {split: self._write(split, of) for split, of in photographs().items()}
        for seed in seeds:
            self._cut(self.train(seed), photos["train"], "train", SEEN, seed)
        for name, places in (("earlier", photos["test"]), ("new", self._new_photos())):
            for engine in (*SEEN, *UNSEEN, "authentic"):
                # one seed: the same crops, noise and masks for all engines
                folder = self.folder / f"test-{name}-{engine}"
                self._cut(folder, places, "test", (engine,), TEST_SEED)

    def _write(self, split: str, photos: dict[str, np.ndarray]) -> list[Path]:
        folder = self.folder / split
        folder.mkdir(parents=True, exist_ok=True)
        for name, photo in photos.items():
            with atomic_path(folder / f"{name}.png") as path:
                Image.fromarray(photo).save(path)
        return sorted(folder.glob("*.png"))

    def _new_photos(self) -> list[Path]:
        files = sorted((self.data / "photos_with_masks").glob("*.png"))
        return [file for file in files if not file.stem.endswith("_mask")]

    def _cut(
        self,
        folder: Path,
        places: Sequence[Path],
        split: Literal["train", "test"],
        engines: tuple[str, ...],
        seed: int,
    ) -> None:
        if (folder / "manifest.csv").is_file():
            return
        authentic = engines == ("authentic",)
        recipe = Recipe(
            engines=SEEN if authentic else engines,
            size=SIZE,
            scale=(0.6, 1.0),
            sensor_noise=(2.0, 6.0),
            authentic=1 - 1e-9 if authentic else 0.0,
            engine_options=EngineOptions(radius=(5, 5)),
            seed=seed,
        )
        synthesize(
            list(places),
            str(folder),
            recipe=recipe,
            per_image=self.per_photo[split],
            val_fraction=0,
            test_fraction=0,
            resume=folder.is_dir(),
        )
