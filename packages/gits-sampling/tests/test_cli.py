from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from gits_sampling import cli, options, stepping
from gits_sampling.options import (
    budgets,
    check_levels,
    coefficient,
    numbers,
    schedule_name,
)
from gits_sampling.schedule import Schedule
from papercommons.cli import run_command

VERBS = ("fit", "sample", "compare", "analyze", "export", "train")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder; gives code and what it said."""
    monkeypatch.chdir(tmp_path)

    def call(verb, *words):
        code = run_command(
            getattr(cli, verb), prog=f"gits-sampling-{verb}", argv=[str(word) for word in words]
        )
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_help_needs_no_torch():
    code = (
        "import sys\n"
        "from gits_sampling import cli\n"
        "from papercommons.cli import run_command\n"
        f"for verb in {VERBS}:\n"
        "    assert run_command(getattr(cli, verb), prog=verb, argv=['--help']) == 0\n"
        "assert not {'torch', 'numpy', 'matplotlib'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage:") == len(VERBS)
    assert "no description" not in done.stdout


def test_every_command_has_its_short_name():
    project = Path(__file__).parents[1] / "pyproject.toml"
    scripts = tomllib.loads(project.read_text())["project"]["scripts"]
    for verb in VERBS:
        assert scripts[f"gits-sampling-{verb}"] == f"gits_sampling.cli:main_{verb}"
        assert scripts[f"gits-{verb}"] == scripts[f"gits-sampling-{verb}"]
        assert callable(getattr(cli, f"main_{verb}"))
    assert len(scripts) == 2 * len(VERBS)


def test_names_of_solvers_are_those_of_the_library():
    assert options.Solver.__args__ == stepping.Solver.__args__
    assert stepping.TWO_CALLS == options.TWO_CALLS
    from gits_sampling.comparison_columns import SCHEDULES
    from gits_sampling.costs import METRICS
    from gits_sampling.loading import BUILT_IN

    assert set(options.Metric.__args__) == set(METRICS)
    assert set(options.SHORT.values()) <= set(SCHEDULES)
    for name in BUILT_IN:
        options.check_model(name)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("4-10", [4, 5, 6, 7, 8, 9, 10]),
        ("4-10:3", [4, 7, 10]),
        ("8, 4,4-5", [8, 4, 5]),
        ("7", [7]),
    ],
)
def test_ranges(text, found):
    assert numbers(text, "--nfe") == found


@pytest.mark.parametrize("text", ["", "4-", "a", "4..6", "-3", "4-6:0", "6-4", "1.5", "0-9999999"])
def test_bad_ranges(text):
    with pytest.raises(ValueError, match="--nfe"):
        numbers(text, "--nfe", least=1)


def test_budgets_suit_the_solver():
    assert budgets(None, "ipndm", 61) == [4, 5, 6, 7, 8, 9, 10]
    assert budgets(None, "heun", 61) == [4, 6, 8, 10]
    assert budgets("8", "heun", 5) == [8]
    with pytest.raises(ValueError, match="even for heun, two calls a step: 4 or 6, got 5"):
        budgets("4,5", "heun", 61)
    with pytest.raises(ValueError, match="needs 5 steps and a grid of 5 points has 4"):
        budgets("5", "euler", 5)


def test_names_of_schedules():
    assert schedule_name("poly7") == "polynomial 7"
    assert schedule_name("time_uniform-2") == "time_uniform 2"
    assert schedule_name("gits-1.15-l2") == "gits 1.15 l2"
    assert schedule_name(" ays-sd ") == "ays sd"
    assert coefficient("auto") == "auto"
    assert coefficient("1.15") == 1.15
    check_levels([80.0, 1.0, 0.0])


FIT = ("--model", "digits-gauss10", "--nfe", "4", "--warmup", "4", "--held-out", "4")
SAMPLE = ("--model", "digits-gauss10", "--seeds", "0-1")
BAD = [
    ("fit", ("--nfe", "0"), "--nfe must be >= 1, got 0"),
    ("fit", ("--nfe", "61"), "--nfe 61 needs 61 steps and a grid of 61 points has 60"),
    ("fit", ("--nfe", "1", "--solver", "heun"), "--nfe must be >= 2, got 1"),
    ("fit", ("--nfe", "5", "--solver", "dpm"), "two calls a step: 4 or 6, got 5"),
    ("fit", ("--teacher-points", "1"), "--teacher-points must be >= 2, got 1"),
    ("fit", ("--sigma-min", "0"), "--sigma-min must be > 0, got 0"),
    ("fit", ("--sigma-min", "9", "--sigma-max", "3"), "--sigma-min must be < --sigma-max"),
    ("fit", ("--sigma-max", "99"), "sigma_max must be within the model's 80, got 99"),
    ("fit", ("--coeff", "0"), "--coeff must be auto or a number > 0, got 0"),
    ("fit", ("--coeff", "nan"), "--coeff must be auto or a number > 0, got nan"),
    ("fit", ("--metric", "bdev"), "--metric: expected one of"),
    ("fit", ("--solver", "edm"), "--solver: expected one of"),
    ("fit", ("--order", "5"), "order of ipndm must be 1 to 4, got 5"),
    ("fit", ("--teacher-order", "7"), "order of ipndm must be 1 to 4, got 7"),
    ("fit", ("--afs", "--solver", "heun"), "--afs is for solvers of one call a step"),
    ("fit", ("--thresholding",), "--thresholding is for dpmpp and unipc, not for ipndm"),
    ("fit", ("--form", "noise", "--thresholding"), "--thresholding needs --form data"),
    ("fit", ("--warmup", "0"), "--warmup must be >= 1, got 0"),
    ("fit", ("--held-out", "1"), "--held-out must be >= 2, got 1"),
    ("fit", ("--rho", "0"), "--rho must be > 0"),
    ("fit", ("--batch-size", "0"), "--batch-size must be >= 1, got 0"),
    ("fit", ("--shape", "0"), "--shape must be integers >= 1"),
    ("fit", ("--guidance", "3"), "digits-gauss10: takes no guidance"),
    ("fit", ("--labels", "1", "--prompts", "cat"), "--prompts and --labels exclude each other"),
    ("fit", ("--prompts", "none.txt"), "none.txt: no such file"),
    ("fit", ("--labels", "1", "--negative", "no"), "--negative must be a class label"),
    ("fit", ("--accelerator", "warp"), "warp"),
    ("fit", ("--model", "digits-gaus10"), "did you mean digits-gauss10?"),
    ("fit", ("--model", "no_module:make"), "could not be called (ModuleNotFoundError"),
    ("sample", ("--schedule", "none.json"), "none.json: no such file; give one of gits-sampling"),
    ("sample", (), "carries no schedule; give --schedule FILE or --sigmas"),
    ("sample", ("--sigmas", "80"), "--sigmas must be two or more noise levels, got [80.0]"),
    ("sample", ("--sigmas", "80,9,9,1"), "strictly decreasing, > 0 but for a last 0, got 80,9,9,1"),
    ("sample", ("--sigmas", "80,1,-1"), "strictly decreasing"),
    ("sample", ("--sigmas", "inf,1"), "must be finite"),
    ("sample", ("--sigmas", "90,1"), "outside the model's 80 to 0.002"),
    ("sample", ("--sigmas", "80,1,0.001"), "outside the model's 80 to 0.002"),
    ("sample", ("--sigmas", "80,1", "--schedule", "none.json"), "exclude each other"),
    ("sample", ("--sigmas", "80,1", "--seeds", "5-1"), "--seeds: 5-1 is an empty range"),
    ("sample", ("--sigmas", "80,1", "--seeds", "4294967296"), "--seeds must be < 2^32"),
    ("sample", ("--sigmas", "80,1", "--order", "9"), "order of ipndm must be 1 to 4, got 9"),
    (
        "sample",
        ("--sigmas", "80,1,0", "--denoise-to-zero"),
        "--denoise-to-zero must be off for noise levels that end at 0",
    ),
    ("compare", ("--nfe", "0"), "--nfe must be >= 1, got 0"),
    ("compare", ("--nfe", "70"), "--nfe 70 needs as many steps"),
    ("compare", ("--solvers", "eular"), "did you mean euler?"),
    ("compare", ("--solvers", "heun", "--nfe", "5"), "must leave something to compare"),
    ("compare", ("--schedules", "karras"), "schedules must be of polynomial 7"),
    ("compare", ("--schedules", "gits-0"), "schedules must be of polynomial 7"),
    ("compare", ("--eval-samples", "1"), "--eval-samples must be >= 2, got 1"),
    ("analyze", ("--points", "3"), "--points must be >= 7, got 3"),
    ("analyze", ("--samples", "0"), "--samples must be >= 1, got 0"),
    ("analyze", ("--window", "8"), "--window must be odd and >= 7, got 8"),
    ("analyze", ("--curvature-points", "11"), "--curvature-points must be 0 or at least"),
    ("analyze", ("--data", "nowhere"), "nowhere: no such folder or file"),
    ("train", ("--data", "nowhere"), "nowhere: no such folder or file"),
    ("train", ("--data", "digits", "--nfe", "5", "--solver", "heun"), "two calls a step"),
    ("train", ("--data", "digits", "--width", "4"), "--width must be >= 8, got 4"),
    ("train", ("--data", "digits", "--lr", "0"), "--lr must be > 0, got 0"),
    ("train", ("--data", "digits", "--val-fraction", "1"), "--val-fraction must be in [0, 1)"),
    ("train", ("--data", "digits", "--size", "10"), "must be multiples of 4, got (10, 10)"),
]


@pytest.mark.parametrize(("verb", "words", "message"), BAD)
def test_bad_input_is_one_line_and_code_2(verb, words, message, run):
    first = {"fit": FIT, "sample": SAMPLE, "train": ()}.get(verb, ("--model", "digits-gauss10"))
    code, out, err = run(verb, *first, *words)
    assert (code, out) == (2, "")
    lines = err.strip().splitlines()
    assert lines[-1].startswith(f"gits-sampling-{verb}: error: ")
    assert message in lines[-1]
    assert "Traceback" not in err
    assert not Path("runs").exists()


MODELS = """
import torch

class Model(torch.nn.Module):
    shape, sigma_min, sigma_max = (1, 4, 4), 0.01, 10.0

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, x, sigma):
        return {"still": x, "broken": x * (float("nan") if sigma < 1 else 0.0)}[self.kind]

def still():
    return Model("still")

def broken():
    return Model("broken")

def nothing():
    return None
"""


@pytest.mark.parametrize(
    ("verb", "model", "words", "message"),
    [
        ("fit", "broken", ("--nfe", "3"), "got NaN or inf at step"),
        ("sample", "broken", ("--sigmas", "10,0.5,0.1"), "got NaN or inf at step 1 (sigma 0.5)"),
        ("fit", "still", ("--nfe", "3", "--metric", "dev", "--coeff", "1"), "equal ends"),
        ("analyze", "still", ("--curvature-points", "0"), "must end elsewhere than it starts"),
        ("analyze", "broken", (), "got NaN or inf at step"),
        ("fit", "nothing", (), "must return a denoiser"),
        ("fit", "absent", (), "AttributeError"),
    ],
)
def test_models_that_cannot_be_used(verb, model, words, message, run, tmp_path, monkeypatch):
    (tmp_path / "bad_models.py").write_text(MODELS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "bad_models", raising=False)
    code, _, err = run(verb, "--model", f"bad_models:{model}", *words)
    assert code == 2, err
    assert message in err.strip().splitlines()[-1]


def saved_schedule(path, **values):
    given = {"sigmas": [80.0, 3.0, 0.5, 0.002], "nfe": 3, "solver": "euler"} | values
    Schedule(**given).save(path)
    return path


def test_exporting(run, tmp_path):
    path = saved_schedule(tmp_path / "s.json")
    code, out, _ = run("export", "--schedule", path, "--to", "comfyui", "--out", "c.txt")
    assert code == 0
    assert "ManualSigmas: 80, 3, 0.5, 0" in out
    assert Path("c.txt").read_text() == "80, 3, 0.5, 0\n"
    for end, sigmas in (
        ("append", [80, 3, 0.5, 0.002, 0]),
        ("replace", [80, 3, 0.5, 0]),
        ("keep", [80, 3, 0.5, 0.002]),
    ):
        words = ("--schedule", path, "--to", "kdiffusion", "--end", end, "--out", "k.json")
        code, _, _ = run("export", *words, "--overwrite")
        assert code == 0
        assert json.loads(Path("k.json").read_text())["sigmas"] == pytest.approx(sigmas)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--to", "diffusers"), "--to diffusers needs --model"),
        (("--to", "comfyui", "--model", "."), "--model is for --to diffusers"),
        (("--to", "comfyui", "--end", "keep"), "--end is for --to kdiffusion"),
        (("--to", "comfyui", "--out", "a.json"), "--out must end in .txt for comfyui"),
        (("--to", "kdiffusion", "--out", "s.json"), "s.json: the file exists; pass --overwrite"),
        (("--to", "diffusers", "--model", "gone"), "gone: no such folder"),
        (("--to", "forge"), "--to: expected one of"),
        (("--schedule", "gone.json", "--to", "comfyui"), "gone.json: no such file"),
        (("--schedule", "bad.json", "--to", "comfyui"), "bad.json: not a readable schedule"),
    ],
)
def test_exporting_what_cannot_be(words, message, run, tmp_path):
    path = saved_schedule(tmp_path / "s.json")
    (tmp_path / "bad.json").write_text("{")
    code, _, err = run("export", "--schedule", path, *words)
    assert code == 2
    assert message in err.strip().splitlines()[-1]


@pytest.mark.filterwarnings("ignore:__array_")
def test_exporting_for_diffusers(run, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    beta = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    diffusers.EulerDiscreteScheduler(**beta).save_pretrained(tmp_path / "pipe" / "scheduler")
    table = diffusers.DDPMScheduler(**beta).alphas_cumprod.double()
    levels = [float(((1 - table[k]) / table[k]) ** 0.5) for k in (999, 700, 300, 20)]
    path = saved_schedule(tmp_path / "s.json", sigmas=levels)
    words = ("--to", "diffusers", "--model", "pipe", "--out", "d.json", "--overwrite")
    code, out, _ = run("export", "--schedule", path, *words)
    assert code == 0
    assert "to_diffusers(pipeline.scheduler)" in out
    values = json.loads(Path("d.json").read_text())
    assert values["timesteps"] == [999, 700, 300]
    assert values["sigmas"] == levels
    for bad, message in (
        ([80.0, 3.0, 1.0, 0.1], "outside the model's"),
        ([levels[0], 1.0, 0.9999, 0.1], "have equal ones"),
    ):
        path = saved_schedule(tmp_path / "s.json", sigmas=bad)
        code, _, err = run("export", "--schedule", path, *words)
        assert code == 2
        assert message in err
    (tmp_path / "empty").mkdir()
    code, _, err = run("export", "--schedule", path, "--to", "diffusers", "--model", "empty")
    assert code == 2
    assert "no scheduler_config.json" in err
