"""ssl-hv's encoder as vlm-hv's supervised baseline: pre-trained without names it learns more."""

from __future__ import annotations

import copy

import numpy as np
import torch
from papercommons.cli import ComputeOptions
from papercommons.data.pairs import Pairs
from papercommons.metrics.roc import binary_auc
from papercommons.testing.drawn_words import draw_word
from ssl_hv import create_encoder, nt_xent_loss
from torch import nn
from vlm_hv.siamese import score_pairs, train_resnet

WORDS = 12
LABELLED, UNSEEN = range(8), range(40, 60)  # labels of the writers between are not used


def pretrain(encoder: nn.Module, images: np.ndarray) -> None:
    """Learn, without names, which words are of one page (SimCLR's loss); freeze the encoder."""
    ink = 1 - torch.from_numpy(images).float()[:, None].expand(-1, 3, -1, -1) / 255
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=2e-3)
    for _ in range(100):
        pages = WORDS * torch.randperm(UNSEEN.start)[:32]
        first, second = torch.rand(WORDS).argsort()[:2]
        views = encoder(ink[torch.cat([pages + first, pages + second])]).chunk(2)
        loss = nt_xent_loss(*views, temperature=0.2)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    encoder.eval().requires_grad_(False)


def pairs_of(writers: range) -> Pairs:
    """Return all pairs of one writer's words, and as many of two writers', as places in all."""
    places = np.arange(writers.start * WORDS, writers.stop * WORDS)
    left, right = (places[side] for side in np.triu_indices(len(places), 1))
    same = left // WORDS == right // WORDS
    others = np.random.default_rng(0).permutation(np.flatnonzero(~same))[: same.sum()]
    rows = np.append(np.flatnonzero(same), others)
    return Pairs(left[rows], right[rows], same[rows].astype(np.int64))


def main() -> tuple[float, ...]:
    """Return the AUC on pairs of unseen writers: from scratch, and pre-trained."""
    images = np.stack([draw_word(*divmod(n, WORDS), size=32) for n in range(60 * WORDS)])
    torch.manual_seed(0)
    scratch = create_encoder("resnet-layout", in_channels=3, width=8, dim=32, image_size=32)
    pretrain(trained := copy.deepcopy(scratch), images)
    seen, unseen = pairs_of(LABELLED), pairs_of(UNSEEN)
    how = {"epochs": 6, "lr": 1e-2, "run": ComputeOptions(accelerator="cpu")}
    modules = [train_resnet(images, seen, network=it, **how) for it in (scratch, trained)]
    return tuple(binary_auc(score_pairs(module, unseen), unseen.same) for module in modules)


if __name__ == "__main__":
    print("AUC on unseen writers: from scratch {:.3f}, pre-trained {:.3f}".format(*main()))
