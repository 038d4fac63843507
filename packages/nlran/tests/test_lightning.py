import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from nlran.data import Batch
from nlran.lightning import NLRANModule, as_batch
from nlran.model import nlran_tiny
from nlran.phantoms import write_phantoms
from nlran.preparation import Preparation
from nlran.saved import load_network, save_network
from papercommons.cli import RunOptions
from papercommons.errors import DataError
from torch.nn import functional as F
from torch.utils.data import DataLoader

pytestmark = pytest.mark.filterwarnings(
    "ignore:You defined a `validation_step` but have no `val_dataloader`",
    "ignore:.*does not have many workers",
    "ignore:The number of training batches",
)
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def batches(count=4, size=2):
    generator = torch.Generator().manual_seed(0)
    volumes = torch.rand(count * size, 1, 16, 16, 16, generator=generator)
    target = torch.arange(count * size) % 3
    volumes += 0.5 * target.view(-1, 1, 1, 1, 1)
    return DataLoader(list(zip(volumes, target, strict=True)), batch_size=size)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_few_epochs_lower_the_loss(optimizer):
    torch.manual_seed(0)
    module = NLRANModule(nlran_tiny(), lr=1e-2, optimizer=optimizer, warmup=0)
    x, y = next(iter(batches(1, 9)))
    before = F.cross_entropy(module(x), y)
    trainer = Trainer(max_epochs=8, **QUIET)
    trainer.fit(module, batches(1, 9))
    assert trainer.callback_metrics["train/loss"] < 0.8 * before


def test_the_loss_is_weighted_and_smoothed_cross_entropy():
    module = NLRANModule(nlran_tiny(), class_weights=[1.0, 2.0, 3.0], label_smoothing=0.1).eval()
    x, y = next(iter(batches()))
    expected = F.cross_entropy(module(x), y, torch.tensor([1.0, 2.0, 3.0]), label_smoothing=0.1)
    torch.testing.assert_close(module.training_step((x, y), 0), expected)


def test_validation_numbers_are_of_all_scans_together():
    module = NLRANModule(nlran_tiny()).eval()
    trainer = Trainer(**QUIET)
    (logged,) = trainer.validate(module, batches(), verbose=False)
    with torch.no_grad():
        logits = torch.cat([module(x) for x, _ in batches()])
    target = torch.cat([y for _, y in batches()])
    assert logged["val/loss"] == pytest.approx(F.cross_entropy(logits, target).item(), rel=1e-5)
    accuracy = (logits.argmax(1) == target).float().mean().item()
    assert logged["val/accuracy"] == pytest.approx(accuracy)
    (tested,) = trainer.test(module, batches(), verbose=False)
    assert tested["test/auc"] == logged["val/auc"]


def test_predictions_carry_their_indices():
    module = NLRANModule(nlran_tiny()).eval()
    x, y = next(iter(batches()))
    prediction = module.predict_step(Batch(x, y, torch.tensor([7, 3])), 0)
    assert prediction.indices.tolist() == [7, 3]
    torch.testing.assert_close(prediction.logits, module(x).detach())


def test_slice_counts_reach_a_network_that_wants_them():
    class Counting(torch.nn.Module):
        def forward(self, volumes, slices=None):
            return volumes.mean((1, 2, 3, 4))[:, None] + slices[:, None] * torch.ones(3)

    module = NLRANModule(Counting())
    x, y = next(iter(batches()))
    batch = Batch(x, y, torch.arange(2), torch.tensor([5, 16]))
    logits = module.predict_step(batch, 0).logits
    assert (logits[1] - logits[0])[0] == pytest.approx(11, abs=1)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_trains_in_bf16(precision):
    module = NLRANModule(nlran_tiny())
    trainer = Trainer(max_steps=2, precision=precision, **QUIET)
    trainer.fit(module, batches())
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_a_checkpoint_holds_plain_hyperparameters(tmp_path):
    module = NLRANModule("nlran", variant="tiny", network_options={"dropout": 0.1})
    trainer = Trainer(max_steps=1, **QUIET)
    trainer.fit(module, batches())
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    again = NLRANModule.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True).eval()
    x, _ = next(iter(batches()))
    torch.testing.assert_close(again(x), module.eval()(x))
    assert again.network.config["dropout"] == 0.1


def test_plain_batches_are_numbered():
    x, y = next(iter(batches()))
    batch = as_batch([x, y])
    assert batch.indices.tolist() == [0, 1]
    assert batch.slices is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0}, "lr"),
        ({"warmup": 1}, "warmup"),
        ({"optimizer": "x"}, "optimizer"),
        ({"class_weights": [1.0]}, "class_weights"),
        ({"label_smoothing": math.nan}, "label_smoothing"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        NLRANModule(nlran_tiny(), **options)


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    network = nlran_tiny(2)
    folder = save_network(
        network,
        tmp_path / "export",
        model="nlran",
        options={"variant": "tiny"},
        classes=["b", "a"],
        preparation=Preparation(size=(16, 16, 16)),
        data_hash="x",
        device="cpu",
        made_by="a test",
    )
    return network.eval(), folder


def test_a_saved_network_comes_back(saved):
    network, folder = saved
    again, config = load_network(folder.parent)
    x = torch.rand(1, 1, 16, 16, 16)
    assert torch.equal(again(x), network(x))
    assert config["classes"] == ["b", "a"]
    assert config["preparation"] == Preparation(size=(16, 16, 16))
    assert "not a medical device" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"nlran"', '"nlrann"', "unknown network"),
        ('"model": "nlran"', '"model": 5', "config.json"),
        ('"window"', '"windows"', "no entry window"),
        ('"classes"', '"names"', "no entry classes"),
        ('"tiny"', '"base"', "does not fit NLRAN"),
        ('"tiny"', '"tiny", "last_units": 1000000', "far larger than its file of weights"),
        ('"max_slices"', '"slices"', "preparation: no entry max_slices"),
        ("16,", "1000000,", "preparation: size must be whole and at most 1024"),
        ('"a"', "3", "expected a list of names"),
    ],
)
def test_a_saved_network_of_another_kind_is_refused(saved, before, after, message):
    config = saved[1] / "config.json"
    config.write_text(config.read_text().replace(before, after, 1))
    with pytest.raises(DataError, match=message):
        load_network(saved[1])


def test_no_saved_network(tmp_path):
    with pytest.raises(DataError, match="no saved network"):
        load_network(tmp_path)


def test_a_run_that_diverges_says_so():
    module = NLRANModule(nlran_tiny(), lr=1e20)
    with pytest.raises(RuntimeError, match=r"training diverged: .* take a smaller --lr"):
        Trainer(max_epochs=3, **QUIET).fit(module, batches())


@pytest.mark.ddp
def test_two_processes_train_as_one(tmp_path):
    write_phantoms(tmp_path, 18, size=24)
    script = Path(__file__).parent / "ddp_fit.py"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    subprocess.run(
        [*launch, str(script), str(tmp_path / "ct"), str(tmp_path / "two.pt")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        timeout=300,
    )
    sys.path.insert(0, str(script.parent))
    from ddp_fit import train

    one = train(
        str(tmp_path / "ct"), batch_size=6, run=RunOptions(accelerator="cpu", precision="64-true")
    )
    two = torch.load(tmp_path / "two.pt", weights_only=True)
    for name in ("weight", "stem", "logits"):
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5)
    assert torch.equal(two["index"], one["index"])
    assert two["logged"] == pytest.approx(one["logged"], rel=1e-4, abs=1e-6)


def test_it_can_be_judged_before_it_trains():
    module, trainer = NLRANModule(nlran_tiny()), Trainer(max_epochs=1, **QUIET)
    (first,) = trainer.validate(module, batches(), verbose=False)
    trainer.fit(module, batches(), batches())
    assert trainer.callback_metrics["val/loss"] != first["val/loss"]
