"""vlm-hv: a vision-language model is asked about two pairs of drawn words."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from card import BLUE, GREY, TEXT, TITLE, plain, save, show
from papercommons.cli import RunOptions
from papercommons.metrics.roc import binary_auc
from papercommons.testing.drawn_words import write_words
from papercommons.training import fit, seed_everything
from vlm_hv.data import PairData
from vlm_hv.lightning import VLMHVModule
from vlm_hv.tiny import tiny_paligemma
from vlm_hv.verifier import VLMVerifier
from vlm_hv.vision_pretraining import teach_tower

WRITERS, SAMPLES, TOWER_STEPS = 60, 12, 90
SIZE = {"size": 64, "patch_size": 16, "width": 64, "layers": 2}
QUESTION = "Did the same person write both?"


def trained(folder: Path) -> tuple[VLMVerifier, PairData]:
    """Return a tiny PaliGemma that has learnt to answer, and the words."""
    seed_everything(0)
    verifier = VLMVerifier(*tiny_paligemma(**SIZE, seed=0), question=QUESTION)
    data = PairData(str(folder), verifier.prompt, batch_size=64, val_fraction=0.25)
    run = RunOptions(seed=0, accelerator="cpu", trainer={"gradient_clip_val": 1.0})
    teach_tower(verifier, data, run, steps=TOWER_STEPS)
    module = VLMHVModule(verifier, tune="full", lr=3e-3)
    verifier.model.model.vision_tower.requires_grad_(False)
    fit(module, data, epochs=1, run=run)
    return verifier.eval(), data


def main() -> None:
    """Draw the middle pair of either kind, with the probabilities of the two answers."""
    with TemporaryDirectory() as folder:
        verifier, data = trained(write_words(Path(folder) / "words", range(WRITERS), SAMPLES))
    pairs = data.pairs["test"]
    pairs = pairs.take(np.random.default_rng(0).permutation(len(pairs))[:400])
    left, right = data.images[pairs.left], data.images[pairs.right]
    p = np.array([verdict.score for verdict in verifier.predict(left, right)])
    print(f"vlm-hv: AUC on pairs of unseen writers {binary_auc(p, pairs.same):.3f}")

    def draw(figure: Any) -> None:
        figure.suptitle(f"“{QUESTION}”", fontsize=TITLE)
        for row, same in zip(figure.subplots(2, 3, width_ratios=[1, 1, 2.2]), (1, 0), strict=True):
            kind = np.flatnonzero(pairs.same == same)
            chosen = kind[np.argsort(p[kind])[len(kind) // 2]]
            for axes, words in zip(row, (left, right), strict=False):
                word = words[chosen]
                show(axes, word[(word < 255).any(1)], interpolation="bilinear")
                axes.set_anchor("C")
            shares = [p[chosen], 1 - p[chosen]]
            colours = [BLUE if share == max(shares) else GREY for share in shares]
            row[2].barh(["yes", "no"], shares, color=colours, height=0.6)
            row[2].set(xticks=[], xlim=(0, 1.25))
            row[2].invert_yaxis()
            plain(row[2], "left")
            for place, share in enumerate(shares):
                row[2].text(share + 0.02, place, f"{share:.2f}", va="center", fontsize=TEXT)

    save("vlm-hv", draw)


if __name__ == "__main__":
    main()
