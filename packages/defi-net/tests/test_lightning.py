from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from defi_net.data import MaskBatch
from defi_net.edges import edge_band, edge_label
from defi_net.lightning import CLAMP, DeFINetModule
from defi_net.losses import boundary_loss, structure_loss
from defi_net.model import DeFINet
from lightning.pytorch import Trainer
from papercommons.metrics.localization import pixel_metrics
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parent))
from ddp_fit import QUIET, batches

pytestmark = pytest.mark.filterwarnings(
    "ignore:You defined a `validation_step` but have no `val_dataloader`",
    "ignore:.*does not have many workers",
    "ignore:The number of training batches",
    "ignore:The `srun` command is available",
)


def tiny():
    torch.manual_seed(0)
    return DeFINet("hrnet_tiny", 4)


def noisy(count=8, size=32, seed=0):
    """Images whose forged half is smooth: a thing to be learnt at once."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, size, size, generator=generator)
    masks = torch.zeros(count, 1, size, size)
    for i in range(count):
        masks[i, :, :, : size // 2] = i % 2
        masks[i, :, :, size // 2 :] = 1 - i % 2
    batch = MaskBatch(images * (1 - masks) + 0.5 * masks, masks, ["x"] * count, ["x"] * count)
    return DataLoader([batch], batch_size=None)


def test_it_learns():
    module = DeFINetModule(tiny(), lr=1e-2, schedule="cosine")
    trainer = Trainer(max_epochs=25, **CLAMP, **QUIET)
    trainer.fit(module, noisy())
    (logged,) = trainer.validate(module, noisy(seed=1), verbose=False)
    assert logged["val/auc"] > 0.95
    assert logged["val/f1"] > 0.85


@pytest.mark.parametrize("kind", ["inner", "band"])
@pytest.mark.parametrize("bce", ["official", "weighted"])
def test_the_loss_is_the_papers_sum(kind, bce):
    module = DeFINetModule(tiny(), mask_weight=5, edge_weight=2, bce=bce, edges=kind)
    batch = next(iter(noisy()))
    module.eval()
    edge, mask = module(batch.images)
    truth = {"inner": edge_label, "band": edge_band}[kind](batch.masks)
    expected = 5 * structure_loss(mask, batch.masks, bce=bce) + 2 * boundary_loss(
        edge, truth, bce=bce
    )
    module.log_dict = lambda *args, **options: None
    torch.testing.assert_close(module.training_step(batch, 0), expected)


def test_images_are_normalised_inside():
    model = tiny().eval()
    images = next(iter(noisy())).images
    assert torch.equal(DeFINetModule(model)(images)[1], model(model.normalize(images))[1])


class Fixed(nn.Module):
    """Gives the red channel as probability."""

    def normalize(self, images):
        return images

    def forward(self, images):
        logits = images[:, :1].logit()
        return logits, logits


def test_validation_numbers_are_means_over_images():
    module = DeFINetModule(Fixed())
    (logged,) = Trainer(**QUIET).validate(module, batches(), verbose=False)
    rows, false_alarms = [], []
    for images, masks, *_ in batches():
        probability, mask = images[0, 0], masks[0, 0]
        if mask.any():
            rows.append(pixel_metrics(probability, mask, protocol="imdl"))
        else:
            false_alarms.append((probability > 0.5).float().mean().item())
    assert len(false_alarms) == 2
    assert logged["val/fpr"] == pytest.approx(sum(false_alarms) / 2)
    for name in ("f1", "iou", "auc"):
        values = [row[name] for row in rows if not math.isnan(row[name])]
        assert len(values) == (3 if name == "auc" else 4)
        tolerance = 2e-3 if name == "auc" else 1e-6  # the AUC is of a histogram
        assert logged[f"val/{name}"] == pytest.approx(sum(values) / len(values), abs=tolerance)
    (tested,) = Trainer(**QUIET).test(module, batches(), verbose=False)
    assert tested == {name.replace("val", "test"): value for name, value in logged.items()}


def test_without_forged_images_the_auc_is_undefined():
    authentic = [b for b in batches() if b.methods == ["authentic"]]
    loader = DataLoader(authentic, batch_size=None)
    (logged,) = Trainer(**QUIET).validate(DeFINetModule(Fixed()), loader, verbose=False)
    assert math.isnan(logged["val/auc"])
    assert 0 <= logged["val/fpr"] <= 1
    assert math.isfinite(logged["val/loss"])


@pytest.mark.parametrize("edge_weight", [0.0, 1.0])
def test_trains_in_bf16(edge_weight):
    module = DeFINetModule(tiny(), edge_weight=edge_weight)
    trainer = Trainer(max_steps=1, precision="bf16-mixed", **CLAMP, **QUIET)
    trainer.fit(module, noisy(), noisy(seed=1))
    assert all(torch.isfinite(p).all() for p in module.parameters())
    assert math.isfinite(trainer.callback_metrics["train/loss"])


def test_the_plateau_watches_the_auc():
    module = DeFINetModule(tiny(), patience=0, lr=1e-9)  # no epoch is better than the first
    trainer = Trainer(max_epochs=3, **QUIET)
    trainer.fit(module, noisy(), noisy(seed=1))
    plateau = trainer.lr_scheduler_configs[0]
    assert isinstance(plateau.scheduler, ReduceLROnPlateau)
    assert (plateau.monitor, plateau.scheduler.mode) == ("val/auc", "max")
    module.monitor = "train/loss"
    assert module.configure_optimizers()["lr_scheduler"]["scheduler"].mode == "min"
    Trainer(max_epochs=1, **QUIET).fit(module, noisy())


def test_adam_has_the_papers_rate_and_no_decay():
    module = DeFINetModule(tiny(), schedule="constant")
    optimizer = module.configure_optimizers()
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.defaults["lr"] == 2e-4
    assert optimizer.defaults["weight_decay"] == 0
    assert CLAMP == {"gradient_clip_val": 0.5, "gradient_clip_algorithm": "value"}


def test_the_cosine_falls_to_nothing():
    module = DeFINetModule(tiny(), schedule="cosine")
    trainer = Trainer(max_steps=2, **QUIET)
    trainer.fit(module, noisy())
    assert isinstance(trainer.lr_scheduler_configs[0].scheduler, LambdaLR)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0)


def test_a_checkpoint_holds_plain_hyperparameters(tmp_path):
    module = DeFINetModule(tiny(), bce="weighted", lr=1e-3, schedule="constant")
    trainer = Trainer(max_steps=1, **QUIET)
    trainer.fit(module, noisy())
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    again = DeFINetModule.load_from_checkpoint(
        tmp_path / "x.ckpt", model=DeFINet("hrnet_tiny", 4), weights_only=True
    ).eval()
    assert (again.bce, again.lr) == ("weighted", 1e-3)
    images = next(iter(noisy())).images
    module.eval()
    assert torch.equal(again(images)[1], module(images)[1])


def test_a_run_that_diverges_says_so():
    module = DeFINetModule(tiny(), lr=1e30, schedule="constant")
    with pytest.raises(RuntimeError, match=r"training diverged: .* take a smaller --lr"):
        Trainer(max_epochs=4, **QUIET).fit(module, noisy())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0}, "lr must be > 0"),
        ({"warmup": 1.0}, r"warmup in \[0, 1\)"),
        ({"mask_weight": 0, "edge_weight": 0}, "weights must be >= 0, one above"),
        ({"bce": "plain"}, "bce must be one of official, weighted, got plain"),
        ({"edges": "outer"}, "edges must be one of inner, band, got outer"),
        ({"schedule": "step"}, "schedule must be one of plateau, cosine, constant, got step"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        DeFINetModule(Fixed(), **options)


def test_it_can_be_judged_before_it_trains():
    module, trainer = DeFINetModule(tiny()), Trainer(max_epochs=1, **QUIET)
    (first,) = trainer.validate(module, noisy(seed=1), verbose=False)
    trainer.fit(module, noisy(), noisy(seed=1))
    assert trainer.callback_metrics["val/loss"] != first["val/loss"]
