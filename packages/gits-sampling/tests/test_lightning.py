import json
import math

import numpy as np
import pytest
import torch
from gits_sampling.adapters import EDMDenoiser
from gits_sampling.callbacks import GITSScheduleCallback, SampleGridCallback
from gits_sampling.data import ImageData
from gits_sampling.edm import edm_loss
from gits_sampling.lightning import GITSModule
from gits_sampling.saved import load_network, save_network
from gits_sampling.schedule import Schedule
from gits_sampling.solvers import sample
from lightning.pytorch import Trainer
from papercommons.cli import RunOptions
from papercommons.errors import DataError
from papercommons.training import fit
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
SMALL = {"width": 8, "blocks": 1}


def small(**options):
    torch.manual_seed(0)
    return GITSModule("unet", (1, 8, 8), network_options=SMALL, **options)


def batches(count=3, size=4):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count * size, 1, 8, 8, generator=generator) * 2 - 1
    labels = torch.arange(count * size) % 3
    return DataLoader(list(zip(images, labels, strict=True)), batch_size=size)


@pytest.fixture(scope="module")
def trained():
    """A module with classes after a few steps, so that no weight is zero and classes count."""
    module = small(num_classes=3, lr=1e-2, warmup=0)
    Trainer(max_epochs=5, **QUIET).fit(module, batches())
    return module.eval()


class Frame(torch.nn.Module):
    """One weight; as a network it gives weight * x."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, x, noise):
        return self.weight * x


def test_the_loss_of_a_step_is_edm_s():
    module = GITSModule(Frame(), (1, 8, 8), sigma_data=0.7, log_mean=-0.5, log_std=0.8)
    images, labels = next(iter(batches()))
    torch.manual_seed(3)
    loss = module.training_step((images, labels), 0)
    torch.manual_seed(3)
    sigma = (-0.5 + 0.8 * torch.randn(4)).exp()
    noise = torch.randn_like(images)
    denoiser = EDMDenoiser(module.network, sigma_data=0.7)
    torch.testing.assert_close(loss, edm_loss(denoiser, images, sigma, noise, sigma_data=0.7))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_average_follows_by_hand(accumulate):
    weights = []

    class Watch(GITSModule):
        def optimizer_step(self, *args, **kwargs):
            super().optimizer_step(*args, **kwargs)
            weights.append(self.network.weight.item())

    module = Watch(Frame(), (1, 8, 8), lr=0.1, half_life=20, ramp=0.5, warmup=0)
    Trainer(max_epochs=2, accumulate_grad_batches=accumulate, **QUIET).fit(module, batches(4))
    images, seen, average = 4 * accumulate, 0, 0.5
    assert len(weights) == 8 // accumulate
    for weight in weights:
        half_life = min(20, 0.5 * seen)
        decay = 0.5 ** (images / half_life) if half_life else 0.0
        average = decay * average + (1 - decay) * weight
        seen += images
    assert module.images_seen == seen
    assert module.average.weight.item() == pytest.approx(average, rel=1e-5)
    assert module.average.weight.item() != pytest.approx(module.network.weight.item(), rel=1e-3)


def test_the_learning_rate_rises_over_the_first_steps():
    rates = []

    class Watch(GITSModule):
        def optimizer_step(self, *args, **kwargs):
            rates.append(self.optimizers().param_groups[0]["lr"])
            super().optimizer_step(*args, **kwargs)

    module = Watch(Frame(), (1, 8, 8), lr=0.01, warmup=0.5)
    Trainer(max_epochs=2, **QUIET).fit(module, batches(4))
    assert rates == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01, 0.01, 0.01])


def test_training_lowers_the_loss_of_digits():
    data = ImageData(batch_size=64, val_fraction=0.1)
    module = small(lr=1e-2, sigma_data=data.sigma_data())
    trainer = Trainer(max_epochs=2, **QUIET)
    (before,) = trainer.validate(module, data, verbose=False)
    trainer.fit(module, data)
    (after,) = trainer.validate(module, data, verbose=False)
    assert after["val/loss"] < 0.8 * before["val/loss"]
    assert trainer.validate(module, data, verbose=False)[0] == after  # the same noise


def test_some_labels_are_dropped_in_training_only():
    seen = []

    class Recording(Frame):
        def forward(self, x, noise, labels):
            seen.append(labels)
            return super().forward(x, noise)

    module = GITSModule(Recording(), (1, 2, 2), num_classes=3, label_dropout=0.25)
    torch.manual_seed(0)
    labels = torch.arange(3000) % 3
    module.training_step((torch.zeros(3000, 1, 2, 2), labels), 0)
    dropped = seen[0] == -1
    assert dropped.float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(seen[0][~dropped], labels[~dropped])
    module.label_dropout = 0.0
    module.training_step((torch.zeros(3000, 1, 2, 2), labels), 0)
    assert torch.equal(seen[1], labels)


def test_classes_and_guidance(trained):
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor(0.7, dtype=torch.float64)
    turn = trained.denoiser()(x, sigma)
    each = trained.denoiser(labels=torch.tensor([0, 1, 2, 0]))(x, sigma)
    torch.testing.assert_close(turn, each)
    none = trained.denoiser(labels=-1)(x, sigma)
    assert not torch.allclose(none, turn, atol=1e-4)
    guided = trained.denoiser(labels=torch.tensor([0, 1, 2, 0]), guidance=3.0)
    torch.testing.assert_close(guided(x, sigma), none + 3 * (turn - none), rtol=1e-4, atol=1e-5)
    assert guided.network_calls == 2


def test_samples_follow_from_seed_and_label_alone(trained):
    schedule = trained.named_schedule("time_uniform 2", nfe=3, solver="euler")
    found = trained.sample(range(5), schedule=schedule)
    assert found.shape == (5, 1, 8, 8)
    torch.testing.assert_close(
        trained.sample([4], schedule=schedule)[0], found[4], rtol=1e-3, atol=1e-4
    )
    trained.schedule = schedule
    batch = trained.predict_step(torch.tensor([4, 2]), 0)
    assert batch.seeds.tolist() == [4, 2]
    torch.testing.assert_close(batch.images, found[[4, 2]], rtol=1e-3, atol=1e-4)
    other = trained.predict_step((torch.tensor([4]), torch.tensor([0])), 0).images
    assert not torch.allclose(other[0], found[4], atol=1e-3)


def test_sample_uses_the_schedule_s_solver():
    module = GITSModule(Frame(), (2, 3), sigma_max=10.0)
    schedule = Schedule(sigmas=[10, 2, 0.5, 0.002], nfe=3, solver="dpmpp", order=2, afs=True)
    noise = torch.randn(2, 3, generator=torch.Generator().manual_seed(7))
    expected = sample(
        module.denoiser(), 10 * noise[None], schedule.sigmas, solver="dpmpp", order=2, afs=True
    )
    torch.testing.assert_close(module.sample([7], schedule=schedule), expected)


def test_a_schedule_of_its_own(trained):
    options = {"samples": 8, "held_out": 8, "points": 13}
    schedule = trained.fit_schedule(4, solver="euler", **options)
    assert (schedule.nfe, schedule.solver, schedule.warmup) == (4, "euler", 8)
    assert (schedule.sigmas[0].item(), schedule.sigmas[-1].item()) == pytest.approx((80, 0.002))
    warm = trained.warm_up(**options)
    assert trained.fit_schedule(4, solver="euler", warm=warm) == schedule


def test_the_checkpoint_holds_everything(tmp_path, trained):
    trainer = Trainer(max_epochs=5, **QUIET)
    trainer.strategy.connect(trained)
    trained.schedule = trained.named_schedule("log_snr", nfe=5)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    again = load_network(tmp_path / "x.ckpt")
    assert again.images_seen == trained.images_seen == 60
    assert again.schedule == trained.schedule
    torch.testing.assert_close(again.sample([1, 2]), trained.sample([1, 2]))
    plain = again.sample([1], ema=False)
    torch.testing.assert_close(plain, trained.sample([1], ema=False))
    assert not torch.equal(plain, again.sample([1]))


def test_a_saved_network_comes_back(tmp_path, trained):
    trained.schedule = trained.named_schedule("log_snr", nfe=5)
    folder = save_network(trained, tmp_path / "export", classes=["a", "b", "c"])
    again = load_network(folder)
    torch.testing.assert_close(again.sample([1, 2]), trained.sample([1, 2]))
    assert (again.shape, again.num_classes, again.training) == ((1, 8, 8), 3, False)
    assert again.schedule == trained.schedule
    assert json.loads((folder / "config.json").read_text())["classes"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"unet"', '"unett"', "network must be"),
        ('"unet"', "3", "must be a name"),
        ('"gits-sampling"', '"x"', "expected gits-sampling, got 'x'"),
        ('"sigma_data"', '"sigma_dat"', "no entry sigma_data"),
        ('"width": 8', '"width": 16', "does not fit UNet"),
        ('"width": 8', '"width": 80000', "far larger than its file of weights"),
        ('"blocks": 1', '"blocks": 1000000000', "far larger"),
        ('"width": 8', '"width": "8"', "config.json"),
        ('"sigma_data": 0.5', '"sigma_data": "x"', "config.json"),
    ],
)
def test_a_broken_folder_is_refused(tmp_path, trained, before, after, message):
    config = save_network(trained, tmp_path) / "config.json"
    text = config.read_text()
    assert before in text
    config.write_text(text.replace(before, after))
    with pytest.raises(DataError, match=message):
        load_network(tmp_path)


def test_other_files_are_no_networks(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "x.ckpt")
    with pytest.raises(DataError, match="no checkpoint of gits-sampling-train"):
        load_network(tmp_path / "x.ckpt")
    state = {"state_dict": {}, "gits_sampling": {}, "hyper_parameters": []}
    torch.save(state, tmp_path / "x.ckpt")
    with pytest.raises(DataError, match="given as an object"):
        load_network(tmp_path / "x.ckpt")
    for options in ({"width": 80_000}, {"width": "8"}, [8]):
        hyper = {"network": "unet", "network_options": options}
        torch.save(state | {"hyper_parameters": hyper}, tmp_path / "x.ckpt")
        with pytest.raises(DataError, match=r"x\.ckpt: "):
            load_network(tmp_path / "x.ckpt")
    with pytest.raises(DataError, match=r"config\.json is missing"):
        load_network(tmp_path)
    with pytest.raises(ValueError, match="by name"):
        save_network(GITSModule(Frame(), (1, 8, 8)), tmp_path)


def test_a_resumed_run_goes_on_exactly(tmp_path):
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 255, (40, 8, 8)).astype("uint8"), np.arange(40) % 3
    np.savez(tmp_path / "images.npz", images=pixels, labels=labels)

    def run(folder, epochs, resume=None):
        module = small(num_classes=3)
        data = ImageData(str(tmp_path / "images.npz"), batch_size=10, flip=True)
        options = RunOptions(accelerator="cpu", resume=resume)
        fit(module, data, epochs=epochs, run=options, out=folder)
        return module

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = run(tmp_path / "a", 2)
    saved = [tmp_path / "b" / "last.ckpt", tmp_path / "kept.ckpt"]
    run(tmp_path / "b", 1)
    saved[0].rename(saved[1])
    parts = run(tmp_path / "b", 2, resume=str(saved[1]))
    assert parts.images_seen == whole.images_seen
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name


def test_callbacks_write_and_leave_the_training_alone(tmp_path):
    options = {"samples": 4, "held_out": 4, "points": 9}
    options |= {"grids": ("polynomial",), "metrics": ("l2",)}
    schedules = GITSScheduleCallback(tmp_path, nfes=(3, 4), solver="euler", every=2, **options)
    grid = SampleGridCallback(tmp_path / "grids", seeds=range(6), columns=3, every=2)
    plain, watched = small(num_classes=3), small(num_classes=3)
    for module, callbacks in ((plain, []), (watched, [schedules, grid])):
        torch.manual_seed(0)
        module.schedule = module.named_schedule("log_snr", nfe=3)
        Trainer(max_epochs=3, callbacks=callbacks, **QUIET).fit(module, batches())
    for one, other in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(one, other)
    found = [Schedule.load(tmp_path / f"euler-nfe{nfe}.json") for nfe in (3, 4)]
    assert [schedule.steps for schedule in found] == [3, 4]
    assert found[1].warmup == 4
    grids = sorted(path.name for path in (tmp_path / "grids").iterdir())
    assert grids == ["samples-epoch2.png", "samples-epoch3.png"]
    from papercommons.data.images import read_image

    assert read_image(tmp_path / "grids" / grids[0]).size == (3 * 9 + 1, 2 * 9 + 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0}, "lr"),
        ({"lr": math.nan}, "lr"),
        ({"warmup": 1}, "warmup"),
        ({"sigma_data": 0}, "sigma_data"),
        ({"sigma_min": 90}, "sigma_min < sigma_max"),
        ({"half_life": 0}, "half_life"),
        ({"label_dropout": 1.0}, "label_dropout"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GITSModule(Frame(), (1, 8, 8), **options)


def test_bad_requests_are_refused(trained):
    plain = small()
    with pytest.raises(ValueError, match="guidance must be 1"):
        plain.denoiser(guidance=2.0)
    with pytest.raises(ValueError, match="no classes"):
        plain.denoiser(labels=1)
    with pytest.raises(ValueError, match="-1 to 2"):
        trained.denoiser(labels=torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="must be one of polynomial 7"):
        plain.named_schedule("karras", nfe=4)
    with pytest.raises(ValueError, match="two calls a step"):
        GITSScheduleCallback("x", nfes=[5], solver="heun")
    with pytest.raises(ValueError, match="every"):
        SampleGridCallback("x", every=0)
    with pytest.raises(ValueError, match="columns"):
        SampleGridCallback("x", columns=0)


def test_a_run_that_diverges_says_so():
    module = GITSModule(Frame(), (1, 8, 8), lr=1e30, warmup=0)
    with pytest.raises(RuntimeError, match=r"training diverged: .* take a smaller --lr"):
        Trainer(max_epochs=3, **QUIET).fit(module, batches())


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_other_precisions(precision):
    module = small(num_classes=3)
    Trainer(max_steps=2, precision=precision, **QUIET).fit(module, batches(), batches())
    assert all(torch.isfinite(p).all() for p in module.parameters())
    found = module.sample([1], schedule=module.named_schedule("log_snr", nfe=3))
    assert found.dtype == (torch.float64 if precision == "64-true" else torch.float32)
    assert torch.isfinite(found).all()
