from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from papercommons.metrics.roc import weighted_auc
from semforge.graph import LabelGraph
from semforge.lightning import SemForgeModule, node_aucs
from semforge.model import SemForgeNet
from torch.optim import AdamW
from torch.utils.data import DataLoader

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:The number of training batches",
    "ignore:.*exists and is not empty",
)
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}
SMALL = {"nodes": ["fake", "age", "eye"], "levels": {"root": ["fake"], "rest": ["age", "eye"]}}
SMALL |= {"subsumption": [["fake", "age"], ["age", "eye"]]}


class Faces(NamedTuple):
    images: torch.Tensor
    labels: torch.Tensor
    names: list[str]
    videos: list[str]


def faces(count, seed):
    """Colours tell the labels: red the root, green the attribute, blue the region."""
    chance = torch.Generator().manual_seed(seed)
    states = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]], dtype=torch.int8)
    labels = states[torch.randint(0, 4, (count,), generator=chance)]
    images = 0.3 * torch.rand(count, 3, 32, 32, generator=chance) + 0.5 * labels[:, :, None, None]
    hidden = labels.clone()
    hidden[:, 1:][torch.rand(count, 2, generator=chance) < 0.3] = 2
    return Faces(images.float(), hidden, [f"{seed}/{i}.png" for i in range(count)], [""] * count)


def loader(count, seed, size=16):
    whole = faces(count, seed)
    batches = [Faces(*(part[i : i + size] for part in whole)) for i in range(0, count, size)]
    return DataLoader(batches, batch_size=None)


def with_meta(train, meta):
    return CombinedLoader({"train": train, "meta": meta}, "max_size_cycle")


def make(**options):
    torch.manual_seed(0)
    options = {"image_size": 32, "lr": 3e-3} | options
    return SemForgeModule("tiny", SMALL, options.pop("head", "graph"), **options)


def fit(module, epochs=1, train=None, tmp_path=None, **options):
    checkpoint = {"enable_checkpointing": False} | options
    trainer = Trainer(max_epochs=epochs, **QUIET, **checkpoint)
    trainer.fit(module, loader(48, 0) if train is None else train, loader(32, 1))
    return trainer


@pytest.mark.parametrize("loss", ["bce", "fidelity", "nll"])
def test_it_learns_what_is_to_see(loss):
    module = make(loss=loss, root_prior="balanced")
    logged = fit(module, epochs=4).callback_metrics
    assert logged["val/auc"] > 0.95
    assert {"train/loss", "val/loss", "val/auc_age", "val/auc_eye"} <= set(logged)
    assert ("train/loss_rest" in logged) == (loss != "nll")


@pytest.mark.parametrize("head", ["flat", "binary"])
def test_other_heads(head):
    logged = fit(make(head=head), epochs=3).callback_metrics
    assert logged["val/auc"] > 0.95
    assert ("val/auc_eye" in logged) == (head == "flat")


@pytest.mark.parametrize("form", ["exact", "finite"])
def test_auto_lambda_moves_the_weights_and_logs_them(form):
    module = make(weighting="autol", lambda_form=form, lambda_lr=0.05, lr_step=1)
    before = [p.clone() for p in module.net.parameters()]
    trainer = fit(module, epochs=2, train=with_meta(loader(48, 0), loader(16, 2)))
    logged = trainer.callback_metrics
    weights = module.auto_lambda.weights
    assert logged["lambda/root"] == weights[0]
    assert logged["lambda/rest"] == weights[1]
    assert not torch.equal(weights, torch.ones(2))
    assert trainer.global_step == 6
    assert trainer.optimizers[0].param_groups[0]["lr"] == 3e-3 / 4
    moved = zip(before, module.net.parameters(), strict=True)
    assert all(not torch.equal(a, b) for a, b in moved)


def test_weights_may_move_seldom():
    module = make(weighting="autol", lambda_every=2)
    seen = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            seen.append(pl_module.auto_lambda.weights.clone())

    fit(module, train=with_meta(loader(48, 0), loader(16, 2)), callbacks=[Watch()])
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


def test_auto_lambda_trains_on_the_weighted_loss():
    """A batch between two steps of the weights: the step is that of equal weights."""
    auto = make(weighting="autol", lambda_every=10)
    plain = make()
    auto.auto_lambda.due = lambda batch_idx: False
    fit(auto, train=with_meta(loader(48, 0), loader(16, 2)))
    fit(plain)
    for a, b in zip(auto.net.parameters(), plain.net.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_auto_lambda_needs_held_out_images():
    with pytest.raises(ValueError, match="mapping with train and meta"):
        fit(make(weighting="autol"))


@pytest.mark.parametrize("weighting", ["equal", "autol"])
def test_a_resumed_run_goes_on_as_if_unbroken(tmp_path, weighting):
    def run(epochs, **options):
        module = make(weighting=weighting, lr_step=1)
        train = loader(32, 0)
        train = with_meta(train, loader(16, 2)) if weighting == "autol" else train
        trainer = Trainer(max_epochs=epochs, **QUIET, enable_checkpointing=False)
        trainer.fit(module, train, loader(16, 1), weights_only=True, **options)
        return module, trainer

    _, trainer = run(1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed, _ = run(2, ckpt_path=tmp_path / "last.ckpt")
    unbroken, _ = run(2)
    for name, value in unbroken.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_checkpoints_load_without_running_code(tmp_path):
    module = make(weighting="autol")
    trainer = fit(module, train=with_meta(loader(16, 0), loader(16, 2)))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    again = SemForgeModule.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    assert again.net.graph == LabelGraph.from_dict(SMALL)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(again.eval()(images), module.eval()(images))


def test_bfloat16(tmp_path):
    module = make(weighting="autol")
    train = with_meta(loader(16, 0), loader(16, 2))
    logged = fit(module, train=train, precision="bf16-mixed").callback_metrics
    assert torch.isfinite(logged["train/loss"])
    assert torch.isfinite(logged["val/loss"])


def test_predictions_say_what_they_saw():
    module = make()
    trainer = Trainer(**QUIET, enable_checkpointing=False)
    (prediction,) = trainer.predict(module, loader(8, 3))
    whole = faces(8, 3)
    assert prediction.names == whole.names
    assert torch.equal(prediction.labels, whole.labels)
    torch.testing.assert_close(prediction.scores, module.eval()(whole.images).detach())


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        ({"lr_step": 2}, [1, 1, 0.5, 0.5, 0.25]),
        ({"schedule": "cosine", "lr_step": 2}, [1, 0.5, 0, 0.5, 1]),
    ],
)
def test_schedules(options, rates):
    parts = make(lr=1.0, **options).configure_optimizers()
    seen = []
    for _ in rates:
        seen.append(parts["optimizer"].param_groups[0]["lr"])
        parts["optimizer"].step()
        parts["lr_scheduler"].step()
    assert seen == pytest.approx(rates)


def test_a_test_split_is_logged_apart():
    trainer = Trainer(**QUIET, enable_checkpointing=False)
    (logged,) = trainer.test(make(), loader(32, 1), verbose=False)
    assert {"test/loss", "test/auc", "test/auc_age"} <= set(logged)


def test_diverged_training_ends_with_advice():
    module = make()
    with torch.no_grad():
        module.net.scorer.classifier.bias[0] = torch.nan
    with pytest.raises(RuntimeError, match="epoch 1 is not finite; take a smaller --lr"):
        fit(module)


def test_aucs_are_over_known_labels():
    chance = torch.Generator().manual_seed(0)
    scores = torch.randn(50, 4, generator=chance)
    labels = torch.randint(0, 3, (50, 4), generator=chance)
    labels[:, 2] = labels[:, 2].clamp(max=0)  # no positive
    aucs = node_aucs(scores, labels)
    for i in (0, 1, 3):
        known = labels[:, i] != 2
        expected = weighted_auc(scores[known, i], labels[known, i] == 1)
        torch.testing.assert_close(aucs[i], expected[0].float())
    assert aucs[2].isnan()


def test_a_network_of_one_s_own():
    module = SemForgeModule(SemForgeNet("tiny", "ffpp"), optimizer="adamw", weight_decay=0.1)
    assert module.levels == ("root", "global", "local")
    assert "net" not in module.hparams
    (optimizer,) = [module.configure_optimizers()["optimizer"]]
    assert isinstance(optimizer, AdamW)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0}, "lr must be > 0"),
        ({"weight_decay": -1}, "weight_decay >= 0"),
        ({"lr_step": 0}, "lr_step must be >= 1"),
        ({"lr_decay": 0}, r"lr_decay in \(0, 1\]"),
        ({"optimizer": "sgd"}, "adam or adamw, got sgd"),
        ({"schedule": "linear"}, "step or cosine, got linear"),
        ({"weighting": "uniform"}, "equal or autol, got uniform"),
        ({"weighting": "autol", "head": "binary"}, "head binary with loss bce has one"),
        ({"weighting": "autol", "loss": "nll"}, "head graph with loss nll has one"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_it_can_be_judged_before_it_trains():
    module, trainer = make(), Trainer(max_epochs=1, enable_checkpointing=False, **QUIET)
    (first,) = trainer.validate(module, loader(32, 1), verbose=False)
    trainer.fit(module, loader(48, 0), loader(32, 1))
    assert trainer.callback_metrics["val/loss"] != first["val/loss"]
