from __future__ import annotations

import numpy as np
import pytest
import torch
from cmdfd.data import ArrayClips, AVData
from cmdfd.lightning import CMDFDModule
from cmdfd.losses import (
    correlation,
    correlation_distillation_loss,
    correlation_target,
    frame_cross_entropy,
)
from cmdfd.small_teacher import SmallTeacher
from cmdfd.teachers import OfficialTeacher, SpeechTransformer
from lightning.pytorch import Trainer

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
}
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:The number of training batches",
    "ignore:Total length of `list` across ranks is zero",
)
TINY = {"dim": 32, "visual_width": 4, "audio_layers": (1, 1, 1, 1), "tcn_layers": 1, "heads": 4}


def made(count, frames=8, seed=0):
    chance = np.random.default_rng(seed)
    labels = [k % 2 for k in range(count)]
    pictures = [chance.integers(0, 200, (frames, 16, 16)).astype(np.uint8) for _ in labels]
    for label, picture in zip(labels, pictures, strict=True):
        picture[:, :8] += np.uint8(50 * label)
    waves = [(chance.normal(size=640 * frames) / 9).astype(np.float32) for _ in labels]
    return ArrayClips(pictures, [w.clip(-1, 0.9) for w in waves], labels)


@pytest.fixture
def teacher():
    torch.manual_seed(1)
    return SmallTeacher(5, dim=16, width=2)


def a_batch(count=4):
    return next(iter(AVData(made(count), augmented=False).train_dataloader()))


@pytest.mark.parametrize("with_teacher", [False, True])
def test_two_steps_and_back(teacher, with_teacher, tmp_path):
    torch.manual_seed(0)
    data = AVData(made(8), val=made(6, seed=1), test=made(4, seed=2), frames_per_batch=32)
    module = CMDFDModule(TINY, teacher if with_teacher else None, lr=1e-3)
    before = {n: v.clone() for n, v in module.net.state_dict().items()}
    trainer = Trainer(max_steps=2, default_root_dir=tmp_path, **QUIET)
    trainer.fit(module, data)
    changed = [n for n, v in module.net.named_parameters() if not torch.equal(v, before[n])]
    assert len(changed) > 50
    logged = trainer.callback_metrics
    names = {"train/loss", "train/ce", "val/loss", "val/auc", "val/accuracy"}
    names |= {"val/correlation_real", "val/correlation_fake"}
    names |= {f"train/{n}" for n in ("distill", "contrast", "target") if with_teacher}
    assert set(logged) == names
    assert all(torch.isfinite(value) for value in logged.values())
    saved = next(tmp_path.rglob("*.ckpt"))
    held = torch.load(saved, weights_only=True)["state_dict"]
    assert all(name.startswith("net.") for name in held)
    again = CMDFDModule.load_from_checkpoint(saved, weights_only=True).eval()
    assert again.lr == 1e-3
    module.eval()
    batch = a_batch()
    one, two = module.predict_step(batch, 0), again.predict_step(batch, 0)
    assert torch.equal(one.scores, two.scores)
    predicted = trainer.predict(module, data)
    assert sorted(name for p in predicted for name in p.names) == ["0", "1", "2", "3"]


def test_the_loss_is_the_sum_of_its_parts(teacher):
    torch.manual_seed(0)
    options = {"target": "jeffreys", "distill": "real", "over_time": "sum"}
    module = CMDFDModule(TINY, teacher, w_dist=0.5, w_con=2.0, **options).eval()
    module.log_dict = lambda *_, **__: None
    batch = a_batch()
    loss = module.training_step(batch, 0)
    out = module(batch.mfcc, batch.frames)
    posteriors = teacher(batch.waveform, batch.teacher_video)
    expected = frame_cross_entropy(out.logits, batch.labels) + correlation_distillation_loss(
        out.audio, out.visual, *posteriors, batch.labels, w_dist=0.5, w_con=2.0, **options
    )
    torch.testing.assert_close(loss, expected)
    r = correlation_target(*posteriors, target="jeffreys")
    torch.testing.assert_close(module.agreement(batch), r)
    assert CMDFDModule(TINY).agreement(batch) is None


def test_the_teacher_is_frozen_and_no_part_of_the_module(teacher):
    module = CMDFDModule(TINY, teacher)
    module.train()
    assert not teacher.training
    assert not any(part.training for part in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    assert len(list(module.parameters())) == len(list(module.net.parameters()))
    state = {n: v.clone() for n, v in teacher.state_dict().items()}
    module.log_dict = lambda *_, **__: None
    module.training_step(a_batch(), 0).backward()
    assert all(torch.equal(v, state[n]) for n, v in teacher.state_dict().items())


def test_the_official_teachers_dropout_can_act():
    torch.manual_seed(0)
    nets = [
        SpeechTransformer(s, 5, dim=16, heads=2, layers=1, hidden=8) for s in ("audio", "video")
    ]
    teacher = OfficialTeacher(*nets)
    batch = a_batch()._replace(teacher_video=torch.randn(4, 8, 16))
    still = CMDFDModule(TINY, teacher)
    assert torch.equal(still.agreement(batch), still.agreement(batch))
    moving = CMDFDModule(TINY, teacher, teacher_dropout=True)
    assert not torch.equal(moving.agreement(batch), moving.agreement(batch))


def test_predictions_say_when_and_how_much():
    torch.manual_seed(0)
    batch = a_batch()
    for score in ("margin", "fake"):
        module = CMDFDModule(TINY, score=score).eval()
        with torch.no_grad():
            out = module(batch.mfcc, batch.frames)
            found = module.predict_step(batch, 0)
        mean = out.logits.mean(1)
        expected = mean[:, 1] - mean[:, 0] if score == "margin" else mean[:, 1]
        torch.testing.assert_close(found.scores, expected)
        torch.testing.assert_close(found.correlation, correlation(out.audio, out.visual))
        assert found.correlation.shape == (4, 8)
        assert found.logits.shape == (4, 8, 2)
        assert found.names == batch.names


def test_a_lost_loss_ends_the_run(tmp_path):
    module = CMDFDModule(TINY)
    with torch.no_grad():
        module.net.lossAV.FC.bias.fill_(torch.nan)
    trainer = Trainer(max_epochs=1, default_root_dir=tmp_path, enable_checkpointing=False, **QUIET)
    with pytest.raises(RuntimeError, match="training diverged"):
        trainer.fit(module, AVData(made(4)))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
def test_mixed_precision(teacher, precision, tmp_path):
    torch.manual_seed(0)
    module = CMDFDModule({}, teacher)
    data = AVData(made(8, frames=20), val=made(6, seed=1), frames_per_batch=80)
    options = QUIET | {"accelerator": "cuda", "devices": 1, "precision": precision}
    trainer = Trainer(max_epochs=2, default_root_dir=tmp_path, **options)
    trainer.fit(module, data)
    assert all(torch.isfinite(value) for value in trainer.callback_metrics.values())
    saved = next(tmp_path.rglob("*.ckpt"))
    again = CMDFDModule.load_from_checkpoint(saved, weights_only=True, map_location="cpu").eval()
    batch = a_batch()
    on_gpu = module.cuda().eval()(batch.mfcc.cuda(), batch.frames.cuda()).logits.cpu()
    torch.testing.assert_close(on_gpu, again(batch.mfcc, batch.frames).logits, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.0}, "lr must be > 0"),
        ({"w_con": -1.0}, "w_con >= 0"),
        ({"target": "kl"}, "target must be js or jeffreys, got 'kl'"),
        ({"distill": "fake"}, "distill must be all or real"),
        ({"score": "mean"}, "score must be margin or fake"),
    ],
)
def test_wrong_options_are_told(change, message):
    with pytest.raises(ValueError, match=message):
        CMDFDModule(TINY, **change)
