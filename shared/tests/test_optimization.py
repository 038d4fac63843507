"""The learning rate's rise and fall, and the end of a run that diverged."""

from types import SimpleNamespace

import pytest
import torch
from papercommons.optimization import stop_if_diverged, warmup_cosine, with_warmup_cosine


def module(steps=100, **logged):
    trainer = SimpleNamespace(estimated_stepping_batches=steps, callback_metrics=logged)
    return SimpleNamespace(trainer=trainer, current_epoch=2)


def test_rate_rises_along_a_line_then_falls_along_half_a_cosine():
    rates = [warmup_cosine(step, 10, 100) for step in range(101)]
    assert rates[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert rates[10] == 1
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0)
    assert warmup_cosine(0, 0, 1) == 1


def test_schedule_is_stepped_per_batch_from_the_trainers_count():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    made = with_warmup_cosine(optimizer, module(steps=20), 0.1)
    assert made["optimizer"] is optimizer
    assert made["lr_scheduler"]["interval"] == "step"
    seen = []
    for _ in range(20):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made["lr_scheduler"]["scheduler"].step()
    assert seen == pytest.approx([2 * warmup_cosine(k, 2, 20) for k in range(20)])


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_lost_loss_ends_the_run_with_advice(loss):
    with pytest.raises(RuntimeError, match=r"epoch 3 is not finite; take a smaller --lr"):
        stop_if_diverged(module(), torch.tensor(loss))
    with pytest.raises(RuntimeError, match="training diverged"):
        stop_if_diverged(module(**{"train/loss": torch.tensor(loss)}))


def test_a_finite_or_missing_loss_goes_on():
    stop_if_diverged(module())
    stop_if_diverged(module(), torch.tensor(3.0))
