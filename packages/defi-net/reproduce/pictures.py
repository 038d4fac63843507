"""What two networks of `run.py` find in test crops, as a picture for the documentation.

``python pictures.py --runs RUNS/all --data INPAINTING --out docs/assets/defi-net-crops.png`` after
the experiment. The crops are chosen by their numbers, not by what is found.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from crops import Pictures
from defi_net.localizer import Localizer
from defi_net.model import DeFINet
from defi_net.pictures import grid_png
from defi_net.reading import read_sample
from papercommons.files import atomic_path

NETWORKS = {"full": "full-0", "FPN": "FPN-0"}
CROPS = {"telea": 0, "biharmonic": 10, "patch": 40, "authentic": 30}  # ten of each photograph


def main() -> None:
    """Draw a row for each engine: crop, truth, and the map of each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="folder with full-0 and FPN-0")
    parser.add_argument("--data", type=Path, required=True, help="as for run.py")
    parser.add_argument("--out", type=Path, required=True, help="PNG file")
    options = parser.parse_args()
    networks = {
        name: Localizer(DeFINet.from_pretrained(options.runs / folder), way="whole")
        for name, folder in NETWORKS.items()
    }
    test = Pictures(options.runs / "pictures", options.data, quick=False).test()
    pictures: list[np.ndarray] = []
    captions: list[str] = []
    for engine, number in CROPS.items():
        photo, mask = read_sample(test[engine, "earlier"][number])
        pictures += [photo, mask, *(network(photo) for network in networks.values())]
        captions += [engine, "truth", *networks]
    with atomic_path(options.out) as path:
        path.write_bytes(grid_png(pictures, captions, columns=2 + len(networks), width=1.4))


if __name__ == "__main__":
    main()
