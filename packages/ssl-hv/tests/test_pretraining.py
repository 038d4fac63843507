from __future__ import annotations

import csv
import json

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from papercommons.cli import RunOptions
from papercommons.training import fit
from ssl_hv.data import WordData
from ssl_hv.encoders import create_encoder
from ssl_hv.lightning import PRETRAINING, VICRegModule
from ssl_hv.presets import COMPARING, METHODS, PAPER, Recipe, recipe_of
from ssl_hv.pretraining import choose_encoder, picture_sections
from ssl_hv.saved import load_encoder
from ssl_hv.verifier import as_ink
from torch.optim import SGD, AdamW

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:The number of training batches"
)
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
LAYOUT = ("resnet-layout", {"width": 4, "dim": 16, "image_size": 32})
VIT = ("vit-tiny", {"image_size": 32})
NARROW = {"hidden_dim": 16, "projection_dim": 8}
TINY = {
    "simclr": (*LAYOUT, NARROW),
    "moco": (*LAYOUT, {**NARROW, "queue_size": 24, "splits": 2}),
    "byol": (*LAYOUT, NARROW),
    "simsiam": (*LAYOUT, {**NARROW, "prediction_hidden_dim": 4}),
    "fastsiam": (*LAYOUT, {**NARROW, "prediction_hidden_dim": 4}),
    "dino": ("resnet18", {"stem": "small"}, {"hidden_dim": 16, "prototypes": 32}),
    "barlow-twins": (*LAYOUT, {"projection_dim": 16}),
    "vicreg": (*LAYOUT, {"projection_dim": 16}),
    "vae": (*LAYOUT, {"image_size": 32, "width": 4, "latent": 8}),
    "mae": (*VIT, {"decoder_width": 32, "decoder_heads": 2}),
    "aim": (*VIT, {}),
    "bigan": ("bigan", {"image_size": 32, "hidden": (32,), "latent": 8}, {}),
    "flow": (
        "flow",
        {"image_size": 32, "checkerboard": 2, "channel": 2, "width": 4, "depth": 1},
        {},
    ),
}
every = pytest.mark.parametrize("method", METHODS)


class Pooled(torch.nn.Sequential):
    """For DINO, whose local views are smaller: a network for any size."""

    dim = 16

    def __init__(self):
        super().__init__(
            torch.nn.Conv2d(1, 16, 5, 4),
            torch.nn.BatchNorm2d(16),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
        )


@pytest.fixture(scope="module")
def data(words):
    return WordData(str(words), resize=32, batch_size=12)


def make(method, **options):
    torch.manual_seed(0)
    name, encoder_options, objective_options = TINY[method]
    encoder = Pooled() if method == "dino" else create_encoder(name, **encoder_options)
    options = {"recipe": recipe_of(method, "quick"), "warmup": 0} | options
    return PRETRAINING[method](encoder, objective_options=objective_options, **options)


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


@every
def test_two_steps_change_the_encoder_and_are_logged(method, data):
    module = make(method)
    before = weights(module.encoder)
    trainer = Trainer(max_epochs=1, limit_train_batches=2, **QUIET)
    trainer.fit(module, data.train_dataloader())
    logged = trainer.callback_metrics
    assert trainer.global_step == 2
    assert all(torch.isfinite(value) for value in logged.values())
    assert "train/loss" in logged
    after = weights(module.encoder)
    trained = [name for name, p in module.encoder.named_parameters() if p.requires_grad]
    moved = [name for name in trained if not torch.equal(before[name], after[name])]
    assert len(moved) > 0.8 * len(trained)


@every
def test_reports_show_what_a_method_sees_and_makes(method, data):
    (section,) = picture_sections(make(method), data)
    assert section.figure.startswith(b"\x89PNG")
    made = {"vae": {"reconstruction", "sample"}, "mae": {"reconstruction"}, "flow": {"sample"}}
    assert made.get(method, set()) <= set(section.caption.split(", "))
    assert ("view 2" in section.caption) == (module_views(method) > 1)


def module_views(method):
    return PRETRAINING[method].objective_class.views


def test_each_view_is_another_and_generative_methods_see_the_word():
    ink = torch.rand(4, 1, 32, 32)
    for method in METHODS:
        module, views = make(method), make(method).views(ink)
        if module.augmentation == "none":
            (only,) = views
            assert only is ink
        else:
            assert len(views) == module.objective.views + getattr(
                module.objective, "local_views", 0
            )
            assert not torch.equal(views[0], views[1])


def test_every_other_view_is_of_the_partner():
    word, partner = torch.zeros(2, 1, 32, 32), torch.ones(2, 1, 32, 32)
    for method in COMPARING:
        views = make(method, augmentation="none").views(word, partner)
        assert [float(view.mean()) for view in views] == [k % 2 for k in range(len(views))], method


def test_dino_sees_two_whole_words_and_six_parts():
    ink = torch.rand(4, 1, 64, 64)
    for augmentation in ("handwriting", "paper"):
        sizes = [v.shape[-1] for v in make("dino", augmentation=augmentation).views(ink)]
        assert sizes == [64] * 2 + [32] * 6


@pytest.mark.parametrize("augmentation", ["paper", "none"])
def test_augmentation_is_chosen_by_name(augmentation, monkeypatch):
    from ssl_hv import augmentation

    seen = []
    monkeypatch.setattr(augmentation, "paper", lambda images, **how: seen.append(how) or images)
    make("vicreg", augmentation=augmentation).views(torch.rand(2, 1, 32, 32))
    assert seen == ([{"solarize": 0.1}] * 2 if augmentation == "paper" else [])


def test_momentum_networks_follow_to_the_end(data):
    """The target moves as the schedule says; at the end of the run it would stand still."""
    module, seen = make("byol"), []
    update = module.objective.update
    module.objective.update = lambda progress: (seen.append(progress), update(progress))
    Trainer(max_epochs=2, limit_train_batches=2, **QUIET).fit(module, data.train_dataloader())
    assert seen == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_both_players_of_bigan_move(data):
    module = make("bigan")
    before = weights(module.objective)
    Trainer(max_steps=1, **QUIET).fit(module, data.train_dataloader())
    after = weights(module.objective)
    for part in ("generator", "encoder", "discriminator"):
        names = [name for name in before if name.startswith(part) and name.endswith("weight")]
        assert any(not torch.equal(before[name], after[name]) for name in names), part


def test_recipes_are_those_of_the_table():
    assert (PAPER["vicreg"].optimizer, PAPER["vicreg"].lr, PAPER["vicreg"].momentum) == (
        "sgd",
        1e-2,
        0.0,
    )
    assert [PAPER[m].lr for m in ("simclr", "vae", "mae", "aim", "dino")] == [
        6e-2,
        1e-4,
        9e-4,
        1.5e-4,
        1e-3,
    ]
    assert PAPER["bigan"].momentum == 0.5
    assert {recipe_of(method, "quick").optimizer for method in METHODS} == {"adamw"}
    assert recipe_of("vicreg", "paper") == PAPER["vicreg"]


class Rates(Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, *_):
        (optimizer,) = trainer.optimizers
        self.kind = type(optimizer)
        self.momentum = optimizer.param_groups[0].get("momentum")
        self.seen.append(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize(("recipe", "kind"), [(Recipe(lr=0.1), SGD), (Recipe("adamw", 0.1), AdamW)])
def test_the_learning_rate_rises_then_falls_to_nothing(data, recipe, kind):
    rates = Rates()
    module = make("vicreg", recipe=recipe, warmup=0.4)
    Trainer(max_epochs=5, limit_train_batches=2, callbacks=[rates], **QUIET).fit(
        module, data.train_dataloader()
    )
    assert rates.kind is kind
    assert rates.seen[:4] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert rates.seen[4] == pytest.approx(0.1)
    assert rates.seen[5:] == sorted(rates.seen[5:], reverse=True)
    assert rates.seen[-1] < 0.01


def test_a_run_that_diverges_says_so(data):
    module = make("vicreg", recipe=Recipe(lr=1e30))
    with pytest.raises(RuntimeError, match=r"training diverged: .* take a smaller --lr"):
        Trainer(max_epochs=2, **QUIET).fit(module, data.train_dataloader())


def test_warmup_must_leave_time_to_fall():
    with pytest.raises(ValueError, match=r"warmup must be in \[0, 1\), got 1"):
        make("vicreg", warmup=1)


def test_embeddings_of_a_module_are_those_of_its_encoder():
    module = make("vicreg").eval()
    grey = torch.randint(0, 256, (3, 1, 32, 32), dtype=torch.uint8)
    assert torch.equal(module(grey), module.encoder(as_ink(grey)))
    assert VICRegModule(encoder_options={"in_channels": 3}).encoder.dim == 512


@pytest.mark.parametrize("method", ["moco", "dino"])
def test_a_resumed_pre_training_ends_where_the_unbroken_one_does(method, data, tmp_path):
    """Queue, centre, momentum network and schedule go on, too."""
    run = RunOptions(accelerator="cpu")

    class Stop(Callback):
        def on_train_epoch_end(self, trainer, module):
            if trainer.current_epoch == 1:
                raise RuntimeError("stopped")

    whole = make(method)
    fit(whole, data, epochs=3, run=run, out=tmp_path / "whole")
    with pytest.raises(RuntimeError, match="stopped"):
        fit(make(method), data, epochs=3, run=run, out=tmp_path / "broken", callbacks=[Stop()])
    resumed = make(method)
    again = RunOptions(accelerator="cpu", resume="last")
    fit(resumed, data, epochs=3, run=again, out=tmp_path / "broken")
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name


@pytest.mark.parametrize(
    ("method", "encoder", "preset", "expected"),
    [
        ("vicreg", None, "quick", "resnet-layout"),
        ("vicreg", None, "paper", "resnet18"),
        ("vae", "vit-tiny", "quick", "vit-tiny"),
        ("mae", None, "quick", "vit-tiny"),
        ("mae", None, "paper", "vit-b32"),
        ("bigan", None, "paper", "bigan"),
        ("flow", None, "quick", "flow"),
    ],
)
def test_encoders_of_the_methods(method, encoder, preset, expected):
    assert choose_encoder(method, encoder, preset) == expected


@pytest.mark.parametrize(
    ("method", "encoder", "message"),
    [
        ("mae", "resnet18", "mae trains vit-b32, vit-tiny"),
        ("flow", "resnet18", "flow trains flow"),
        ("vicreg", "bigan", "vicreg trains resnet18, resnet-layout, vit-b32, vit-tiny"),
        ("vicreg", "hog", "vicreg trains"),
    ],
)
def test_encoders_that_a_method_cannot_train(method, encoder, message):
    with pytest.raises(ValueError, match=message):
        choose_encoder(method, encoder, "quick")


def test_a_run_leaves_an_encoder_and_a_report(pretrained):
    made = {path.name for path in pretrained.iterdir()}
    assert made >= {"config.yaml", "metrics.csv", "last.ckpt", "export", "result.json"}
    assert "best.ckpt" not in made  # there are no labels to choose with
    result = json.loads((pretrained / "result.json").read_text())
    assert 0 <= result["metrics"]["val_auc_centred_cosine"] <= 1
    assert result["seed"] == 0
    assert "No label was used" in result["limits"]
    encoder, config = load_encoder(pretrained / "export")
    state = torch.load(pretrained / "last.ckpt", weights_only=True)["state_dict"]
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, state[f"objective.encoder.{name}"]), name
    assert config["method"] == "vicreg"
    rows = list(csv.DictReader((pretrained / "metrics.csv").read_text().splitlines()))
    assert float(rows[-1]["train/loss"]) == pytest.approx(result["metrics"]["train/loss"])
    page = (pretrained / "report.html").read_text()
    assert "What it sees" in page
