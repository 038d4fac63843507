from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Trainer
from papercommons.metrics.roc import binary_auc
from papercommons.metrics.verification import equal_error_rate
from ssl_hv.data import ImageBatch, PairBatch, WordData
from ssl_hv.presets import Recipe
from ssl_hv.supervised import VerifierModule, WriterModule
from ssl_hv.verifier import SiameseVerifier
from torch.nn import functional as F

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:The number of training batches",
    "ignore:You defined a `validation_step` but have no `val_dataloader`",
)
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}
TINY = {"width": 4, "dim": 16, "image_size": 32}


@pytest.fixture(scope="module")
def pairs(words):
    return WordData(str(words), batches="pairs", resize=32, batch_size=32)


@pytest.fixture(scope="module")
def writers(words):
    return WordData(str(words), batches="writers", resize=32, batch_size=16)


def verifier(head="pair"):
    torch.manual_seed(0)
    return SiameseVerifier("resnet-layout", head, encoder_options=TINY)


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def grey(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 1, 32, 32), generator=generator, dtype=torch.uint8)


def logged(module, monkeypatch):
    found = {}
    monkeypatch.setattr(module, "log", lambda name, value, **_: found.update({name: value}))
    monkeypatch.setattr(module, "log_dict", lambda values, **_: found.update(values))
    return found


def test_the_loss_of_pairs_is_cross_entropy_of_the_logit(monkeypatch):
    module = VerifierModule(verifier(), augmentation="none").eval()
    found = logged(module, monkeypatch)
    batch = PairBatch(grey(6), grey(6, 1), torch.tensor([1, 0, 1, 1, 0, 0]))
    p = module(batch.left, batch.right).sigmoid()
    expected = -torch.where(batch.same == 1, p, 1 - p).log().mean()
    torch.testing.assert_close(module.training_step(batch, 0), expected)
    torch.testing.assert_close(found["train/loss"], expected)


def test_the_loss_of_writers_takes_a_margin_off_the_true_cosine(monkeypatch):
    module = WriterModule(verifier("cosine"), 5, scale=10, margin=0.2, augmentation="none").eval()
    found = logged(module, monkeypatch)
    batch = ImageBatch(grey(6), torch.tensor([0, 4, 2, 2, 1, 0]), torch.arange(6))
    embeddings = F.normalize(module.verifier.embed(batch.images))
    cosines = (embeddings @ F.normalize(module.prototypes).T).detach()
    logits = 10 * (cosines - 0.2 * torch.eye(5)[batch.writers])
    expected = -(logits - logits.logsumexp(1, keepdim=True))[range(6), batch.writers].mean()
    torch.testing.assert_close(module.training_step(batch, 0), expected)
    named = (cosines.argmax(1) == batch.writers).float().mean()
    assert found["train/accuracy"] == named  # without the margin


def test_training_on_pairs_learns(pairs):
    module = VerifierModule(verifier(), recipe=Recipe("adamw", 1e-2, 0), augmentation="none")
    trainer = Trainer(max_epochs=6, **QUIET)
    trainer.validate(module, pairs, verbose=False)  # before, which must not hinder
    trainer.fit(module, pairs)
    assert trainer.callback_metrics["train/loss"] < 0.6  # ln 2 is chance
    assert trainer.callback_metrics["val/auc"] > 0.5


def test_training_on_writers_learns(writers):
    recipe = Recipe("adamw", 1e-2, 0)
    module = WriterModule(
        verifier("cosine"), len(writers.writers), recipe=recipe, augmentation="none", warmup=0
    )
    trainer = Trainer(max_epochs=10, **QUIET)
    trainer.fit(module, writers)
    assert trainer.callback_metrics["train/accuracy"] > 4 / len(writers.writers)
    assert set(trainer.callback_metrics) == {
        *("train/loss", "train/accuracy", "val/auc", "val/eer"),
    }


def test_a_frozen_encoder_stays_to_the_last_statistic(pairs):
    module = VerifierModule(verifier(), freeze=True)
    module.train()
    before = state(module.verifier)
    Trainer(max_epochs=2, **QUIET).fit(module, pairs)
    after = state(module.verifier)
    for name, value in before.items():
        if name.startswith("encoder"):
            assert torch.equal(after[name], value), name
    assert not torch.equal(after["head.projection.weight"], before["head.projection.weight"])


def test_an_encoder_that_is_not_frozen_learns(pairs):
    module = VerifierModule(verifier())
    before = state(module.verifier.encoder)
    Trainer(max_epochs=1, **QUIET).fit(module, pairs)
    after = state(module.verifier.encoder)
    assert all(not torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("kind", ["pairs", "writers"])
def test_the_encoder_may_learn_more_slowly(kind, pairs, writers):
    recipe = Recipe("sgd", lr=0.1, weight_decay=0.01)
    if kind == "pairs":
        module, data = VerifierModule(verifier(), recipe=recipe, encoder_lr=0.01), pairs
    else:
        module = WriterModule(verifier("cosine"), 9, recipe=recipe, encoder_lr=0.01)
        data = writers
    trainer = Trainer(max_steps=1, **QUIET)
    trainer.fit(module, data.train_dataloader())
    (optimizer,) = trainer.optimizers
    head, encoder = optimizer.param_groups
    assert encoder["initial_lr"] == pytest.approx(0.01 * head["initial_lr"]) == 0.001
    assert encoder["weight_decay"] == 0.01
    count = sum(len(group["params"]) for group in optimizer.param_groups)
    unused = 0 if kind == "pairs" else len(list(module.verifier.head.parameters()))
    assert count == len(list(module.parameters())) - unused


def test_validation_is_of_all_pairs_at_once(pairs):
    module = VerifierModule(verifier()).eval()
    for mean in (0.3, 0.7):  # a different network each time: nothing is left of the first
        torch.nn.init.constant_(module.verifier.head.mlp[2].bias, mean)
        torch.nn.init.normal_(module.verifier.head.mlp[2].weight)
        loader = pairs.val_dataloader()
        (found,) = Trainer(**QUIET).validate(module, loader, verbose=False)
        made = pairs.pairs["val"]
        with torch.no_grad():
            scores = module(pairs.images[made.left], pairs.images[made.right]).numpy()
        assert found["val/auc"] == pytest.approx(binary_auc(scores, made.same), abs=1e-6)
        assert found["val/eer"] == pytest.approx(equal_error_rate(scores, made.same)[0], abs=1e-6)


def test_training_images_are_augmented_and_judged_ones_are_not(monkeypatch):
    from ssl_hv import supervised

    seen = []
    monkeypatch.setattr(supervised, "paper", lambda images: seen.append(len(images)) or images)
    module = VerifierModule(verifier(), augmentation="paper")
    logged(module, monkeypatch)
    batch = PairBatch(grey(4), grey(4, 1), torch.tensor([1, 0, 1, 0]))
    module.training_step(batch, 0)
    module.validation_step(batch, 0)
    assert seen == [8]


def test_it_trains_in_bf16(pairs):
    module = VerifierModule(verifier())
    Trainer(max_steps=2, precision="bf16-mixed", **QUIET).fit(module, pairs.train_dataloader())
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_a_run_that_diverges_says_so(pairs):
    module = VerifierModule(verifier(), recipe=Recipe(lr=1e30), warmup=0)
    with pytest.raises(RuntimeError, match=r"training diverged: .* take a smaller --lr"):
        Trainer(max_epochs=3, **QUIET).fit(module, pairs.train_dataloader())


def test_one_writer_cannot_be_told_from_others():
    with pytest.raises(ValueError, match="writers must be >= 2, got 1"):
        WriterModule(verifier("cosine"), 1)
