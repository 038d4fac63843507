"""ssl-hv: likelihood ratios of two pairs of drawn words, beside those of many other pairs."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from card import BLUE, ORANGE, TEXT, TITLE, plain, save, show
from papercommons.cli import RunOptions
from papercommons.testing.drawn_words import write_words
from papercommons.training import fit, seed_everything
from ssl_hv import SiameseVerifier, SimCLRModule, WordData
from ssl_hv.embedding import embed
from ssl_hv.evaluation import Judgement, calibrate, judge
from ssl_hv.pictures import LN_TEN, side_by_side
from ssl_hv.training import fit_head

WRITERS, SAMPLES, EPOCHS = 60, 12, 12
OPTIONS = {"image_size": 64, "width": 16}


def judge_words(folder: Path) -> tuple[WordData, Judgement]:
    """Return the words, and what a verifier pre-trained without names says of new writers."""
    seed_everything(0)
    data = WordData(str(folder), batches="images", batch_size=64, val_fraction=0.25)
    module = SimCLRModule("resnet-layout", encoder_options=OPTIONS)
    fit(module, data, epochs=EPOCHS, run=RunOptions(seed=0, accelerator="cpu"))
    embeddings = embed(module.encoder, data.images, device=torch.device("cpu"))
    verifier = SiameseVerifier(module.encoder, "cosine", head_options={"whiten": True})
    fit_head(verifier, embeddings, data, "whitened")
    calibrate(verifier, embeddings, data.pairs["val"])
    return data, judge(verifier, embeddings, data.words, data.pairs["test"], draws=10)


def main() -> None:
    """Draw the middle pair of either kind, and where it lies among all."""
    with TemporaryDirectory() as folder:
        words = write_words(Path(folder) / "words", range(WRITERS), SAMPLES)
        data, found = judge_words(words)
    print(f"ssl-hv: AUC {found.metrics['auc'].value:.3f}, Cllr {found.metrics['cllr'].value:.3f}")
    ratios = found.llr / LN_TEN
    same, sides = found.pairs.same == 1, (found.pairs.left, found.pairs.right)
    kinds = {"one writer": (same, BLUE), "two writers": (~same, ORANGE)}

    def draw(figure: Any) -> None:
        left, right = figure.subfigures(1, 2, width_ratios=[1, 1.15])
        axes = right.subplots()
        bins = np.linspace(np.quantile(ratios, 0.01), ratios.max(), 31).tolist()
        for place, (name, (kind, colour)) in zip(left.subplots(2, 1), kinds.items(), strict=True):
            rows = np.flatnonzero(kind)
            row = rows[np.argsort(ratios[rows])[len(rows) // 2]]
            pair = side_by_side(*(data.images[int(side[row]), 0] for side in sides))
            ink = (pair[:, :-1] < 150).any(1)
            show(place, pair[ink], interpolation="bilinear")
            title = f"{name}: {ratios[row]:+.1f}".replace("-", "−")
            place.set_title(title, fontsize=TITLE, loc="center", color=colour)
            axes.hist(ratios[kind], bins, color=colour, alpha=0.6)
            axes.axvline(ratios[row], color=colour, linewidth=2.5)
        axes.set(xticks=range(-6, 4, 3), yticks=[])
        axes.set_xlabel("log10 likelihood ratio", fontsize=TEXT)
        plain(axes, "bottom")

    save("ssl-hv", draw)


if __name__ == "__main__":
    main()
