import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from papercommons.cli import run_command
from PIL import Image
from rld_distill import cli

COMMANDS = {
    "train": cli.train,
    "teacher": cli.teacher,
    "cache": cli.cache,
    "eval": cli.evaluate,
    "predict": cli.predict,
    "compare": cli.compare,
    "export": cli.export,
    "models": cli.models,
    "loss": cli.loss,
}


def call(verb, *arguments):
    return run_command(COMMANDS[verb], prog=f"rld-distill-{verb}", argv=list(map(str, arguments)))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Three classes of bright squares in three corners, 16 x 16, with noise."""
    generator = np.random.RandomState(0)
    labels = np.arange(90) % 3
    pixels = generator.randint(0, 60, (90, 16, 16), dtype=np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[8 * row : 8 * row + 7, 8 * column : 8 * column + 7] += 150
    path = tmp_path_factory.mktemp("images") / "corners.npz"
    np.savez(path, images=pixels, labels=labels, class_names=np.array(["a", "b", "c"]))
    return str(path)


SMALL = ("--epochs", 2, "--teacher-epochs", 2, "--teacher", "resnet8", "--accelerator", "cpu")


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "rld"
    learn = ("--epochs", 8, "--teacher-epochs", 8, "--batch-size", 16, "--accelerator", "cpu")
    assert call("train", "--data", images, "--out", out, "--teacher", "resnet8", *learn) == 0
    return out


def test_training_leaves_everything_a_run_needs(run):
    made = {path.name for path in run.iterdir()}
    assert made >= {
        *("config.yaml", "metrics.csv", "last.ckpt", "best.ckpt"),
        *("export", "result.json", "report.html", "teacher"),
    }
    result = json.loads((run / "result.json").read_text())
    assert result["metrics"]["accuracy"] > 0.6
    assert result["seed"] == 0
    assert result["data_hash"]
    assert result["versions"]["rld-distill"]
    assert result["limits"]
    assert result["settings"]["loss_options"]["temperature"] == 4.0
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == [str(epoch) for epoch in range(1, 9)]
    assert {"train/scd", "train/mcd", "train/masked", "train/teacher_wrong", "lr"} <= set(rows[0])
    page = (run / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 2
    assert "http" not in page.replace("http-equiv", "")


def test_nothing_is_written_over_unasked(run, images, capsys):
    before = (run / "last.ckpt").stat().st_mtime_ns
    assert call("train", "--data", images, "--out", run, *SMALL) == 2
    assert "folder is not empty; pass --resume last, --overwrite" in capsys.readouterr().err
    assert (run / "last.ckpt").stat().st_mtime_ns == before


def test_the_written_config_repeats_the_run(run, tmp_path, capsys):
    out = tmp_path / "again"
    config = run / "config.yaml"
    assert call("train", "--config", config, "--out", out, "--quiet", "--json") == 0
    printed = capsys.readouterr()
    again = json.loads(printed.out)
    assert printed.err == ""
    first = json.loads((run / "result.json").read_text())
    assert again["metrics"]["accuracy"] == first["metrics"]["accuracy"]
    assert again["metrics"]["nll"] == first["metrics"]["nll"]
    settings = yaml.safe_load((out / "config.yaml").read_text())
    assert {**settings, "out": 0} == {**yaml.safe_load(config.read_text()), "out": 0}


def test_resume_with_another_method_is_refused(run, images, capsys):
    arguments = ("--out", run, *SMALL, "--resume", "last")
    assert call("train", "--data", images, *arguments, "--method", "kd") == 2
    assert "cannot resume: method was 'rld' and is now 'kd'" in capsys.readouterr().err


def test_dry_run_writes_nothing(images, tmp_path):
    out = tmp_path / "dry"
    assert call("train", "--data", images, "--out", out, *SMALL, "--dry-run") == 0
    assert not out.exists()


def test_eval_repeats_the_training_report(run, images, tmp_path, capsys):
    arguments = ("--data", images, "--checkpoint", run, "--teacher", run / "teacher")
    assert call("eval", *arguments, "--out", tmp_path / "eval", "--json") == 0
    numbers = json.loads(capsys.readouterr().out)["metrics"]
    trained = json.loads((run / "result.json").read_text())["metrics"]
    for name in ("accuracy", "nll", "ece", "agreement", "teacher_accuracy"):
        assert numbers[name] == pytest.approx(trained[name], abs=1e-5), name
    assert (tmp_path / "eval" / "report.html").is_file()
    with (tmp_path / "eval" / "items.csv").open() as file:
        rows = list(csv.DictReader(file))
    right = [row["label"] == row["prediction"] for row in rows]
    assert len(rows) == numbers["images"]
    assert np.mean(right) == pytest.approx(numbers["accuracy"])
    assert call("eval", *arguments, "--split", "all", "--json") == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["images"] == 90


def test_predict_names_classes_and_keeps_the_order(run, images, tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    arrays = np.load(images)
    for i in range(9):
        Image.fromarray(arrays["images"][i]).save(folder / f"{i}.png")
    (folder / "broken.png").write_bytes(b"no image")
    assert call("predict", folder, "--checkpoint", run) == 2
    assert "broken.png: not a readable image" in capsys.readouterr().err
    out = tmp_path / "predictions"
    assert call("predict", folder, "--checkpoint", run, "--out", out, "--skip-bad") == 0
    assert "left out: " in capsys.readouterr().out
    with (out / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["path"]).name for row in rows] == [f"{i}.png" for i in range(9)]
    assert all(row["prediction"] in "abc" and 0 < float(row["probability"]) <= 1 for row in rows)
    assert all(row["top5"].startswith(row["prediction"] + ":") for row in rows)


def test_compare_gives_mean_spread_and_test_and_goes_on(images, tmp_path, capsys):
    out = tmp_path / "compare"
    arguments = ("--data", images, "--out", out, "--methods", "ce,rld", "--seeds", "0,1", *SMALL)
    assert call("compare", *arguments) == 0
    result = json.loads((out / "result.json").read_text())
    ce, rld = result["rows"]
    assert (ce["method"], rld["method"], rld["seeds"]) == ("ce", "rld", 2)
    accuracies = result["metrics"]["accuracy"]["ce"]
    assert ce["accuracy"] == pytest.approx(np.mean(accuracies))
    assert ce["std"] == pytest.approx(np.std(accuracies, ddof=1))
    assert ce["minus rld"] == pytest.approx(ce["accuracy"] - rld["accuracy"])
    assert "Fewer than 3 seeds" in capsys.readouterr().out
    assert len((out / "comparison.csv").read_text().splitlines()) == 3
    assert (out / "comparison.md").read_text().startswith("| method | seeds |")
    finished = (out / "ce-seed1" / "summary.json").stat().st_mtime_ns
    (out / "rld-seed1" / "summary.json").unlink()
    assert call("compare", *arguments, "--resume", "last") == 0
    assert (out / "ce-seed1" / "summary.json").stat().st_mtime_ns == finished
    again = json.loads((out / "result.json").read_text())
    assert again["metrics"]["accuracy"] == result["metrics"]["accuracy"]


def test_compare_tunes_every_method_on_val(images, tmp_path):
    out = tmp_path / "tuned"
    arguments = ("--methods", "kd", "--seeds", "0", "--tune", 2, "--reference", "kd", *SMALL)
    assert call("compare", "--data", images, "--out", out, *arguments, "--val-fraction", 0.2) == 0
    assert len(list((out / "tune").iterdir())) == 2
    assert json.loads((out / "result.json").read_text())["rows"][0]["weights"] == "tuned"


@pytest.mark.skipif(torch.__version__.startswith("2.6."), reason="its ONNX exporter fails")
def test_export_is_checked_against_torch(run, tmp_path, capsys):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    out = tmp_path / "exported"
    assert call("export", "--checkpoint", run, "--out", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["onnx_largest_difference"] < 1e-3
    assert {p.name for p in out.iterdir()} == {
        *("model.safetensors", "config.json", "README.md", "model.onnx"),
        *("config.yaml", "result.json"),
    }
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    for batch in (1, 7):
        shape = (batch, 3, 16, 16)
        got = session.run(None, {"images": np.zeros(shape, np.float32)})[0]
        assert got.shape == (batch, 3)


def test_models_lists_the_zoo(capsys):
    assert call("models", "--json") == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert len(rows) == 26
    assert {"name": "resnet8x4", "parameters": 1233540} in rows


def test_loss_command_is_the_parity_entry(shared_files, tmp_path, capsys):
    cases = np.load(shared_files / "parity" / "rld-distill" / "rld_loss.npz")
    file = tmp_path / "case.npz"
    inputs = {name: cases[f"cifar_same_t/{name}"] for name in ("student", "teacher", "target")}
    np.savez(file, **inputs)
    assert call("loss", "--file", file, "--json") == 0
    printed = json.loads(capsys.readouterr().out)["metrics"]
    assert printed["loss"] == pytest.approx(float(cases["cifar_same_t/loss"]), rel=2e-5)
    inputs["target"][3] = 1000
    np.savez(file, **inputs)
    assert call("loss", "--file", file) == 2
    assert "got 1000 in sample 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--student", "resnet9"), "unknown network 'resnet9'; did you mean resnet8"),
        (("--method", "rdl"), "--method: expected one of"),
        (("--temperature", 0), "temperature must be"),
        (("--alpha", -1), "alpha must be"),
        (("--warmup-epochs", -1), "--warmup-epochs must be >= 0, got -1"),
        (("--epochs", 0), "--epochs must be >= 1, got 0"),
        (("--teacher-epochs", 0), "--teacher-epochs must be >= 1, got 0"),
        (("--lr", -1), "--lr must be > 0, got -1"),
        (("--momentum", 1), "--momentum must be in [0, 1), got 1"),
        (("--val-fraction", 1), "--val-fraction must be in [0, 1), got 1"),
        (("--method", "kd", "--beta", 2), "method kd has no option beta"),
        (("--teacher", "no/where"), "no/where: no saved network"),
        (("--teacher-checkpoint", "no.pt"), "--teacher-checkpoint needs the network's name"),
        (("--teacher", "resnet8", "--teacher-checkpoint", "no.pt"), "no.pt: no such file"),
        (("--teacher", "torchvision:resnet18"), "tell 1000 classes apart, the data have 3"),
        (("--teacher-cache", "no.safetensors"), "no.safetensors: no such file"),
        (("--teacher-mean", "1,2"), "--teacher-mean must be three numbers"),
        (("--preset", "papr"), "--preset: expected one of"),
        (("--epochs", "many"), "--epochs: expected int, got 'many'"),
        (("--tempreature", 2), "no option --tempreature; did you mean --temperature"),
        (("--size", 0), "--size must be >= 4, got 0"),
        (("--batch-size", 0), "--batch-size must be >= 1, got 0"),
    ],
)
def test_wrong_arguments_are_one_line(images, tmp_path, capsys, arguments, message):
    out = tmp_path / "out"
    assert call("train", "--data", images, "--out", out, "--quiet", *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("rld-distill-train: error: ")
    assert message in error
    assert error.count("\n") == 1


def test_teacher_of_other_classes_is_refused(run, tmp_path, capsys):
    arguments = ("--data", "digits", "--teacher", run, "--out", tmp_path / "x", "--quiet")
    assert call("train", *arguments) == 2
    assert "teacher knows 3 classes, the data have 10" in capsys.readouterr().err
    assert call("eval", "--data", "digits", "--checkpoint", run, "--quiet") == 2
    assert "knows 3 classes (a, b, c, ...), the data have 10" in capsys.readouterr().err


def test_checkpoint_with_other_names_lists_five(images, tmp_path, capsys):
    file = tmp_path / "other.pt"
    torch.save({"state_dict": {"module.a": torch.zeros(2)}}, file)
    arguments = ("--teacher", "resnet8", "--teacher-checkpoint", file, "--quiet")
    assert call("train", "--data", images, "--out", tmp_path / "x", *arguments) == 2
    error = capsys.readouterr().err
    assert "missing" in error
    assert "bn1.bias" in error or "bn1.weight" in error
    assert "unexpected 1 (a)" in error


def test_published_checkpoint_layout_is_a_teacher(run, images, tmp_path):
    from rld_distill import create_model

    file = tmp_path / "ckpt_epoch_240.pth"
    torch.save({"epoch": 240, "model": create_model("resnet8", 3).state_dict()}, file)
    arguments = ("--teacher", "resnet8", "--teacher-checkpoint", file, "--epochs", 1)
    out = tmp_path / "out"
    assert call("train", "--data", images, "--out", out, *arguments, "--accelerator", "cpu") == 0
    assert not (out / "teacher").exists()


def test_help_and_errors_need_no_torch():
    code = (
        "import sys\n"
        "from papercommons.cli import build_parser, run_command\n"
        "from rld_distill import cli\n"
        "import rld_distill\n"
        "for f in (cli.train, cli.teacher, cli.cache, cli.evaluate, cli.predict, cli.compare,\n"
        "          cli.export, cli.models, cli.loss):\n"
        "    assert '--json' in build_parser(f, 'x').format_help()\n"
        "assert run_command(cli.train, prog='x', argv=['--data', 'nowhere']) == 2\n"
        "heavy = {'torch', 'lightning', 'timm', 'numpy', 'sklearn', 'matplotlib'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_lightning_cli_stays_reachable(monkeypatch):
    from rld_distill.__main__ import main

    monkeypatch.setattr(sys, "argv", ["rld_distill", "fit", "--help"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0


def test_a_teacher_trained_first_keeps_its_own_recipe(images, tmp_path):
    out = tmp_path / "out"
    arguments = ("--student", "ShuffleV1", "--teacher", "resnet8", "--teacher-epochs", 8)
    few = ("--epochs", 1, "--lr-milestones", 1, "--accelerator", "cpu")
    assert call("train", "--data", images, "--out", out, *arguments, *few) == 0
    with (out / "teacher" / "metrics.csv").open() as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    assert rates == pytest.approx([0.05] * 5 + [0.005, 0.0005, 0.00005])


def test_plain_training_is_judged_beside_a_teacher_that_is_named(run, images, tmp_path):
    out = tmp_path / "out"
    arguments = ("--method", "ce", "--teacher", run, "--epochs", 1, "--accelerator", "cpu")
    assert call("train", "--data", images, "--out", out, *arguments) == 0
    assert "agreement" in json.loads((out / "result.json").read_text())["metrics"]
