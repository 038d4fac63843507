from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from papercommons.cli import RunOptions
from papercommons.metrics.roc import binary_auc
from vlm_hv.data import PairData
from vlm_hv.tiny import tiny_paligemma
from vlm_hv.verifier import VLMVerifier
from vlm_hv.vision_pretraining import WriterData, image_features, teach_tower, writer_contrast

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
]


def by_hand(features, writers, temperature):
    """Equation 2 of arXiv 2004.11362, term by term."""
    unit = [row / row.norm() for row in features]
    losses = []
    for i, row in enumerate(unit):
        others = [j for j in range(len(unit)) if j != i]
        alike = [j for j in others if writers[j] == writers[i]]
        whole = sum(math.exp(row @ unit[j] / temperature) for j in others)
        terms = [-math.log(math.exp(row @ unit[p] / temperature) / whole) for p in alike]
        losses += [sum(terms) / len(terms)] if terms else []
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_loss_is_that_of_the_formula(temperature):
    features = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    writers = torch.tensor([0, 1, 0, 2, 1, 0, 3])  # two of them have one image only
    found = writer_contrast(features, writers, temperature=temperature)
    assert found == pytest.approx(by_hand(features, writers.tolist(), temperature), rel=1e-5)
    torch.testing.assert_close(
        writer_contrast(features * 9, writers, temperature=temperature), found
    )
    torch.testing.assert_close(
        writer_contrast(features.flip(0), writers.flip(0), temperature=temperature), found
    )


def test_images_of_one_writer_are_drawn_together():
    writers = torch.tensor([0, 1, 0, 1])
    features = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    writer_contrast(features, writers).backward()
    moved = (features - 0.01 * features.grad).detach()

    def cosine(rows, a, b):
        return torch.cosine_similarity(rows[a], rows[b], dim=0)

    alike = sum(cosine(moved, a, b) - cosine(features, a, b) for a, b in ((0, 2), (1, 3)))
    other = sum(cosine(moved, a, b) - cosine(features, a, b) for a, b in ((0, 1), (2, 3)))
    assert alike > 0
    assert alike > other


@pytest.mark.parametrize(
    ("features", "writers", "temperature", "message"),
    [
        ((4, 2), [0, 0, 1], 0.1, r"features must be \(N, D\) and writers \(N,\), got \(4, 2\)"),
        ((3, 2), [0, 1, 2], 0.1, "no writer has two images"),
        ((2, 2), [0, 0], 0.0, "temperature must be > 0, got 0"),
    ],
)
def test_what_cannot_be_contrasted_is_refused(features, writers, temperature, message):
    with pytest.raises(ValueError, match=message):
        writer_contrast(torch.ones(features), torch.tensor(writers), temperature=temperature)


@pytest.fixture(scope="module")
def made(words):
    verifier = VLMVerifier(*tiny_paligemma(size=32, width=16, layers=1))
    return verifier, PairData(str(words), verifier.prompt)


def test_a_batch_holds_both_images_of_one_writers_pairs(made):
    verifier, data = made
    pairs = data.pairs["train"]
    loader = WriterData(
        data.images, pairs, data.words.writers, verifier.prompt.processor, batch_size=5
    ).train_dataloader()
    batches = list(loader)
    assert len(batches) == int(pairs.same.sum()) // 5
    for batch in batches:
        assert batch.pixels.shape == (10, 3, 32, 32)
        torch.testing.assert_close(batch.writers[:5], batch.writers[5:])


def test_a_taught_tower_tells_writers_apart_and_the_language_model_stays(made):
    verifier, data = made
    before = {name: value.clone() for name, value in verifier.named_parameters()}
    pairs = data.pairs["train"]

    def auc():
        with torch.no_grad():
            pictures = [np.repeat(image[..., None], 3, axis=2) for image in data.images]
            pixels = verifier.prompt.processor.image_processor(pictures, return_tensors="pt")
            rows = image_features(verifier.model, pixels["pixel_values"])
            similar = torch.cosine_similarity(rows[pairs.left], rows[pairs.right])
        return binary_auc(similar.double().numpy(), pairs.same)

    random = auc()
    teach_tower(verifier, data, RunOptions(seed=0, accelerator="cpu"), steps=20)
    assert auc() > max(0.9, random)
    moved = {n for n, value in verifier.named_parameters() if not torch.equal(value, before[n])}
    assert moved
    assert all("vision_tower" in name or "multi_modal_projector" in name for name in moved)


def test_steps_below_one_are_refused(made):
    with pytest.raises(ValueError, match="steps must be >= 1, got 0"):
        teach_tower(*made, RunOptions(), steps=0)
