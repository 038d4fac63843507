from __future__ import annotations

import pytest
from papercommons.cli import RunOptions
from papercommons.training import judging_options, make_trainer


def run_options(**changes):
    return RunOptions(**{"accelerator": "cpu", "seed": 5} | changes)


def test_progress_goes_to_standard_error(monkeypatch, capfd):
    monkeypatch.setattr("papercommons.training.show_progress", lambda: True)
    trainer = make_trainer(run_options())
    assert trainer.progress_bar_callback._console_kwargs == {"stderr": True}
    quiet = make_trainer(run_options(trainer={"enable_progress_bar": False}))
    assert quiet.progress_bar_callback is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"trainer": {"max_step": 3}},
            "--trainer.max_step: no such option; did you mean max_st",
        ),
        ({"trainer": {"callbacks": []}}, "--trainer.callbacks: callbacks are no option"),
        ({"trainer": {"limit_train_batches": "x"}}, "cannot run as asked: "),
        ({"accelerator": "abacus"}, "cannot run as asked: .*abacus"),
        ({"devices": "many"}, "cannot run as asked: "),
        ({"devices": "0"}, "cannot run as asked: "),
        ({"strategy": "hope"}, "cannot run as asked: .*hope"),
    ],
)
def test_what_the_trainer_cannot_do(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        make_trainer(run_options(**options))
    assert "\n" not in str(caught.value)


def test_trainer_options_win():
    trainer = make_trainer(run_options(trainer={"max_steps": 3, "precision": "64-true"}), epochs=9)
    assert trainer.max_steps == 3
    assert trainer.precision == "64-true"
    assert trainer.max_epochs == 9


def test_judging_stays_on_the_machines_of_training():
    run = run_options(trainer={"num_nodes": 2, "limit_train_batches": 4}, devices="3")
    assert judging_options(run) == run_options(trainer={"num_nodes": 2}, devices="3")
