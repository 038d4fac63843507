import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from papercommons.cli import RunOptions
from papercommons.errors import DataError
from papercommons.training import fit, seed_everything
from rld_distill import losses
from rld_distill.caching import cache_teacher
from rld_distill.data import Batch, DistillData
from rld_distill.distill import distill, judge
from rld_distill.evaluation import classification_report
from rld_distill.lightning import RenormalizedTeacher, RLDModule
from rld_distill.methods import DEFAULTS
from rld_distill.options import DataOptions, TeacherOptions
from rld_distill.plans import Plan
from rld_distill.saved import load_network, save_network
from rld_distill.teachers import load_teacher
from rld_distill.zoo import create_model
from torch import nn
from torch.nn import functional as F

RUN = RunOptions(accelerator="cpu")


def linear(classes=10, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, classes))


def with_norm(classes=10, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(10))


@pytest.fixture(scope="module")
def data():
    return DistillData("digits", batch_size=128, size=16)


@pytest.fixture
def batch(data):
    return next(iter(data.train_dataloader()))


def test_training_loss_is_ce_plus_warmed_up_terms(batch):
    student, teacher = linear(), linear(seed=1)
    module = RLDModule(student, teacher, 10, warmup_epochs=4)
    total = module.training_step(batch, 0)
    s, t = student(batch.images), teacher(batch.images)
    ce = F.cross_entropy(s, batch.target)
    rld = losses.rld_loss(s, t, batch.target, alpha=1.0, beta=8.0, temperature=4.0)
    torch.testing.assert_close(total, ce + rld / 4)
    assert [module.warm_up(epoch) for epoch in (1, 2, 4, 9)] == [0.25, 0.5, 1.0, 1.0]


@pytest.mark.parametrize("method", DEFAULTS)
def test_every_method_trains(batch, method):
    module = RLDModule(linear(), linear(seed=1), 10, method=method, warmup_epochs=0)
    module.training_step(batch, 0).backward()
    gradients = [p.grad for p in module.student.parameters()]
    assert all(g is not None and torch.isfinite(g).all() and g.abs().sum() > 0 for g in gradients)


def test_an_injected_loss_is_used(batch):
    class Squares(nn.Module):
        def forward(self, student, teacher, target):
            return (student - teacher).square().mean()

    student, teacher = linear(), linear(seed=1)
    module = RLDModule(student, teacher, 10, loss=Squares(), ce_weight=0.0, warmup_epochs=0)
    wanted = (student(batch.images) - teacher(batch.images)).square().mean()
    torch.testing.assert_close(module.training_step(batch, 0), wanted)
    assert "loss" not in module.hparams


def test_plain_pairs_are_batches_too(batch):
    module = RLDModule(linear(), linear(seed=1), 10)
    pair = [batch.images, batch.target]
    assert torch.equal(module.training_step(pair, 0), module.training_step(batch, 0))
    assert torch.equal(module.predict_step(pair, 0).logits, module.predict_step(batch, 0).logits)


def test_teacher_stays_as_it_was_and_out_of_the_checkpoint(data, tmp_path):
    teacher = with_norm()
    teacher(torch.zeros(2, 3, 16, 16))
    teacher.train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    module = RLDModule("resnet8", teacher, 10, milestones=[1])
    fit(module, data, epochs=1, run=replace(RUN, trainer={"limit_train_batches": 2}), out=tmp_path)
    assert not teacher.training
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name]), name
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert all(name.startswith("student.") for name in state)
    again = RLDModule.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert torch.equal(again.student.fc.weight, module.student.fc.weight)


PLAN = Plan("resnet8", "rld", {}, None, 4, 2, 0.05, 0.9, 5e-4, (2, 3))


def test_a_resumed_run_is_the_run_that_never_stopped(data, tmp_path):
    short = replace(RUN, trainer={"limit_train_batches": 2, "limit_val_batches": 1})
    teacher = linear(seed=1)
    whole = distill(PLAN, data, teacher, run=short, out=tmp_path / "whole")
    assert [round(row["lr"], 8) for row in whole.history] == [0.05, 0.05, 0.005, 0.0005]
    distill(replace(PLAN, epochs=2), data, teacher, run=short, out=tmp_path / "parts")
    go_on = replace(short, resume="last")
    resumed = distill(PLAN, data, teacher, run=go_on, out=tmp_path / "parts")
    for name, value in whole.module.state_dict().items():
        assert torch.equal(value, resumed.module.state_dict()[name]), name
    assert whole.test == resumed.test
    timeless = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in outcome.history]
        for outcome in (whole, resumed)
    ]
    assert timeless[0] == timeless[1]


def test_cached_logits_train_as_the_live_teacher(data, tmp_path):
    seed_everything(3)
    teacher_folder = save_network(
        RLDModule("resnet8", None, 10, method="ce").student,
        tmp_path / "teacher",
        name="resnet8",
        data=data,
        made_by="test",
    )
    short = replace(RUN, trainer={"limit_train_batches": 2})
    plan = replace(PLAN, epochs=2)
    live = distill(plan, data, load_teacher(str(teacher_folder), data), run=short)
    images = DataOptions(size=16)
    options = TeacherOptions(teacher=str(teacher_folder))
    file = str(tmp_path / "cache.safetensors")
    cache_teacher("digits", options, file, images, RUN, 2, "float32", None, 128)
    cached_data = DistillData("digits", batch_size=128, size=16, teacher_cache=file)
    cached = distill(plan, cached_data, None, run=short)
    for name, value in live.module.state_dict().items():
        torch.testing.assert_close(value, cached.module.state_dict()[name], msg=name)
    with pytest.raises(DataError, match="made with augment crop, this run has none"):
        DistillData("digits", size=16, teacher_cache=file, augment="none")


def test_a_teacher_with_another_normalisation_sees_its_own(data):
    network = linear()
    own = {"own_mean": [0.5, 0.4, 0.3], "own_std": [0.2, 0.3, 0.4]}
    teacher = RenormalizedTeacher(network, mean=data.mean, std=data.std, **own)
    raw = torch.rand(4, 3, 16, 16)

    def normalise(mean, std):
        return (raw - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)

    wanted = network(normalise(own["own_mean"], own["own_std"]))
    torch.testing.assert_close(teacher(normalise(data.mean, data.std)), wanted)


def test_saved_classifier_comes_back_the_same(data, tmp_path):
    network = RLDModule("wrn_16_1", None, 10).student.eval()
    save_network(network, tmp_path, name="wrn_16_1", data=data, made_by="test")
    again, config = load_network(tmp_path)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(again(images), network(images))
    assert config["classes"] == [str(i) for i in range(10)]
    assert "resnet8" not in (tmp_path / "README.md").read_text()
    (tmp_path / "config.json").unlink()
    with pytest.raises(DataError, match="no saved network"):
        load_network(tmp_path)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("model", None),
        ("model", "x"),
        ("num_classes", "x"),
        ("num_classes", -1),
        ("classes", ["a"]),
        ("classes", [0] * 10),
        ("size", 10**9),
        ("size", "x"),
        ("mean", [0.5]),
        ("std", [0, 0, 0]),
    ],
)
def test_a_config_that_no_network_has_is_refused(data, tmp_path, entry, value):
    network = create_model("resnet8", 10)
    save_network(network, tmp_path, name="resnet8", data=data, made_by="test")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, entry: value}))
    with pytest.raises(DataError, match=r"config\.json: "):
        load_network(tmp_path)


def test_the_module_and_the_report_measure_alike(data):
    from papercommons.training import make_trainer

    module = RLDModule(linear(), linear(seed=1), 10)
    (logits, _), numbers = judge(module, data, data.splits.test, run=RUN)
    torch.testing.assert_close(logits.argmax(1), module.cpu()(_images(data)).argmax(1))
    logged = make_trainer(RUN).test(module, data, verbose=False)[0]
    for name, value in logged.items():
        assert value == pytest.approx(numbers[name.removeprefix("test/")], abs=1e-5), name
    assert set(numbers) - {n.removeprefix("test/") for n in logged} == {
        "accuracy_low",
        "accuracy_high",
    }


def test_it_can_be_judged_before_it_trains(data):
    from papercommons.training import make_trainer

    module = RLDModule(linear(), linear(seed=1), 10)
    trainer = make_trainer(replace(RUN, trainer={"limit_train_batches": 1}), epochs=1)
    (first,) = trainer.validate(module, data, verbose=False)
    trainer.fit(module, data)
    assert trainer.callback_metrics["val/loss"] != first["val/loss"]


def _images(data):
    return torch.cat([b.images for b in data.test_dataloader()])


def test_report_numbers_on_a_case_done_by_hand():
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.0, 1.0]])
    target = torch.tensor([0, 1, 1, 0])
    teacher = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    numbers = classification_report(logits, target, teacher)
    assert numbers["accuracy"] == 0.5
    assert numbers["teacher_accuracy"] == 0.5
    assert numbers["agreement"] == 0.5
    assert numbers["accuracy_teacher_right"] == 0.5
    assert numbers["accuracy_teacher_wrong"] == 0.5
    assert numbers["nll"] == pytest.approx(F.cross_entropy(logits, target).item())
    assert "top5" not in numbers


def test_bad_teachers_are_named(batch):
    broken = linear(seed=1)
    with torch.no_grad():
        broken[2].weight.fill_(torch.nan)
    with pytest.raises(DataError, match="teacher logits of batch 3 in epoch 1 are not finite"):
        RLDModule(linear(), broken, 10).training_step(batch, 3)
    with pytest.raises(DataError, match="teacher gives 7 classes, student 10"):
        RLDModule(linear(), linear(7), 10).training_step(batch, 0)
    with pytest.raises(ValueError, match="needs a teacher"):
        RLDModule(linear(), None, 10).training_step(batch, 0)
    with pytest.raises(ValueError, match=r"warmup_epochs must be >= 0 \(0 is none\), got -1"):
        RLDModule(linear(), None, 10, warmup_epochs=-1)


def test_training_step_on_the_device(batch, device):
    module = RLDModule(linear(), linear(seed=1), 10).to(device)
    module.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=device))
    module.setup("fit")
    module._trainer = None
    moved = Batch(*(None if part is None else part.to(device) for part in batch))
    with torch.autocast(device.type, torch.bfloat16):
        loss = module.training_step(moved, 0)
    assert loss.dtype == torch.float32
    loss.backward()
    assert torch.isfinite(module.student[2].weight.grad).all()


def test_teacher_goes_where_the_student_will_be():
    teacher = linear(seed=1)
    module = RLDModule(linear(), teacher, 10)  # Lightning calls setup while it is on the CPU
    module.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("meta")))
    module.setup("fit")
    assert all(p.device.type == "meta" for p in teacher.parameters())


@pytest.mark.ddp
def test_two_processes_train_as_one(tmp_path):
    script = Path(__file__).parent / "ddp_fit.py"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*launch, str(script), str(tmp_path / "two.pt")],
        env=environment,
        check=True,
        capture_output=True,
        timeout=300,
    )
    sys.path.insert(0, str(script.parent))
    from ddp_fit import train

    one = train(batch_size=64, run=replace(RUN, trainer={"limit_train_batches": 4}))
    two = torch.load(tmp_path / "two.pt", weights_only=True)
    torch.testing.assert_close(two["weight"], one["weight"], rtol=1e-5, atol=1e-6)
    assert torch.equal(two["index"], one["index"])
    torch.testing.assert_close(two["logits"], one["logits"], rtol=1e-4, atol=1e-5)
