from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from papercommons.checkpoint import read_torch_file
from papercommons.cli import RunOptions
from papercommons.errors import DataError
from papercommons.metrics.roc import binary_auc
from papercommons.metrics.verification import equal_error_rate
from papercommons.training import fit
from vlm_hv.data import PairBatch, PairData, ablate_pairs
from vlm_hv.lightning import VLMHVModule, lora_layers, suffix_loss
from vlm_hv.tiny import tiny_paligemma, tiny_qwen2_vl
from vlm_hv.verifier import VLMVerifier

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
]
lora = pytest.mark.skipif(
    not __import__("importlib.util", fromlist=["x"]).find_spec("peft"),
    reason="LoRA needs peft (vlm-hv[local])",
)
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


def make(**size):
    return VLMVerifier(*tiny_paligemma(**({"size": 32, "width": 16, "layers": 1} | size)))


@pytest.fixture(scope="module")
def data(words):
    return PairData(str(words), make().prompt, batch_size=8)


def weights(module):
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def batch_of(verifier, count=6):
    random = np.random.default_rng(0)
    left, right = random.integers(0, 256, (2, count, 32, 32), dtype=np.uint8)
    same = torch.arange(count) % 2
    inputs, labels = verifier.prompt.encode_answered(left, right, same.tolist())
    return PairBatch(inputs, labels, same)


@pytest.mark.parametrize("family", ["paligemma", "qwen2_vl"])
def test_the_loss_is_the_librarys_own_on_the_suffix_alone(family, monkeypatch):
    verifier = make() if family == "paligemma" else VLMVerifier(*tiny_qwen2_vl(width=16, layers=1))
    module = VLMHVModule(verifier, tune="full")
    found = {}
    monkeypatch.setattr(module, "log", lambda name, value, **_: found.update({name: value}))
    batch = batch_of(verifier)
    whole = torch.full_like(batch.inputs["input_ids"], -100)
    whole[:, -batch.labels.shape[1] :] = batch.labels
    loss = module.training_step(batch, 0)
    torch.testing.assert_close(loss, verifier.model(**batch.inputs, labels=whole).loss)
    assert found == {"train/loss": loss}


def test_suffix_loss_is_float32_and_passes_over_what_has_ended():
    logits = torch.randn(3, 4, 9, dtype=torch.float16) * 20
    labels = torch.tensor([[1, 2, -100, -100], [3, -100, -100, -100], [4, 5, 6, 7]])
    logprobs = logits.float().log_softmax(-1)
    kept = [
        -logprobs[b, a, label] for b, row in enumerate(labels) for a, label in enumerate(row)
        if label >= 0
    ]  # fmt: skip
    loss = suffix_loss(logits, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, torch.stack(kept).mean())


def test_what_the_loss_learns_does_not_see_itself():
    """Changing an answer must not change the logits from which it is predicted."""
    verifier = make()
    module = VLMHVModule(verifier, tune="full").eval()
    batch = batch_of(verifier)
    other = {**batch.inputs, "input_ids": batch.inputs["input_ids"].clone()}
    other["input_ids"][:, -batch.labels.shape[1] :] = 7
    with torch.no_grad():
        one, two = (module.verifier.model(**inputs).logits for inputs in (batch.inputs, other))
    first = -batch.labels.shape[1] - 1
    torch.testing.assert_close(one[:, first], two[:, first])
    assert not torch.allclose(one[:, first + 1], two[:, first + 1])


@lora
@pytest.mark.parametrize("projector", [False, True])
def test_lora_changes_the_adapter_and_nothing_else(projector, data):
    module = VLMHVModule(make(), lora_r=4, adapt_projector=projector, lr=1e-2)
    before = weights(module)
    Trainer(max_epochs=1, limit_train_batches=3, limit_val_batches=0, **QUIET).fit(module, data)
    moved = {
        name for name, value in weights(module).items() if not torch.equal(value, before[name])
    }
    adapter = {name for name in before if "lora_" in name}
    assert moved == adapter
    assert any("projector" in name for name in adapter) == projector
    assert not any("vision" in name for name in adapter)
    assert {p.requires_grad for n, p in module.named_parameters() if n in adapter} == {True}
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    assert trained == sum(before[name].numel() for name in adapter)


def test_it_can_be_judged_before_it_trains(data):
    few = {"limit_train_batches": 1, "limit_val_batches": 1}
    module, trainer = (
        VLMHVModule(make(), tune="full", lr=1e-2),
        Trainer(max_epochs=1, **few, **QUIET),
    )
    trainer.validate(module, data, verbose=False)
    trainer.fit(module, data)
    assert {"val/auc", "val/eer"} <= set(trainer.callback_metrics)


@lora
def test_an_adapter_that_is_there_is_trained_on(data, save_tiny, tmp_path):
    base = save_tiny(*tiny_paligemma(size=32, width=16, layers=1), tmp_path / "base")
    first = VLMHVModule(str(base), lora_r=2, lr=1e-2)
    Trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0, **QUIET).fit(first, data)
    first.verifier.save_pretrained(tmp_path / "adapter")
    second = VLMHVModule(tmp_path / "adapter", lr=1e-2)
    before = weights(second)
    assert {name for name, p in second.named_parameters() if p.requires_grad} == {
        name for name in before if "lora_" in name
    }
    Trainer(max_epochs=1, limit_train_batches=2, limit_val_batches=0, **QUIET).fit(second, data)
    moved = {
        name for name, value in weights(second).items() if not torch.equal(value, before[name])
    }
    assert moved == {name for name in before if "lora_" in name}


@lora
def test_an_adapter_of_a_half_precision_model_is_float32_and_learns(data, save_tiny, tmp_path):
    base = save_tiny(*tiny_paligemma(size=32, width=16, layers=1), tmp_path / "base")
    verifier = VLMVerifier.from_pretrained(base, device="cpu", dtype="bfloat16")
    module = VLMHVModule(verifier, lora_r=2, lr=1e-6)
    kinds = {(p.dtype, p.requires_grad) for p in module.parameters()}
    assert kinds == {(torch.bfloat16, False), (torch.float32, True)}
    before = weights(module)
    Trainer(max_epochs=1, limit_train_batches=3, limit_val_batches=0, **QUIET).fit(module, data)
    moved = {
        name for name, value in weights(module).items() if not torch.equal(value, before[name])
    }
    assert moved == {name for name in before if "lora_" in name}


@lora
def test_layers_to_adapt_are_those_of_the_language_model():
    for model, _ in (tiny_paligemma(layers=2), tiny_qwen2_vl(layers=2)):
        names = lora_layers(model)
        assert len(names) == 2 * 7
        assert all("language_model" in name for name in names)
        more = set(lora_layers(model, adapt_projector=True)) - set(names)
        assert more
        assert all("projector" in name or "merger" in name for name in more)
    with pytest.raises(DataError, match="Linear has no linear layers called q_proj"):
        lora_layers(torch.nn.Linear(2, 2))


def test_full_training_moves_every_weight(data):
    module = VLMHVModule(make(), tune="full")
    before = weights(module)
    Trainer(max_epochs=1, limit_train_batches=3, limit_val_batches=0, **QUIET).fit(module, data)
    still = [name for name, value in weights(module).items() if torch.equal(value, before[name])]
    assert still == []


def test_validation_logs_auc_and_equal_error_rate_of_all_held_out_pairs(data):
    module = VLMHVModule(make(), tune="full")
    trainer = Trainer(max_epochs=1, limit_train_batches=1, **QUIET)
    trainer.fit(module, data)
    pairs = data.pairs["val"]
    odds = module.verifier.score(data.images[pairs.left], data.images[pairs.right])
    logged = trainer.callback_metrics
    assert set(logged) == {"train/loss", "val/auc", "val/eer"}
    assert logged["val/auc"].item() == pytest.approx(binary_auc(odds, pairs.same), abs=1e-6)
    assert logged["val/eer"].item() == pytest.approx(
        equal_error_rate(odds, pairs.same)[0], abs=1e-6
    )


@pytest.mark.parametrize("tune", ["full", pytest.param("lora", marks=lora)])
def test_a_resumed_run_ends_where_the_unbroken_one_does(tune, data, tmp_path):
    run, again = RunOptions(accelerator="cpu"), RunOptions(accelerator="cpu", resume="last")

    class Stop(Callback):
        def on_train_epoch_end(self, trainer, module):
            if trainer.current_epoch == 1:
                raise RuntimeError("stopped")

    def module():
        torch.manual_seed(0)
        return VLMHVModule(make(), tune=tune, lora_r=2, lr=1e-3)

    whole, resumed = module(), module()
    fit(whole, data, epochs=3, run=run, out=tmp_path / "whole", monitor="val/auc")
    with pytest.raises(RuntimeError, match="stopped"):
        fit(module(), data, epochs=3, run=run, out=tmp_path / "broken", callbacks=[Stop()])
    fit(resumed, data, epochs=3, run=again, out=tmp_path / "broken")
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name
    state = read_torch_file(tmp_path / "whole" / "best.ckpt")["state_dict"]
    assert set(state) == set(whole.state_dict())
    if tune == "lora":
        assert all("lora_" in name for name in state)
    fresh = module()
    fresh.load_state_dict(read_torch_file(tmp_path / "whole" / "last.ckpt")["state_dict"])
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(fresh)[name]), name


@lora
def test_a_checkpoint_of_other_options_does_not_load():
    state = VLMHVModule(make(), lora_r=2, adapt_projector=True).state_dict()
    with pytest.raises(DataError, match="the checkpoint does not fit: 2 names differ"):
        VLMHVModule(make(), lora_r=2).load_state_dict(state)


def test_a_run_that_diverges_says_so(data):
    module = VLMHVModule(make(), tune="full", lr=1e30)
    with pytest.raises(RuntimeError, match=r"training diverged: .* take a smaller --lr"):
        Trainer(max_epochs=2, limit_val_batches=0, **QUIET).fit(module, data)


def test_the_learning_rate_rises_then_falls(data):
    class Rates(Callback):
        seen: list[float] = []  # noqa: RUF012

        def on_train_batch_start(self, trainer, *_):
            self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])

    module = VLMHVModule(make(), tune="full", lr=0.01, warmup=0.5)
    trainer = Trainer(
        max_epochs=2, limit_train_batches=4, limit_val_batches=0, callbacks=[Rates()], **QUIET
    )
    trainer.fit(module, data)
    assert Rates.seen[:5] == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01])
    assert Rates.seen[4:] == sorted(Rates.seen[4:], reverse=True)
    assert Rates.seen[-1] < 0.003


def accuracies(verifier, data):
    """Of the training pairs: as they are, blank, and with the pictures of other pairs."""

    def accuracy(images, pairs):
        odds = verifier.score(images[pairs.left], images[pairs.right], swap=True).mean(0)
        return ((odds >= 0) == pairs.same).mean()

    pairs = data.pairs["train"]
    torn = [accuracy(*ablate_pairs(data.images, pairs, "shuffle", seed=s)) for s in range(8)]
    blank = accuracy(*ablate_pairs(data.images, pairs, "blank"))
    return accuracy(data.images, pairs), blank, np.mean(torn)


def test_a_tiny_model_learns_pairs_from_their_pictures(words):
    """Section 7: what is learnt is gone when the pictures are blank or those of other pairs."""
    torch.manual_seed(0)
    verifier = make(width=64, layers=2)
    data = PairData(str(words), verifier.prompt, max_pairs=12, batch_size=12)
    module = VLMHVModule(verifier, tune="full", lr=2e-3, warmup=0.1)
    Trainer(max_epochs=70, limit_val_batches=0, gradient_clip_val=1.0, **QUIET).fit(module, data)
    real, blank, torn = accuracies(verifier, data)
    assert real >= 11 / 12
    assert blank == 0.5
    assert torn < 0.7


@pytest.mark.slow
def test_a_tiny_model_learns_32_real_pairs_from_their_pictures(shared_files):
    """The learning test of section 7 at its full size: real words, 64 pixels, 254,000 weights."""
    torch.manual_seed(0)
    verifier = VLMVerifier(*tiny_paligemma())
    data = PairData(
        str(shared_files / "data/cedar-and"), verifier.prompt, max_pairs=32, batch_size=32
    )
    module = VLMHVModule(verifier, tune="full", lr=1e-3, warmup=0.1)
    Trainer(max_epochs=100, limit_val_batches=0, gradient_clip_val=1.0, **QUIET).fit(module, data)
    real, blank, torn = accuracies(verifier, data)
    assert real >= 0.95
    assert blank == 0.5
    assert torn < 0.65


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tune": "some"}, "tune must be lora or full, got 'some'"),
        ({"lora_r": 0}, "lora_r must be >= 1"),
        ({"lora_dropout": 1.0}, r"lora_dropout in \[0, 1\)"),
        ({"warmup": 1.0}, r"warmup must be in \[0, 1\), got 1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        VLMHVModule(make(), **options)


def test_lora_without_peft_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(DataError, match=r'LoRA needs peft, .* pip install "vlm-hv\[local\]"'):
        VLMHVModule(make())
