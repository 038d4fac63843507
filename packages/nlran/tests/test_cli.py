import csv
import dataclasses
import json
import shutil
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import torch
import yaml
from nlran import cli
from nlran.__main__ import main
from nlran.phantoms import write_phantoms
from papercommons.cli import run_command
from safetensors.torch import load_file

COMMANDS = {
    "train": cli.train,
    "eval": cli.evaluate,
    "predict": cli.predict,
    "explain": cli.explain,
    "audit": cli.audit,
    "inspect": cli.inspect,
    "phantoms": cli.phantoms,
}
SMALL = ("--size", "32,32,32", "--batch-size", 6, "--accelerator", "cpu")


def call(verb, *arguments):
    return run_command(COMMANDS[verb], prog=f"nlran-{verb}", argv=list(map(str, arguments)))


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, 18, size=24)
    return folder


@pytest.fixture(scope="module")
def run(phantoms, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "nlran"
    split = ("--val", 0.2, "--test", 0.2)
    assert (
        call("train", "--data", phantoms / "ct", "--out", out, "--epochs", 2, *SMALL, *split) == 0
    )
    return out


def test_training_leaves_everything_a_run_needs(run):
    made = {path.name for path in run.iterdir()}
    assert made >= {
        *("config.yaml", "metrics.csv", "splits.csv", "last.ckpt", "best.ckpt", "export"),
        *("result.json", "report.html", "predictions.csv", "confusion.csv", "cache"),
    }
    result = json.loads((run / "result.json").read_text())
    assert result["versions"]["nlran"]
    assert result["seed"] == 0
    assert result["metrics"]["scans"] == {"train": 12, "val": 3, "test": 3}
    assert "not a medical device" in result["limits"]
    assert "not a medical device" in (run / "report.html").read_text()
    with (run / "splits.csv").open() as file:
        rows = list(csv.DictReader(file))
    patients = {}
    for row in rows:
        patients.setdefault(row["patient"], set()).add(row["split"])
    assert len(rows) == 18
    assert all(len(splits) == 1 for splits in patients.values())


def test_a_run_is_not_overwritten_unasked(run, phantoms, capsys):
    assert call("train", "--data", phantoms / "ct", "--out", run, *SMALL) == 2
    assert "folder is not empty; pass --resume last, --overwrite" in capsys.readouterr().err


def test_evaluation_repeats_the_numbers_of_training(run, phantoms, tmp_path):
    out = tmp_path / "eval"
    arguments = ("--checkpoint", run, "--accelerator", "cpu", "--out", out)
    assert call("eval", "--data", phantoms / "ct", *arguments) == 0
    trained = json.loads((run / "result.json").read_text())["metrics"]
    judged = json.loads((out / "result.json").read_text())["metrics"]
    for name in ("accuracy", "macro_auc", "nll", "ece"):
        assert judged[name] == pytest.approx(trained[name], abs=1e-6)
    assert (out / "predictions.csv").read_text() == (run / "predictions.csv").read_text()


def test_evaluation_of_strange_scans_needs_split_all(run, tmp_path, capsys):
    write_phantoms(tmp_path, 6, seed=9, size=24)
    arguments = ("--data", tmp_path / "ct", "--checkpoint", run / "export", "--accelerator", "cpu")
    assert call("eval", *arguments) == 2
    assert "pass --split all" in capsys.readouterr().err
    assert call("eval", *arguments, "--split", "all", "--json") == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["scans"] == 6


def test_a_resumed_run_ends_where_the_unbroken_one_does(phantoms, tmp_path, monkeypatch):
    arguments = ("--data", phantoms / "ct", "--split", "none", "--epochs", 3, *SMALL)
    assert call("train", *arguments, "--out", tmp_path / "whole") == 0
    from nlran.lightning import NLRANModule

    ends = NLRANModule.on_train_epoch_end

    def stop(self):
        ends(self)
        if self.current_epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(NLRANModule, "on_train_epoch_end", stop)
    assert call("train", *arguments, "--out", tmp_path / "broken") == 1
    monkeypatch.undo()
    assert call("train", *arguments, "--out", tmp_path / "broken", "--resume", "last") == 0
    weights = [
        torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "broken")
    ]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_without_held_out_scans_the_report_says_so_loudly(phantoms, tmp_path, capsys):
    out = tmp_path / "run"
    arguments = ("--data", phantoms / "ct", "--out", out, "--epochs", 1, *SMALL)
    assert call("train", *arguments, "--split", "none") == 0
    said = capsys.readouterr()
    assert "NO SCANS WERE HELD OUT" in said.err
    assert "NO SCANS WERE HELD OUT" in said.out
    assert "NO SCANS WERE HELD OUT" in (out / "report.html").read_text()
    assert not (out / "best.ckpt").exists()


def test_a_dry_run_writes_nothing(phantoms, tmp_path):
    out = tmp_path / "run"
    assert call("train", "--data", phantoms / "ct", "--out", out, *SMALL, "--dry-run") == 0
    assert not out.exists()


@pytest.mark.parametrize("model", ["ran3d", "cbam3d", "covnet"])
def test_comparison_networks_train_by_name(phantoms, tmp_path, model):
    size = "0,16,16" if model == "covnet" else "16,16,16"
    arguments = ("--data", phantoms / "ct", "--split", "none", "--limit", 3, "--size", size)
    run = ("--epochs", 1, "--batch-size", 3, "--accelerator", "cpu", "--out", tmp_path / "run")
    assert call("train", *arguments, *run, "--model", model) == 0
    scan = next((phantoms / "ct" / "CP").iterdir())
    found = ("--checkpoint", tmp_path / "run", "--out", tmp_path / "p", "--accelerator", "cpu")
    assert call("predict", scan, *found) == 0


def test_prediction_writes_a_heat_map_on_the_grid_of_each_scan(run, phantoms, tmp_path, capsys):
    out = tmp_path / "p"
    arguments = ("--checkpoint", run, "--out", out, "--accelerator", "cpu", "--json")
    assert call("predict", phantoms / "ct" / "CP", *arguments) == 0
    result = json.loads(capsys.readouterr().out)
    scans = sorted((phantoms / "ct" / "CP").iterdir())
    with (out / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == list(map(str, scans))
    assert all("not a medical device" in row["use"] for row in rows)
    for scan, row in zip(scans, rows, strict=True):
        own, heat = nibabel.load(scan), nibabel.load(out / row["heat map"])
        assert heat.shape == own.shape
        np.testing.assert_allclose(heat.affine, own.affine)
        values = heat.get_fdata()
        assert values.min() >= 0
        assert 0.8 < values.max() <= 1
        assert b"research use only" in bytes(heat.header["descrip"])
        assert sum(float(row[f"p({c})"]) for c in ("NCP", "CP", "Normal")) == pytest.approx(
            1, abs=1e-5
        )
        page = (out / row["page"]).read_text()
        assert "not a medical device" in page
        assert "http" not in page
    assert result["metrics"]["scans"] == 6


def test_prediction_goes_on_where_it_was_interrupted(run, phantoms, tmp_path, monkeypatch):
    import nlran.predicting

    out, calls = tmp_path / "p", []
    explain = nlran.predicting.explain_scan

    def counted(network, scan, *arguments, **options):
        calls.append(scan)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return explain(network, scan, *arguments, **options)

    monkeypatch.setattr(nlran.predicting, "explain_scan", counted)
    arguments = (phantoms / "ct" / "CP", "--checkpoint", run, "--out", out, "--no-controls")
    assert call("predict", *arguments, "--accelerator", "cpu") == 1
    assert call("predict", *arguments, "--accelerator", "cpu", "--resume") == 0
    assert len(calls) == 7
    changed = phantoms / "ct" / "CP" / "extra.nii.gz"
    changed.write_bytes(next((phantoms / "ct" / "NCP").iterdir()).read_bytes())
    assert call("predict", *arguments, "--accelerator", "cpu", "--resume") == 0
    changed.unlink()
    assert len(calls) == 8
    assert len((out / "predictions.csv").read_text().splitlines()) == 8


def test_a_broken_scan_stops_prediction_or_is_named_and_skipped(run, phantoms, tmp_path, capsys):
    scans = tmp_path / "scans"
    scans.mkdir()
    good = next((phantoms / "ct" / "CP").iterdir())
    (scans / "good.nii.gz").write_bytes(good.read_bytes())
    (scans / "bad.nii.gz").write_bytes(good.read_bytes()[:2000])
    arguments = (scans, "--checkpoint", run, "--accelerator", "cpu")
    assert call("predict", *arguments, "--out", tmp_path / "a") == 2
    assert "bad.nii.gz" in capsys.readouterr().err
    assert call("predict", *arguments, "--out", tmp_path / "b", "--skip-bad") == 0
    said = capsys.readouterr()
    assert "left out:" in said.out
    assert "bad.nii.gz" in said.out


def test_cam_explains_the_class_that_is_asked_for(run, phantoms, tmp_path):
    scan = next((phantoms / "ct" / "CP").iterdir())
    maps = []
    for name in ("NCP", "Normal"):
        out = tmp_path / name
        arguments = ("--checkpoint", run, "--out", out, "--accelerator", "cpu", "--overlay", "none")
        assert call("predict", scan, *arguments, "--heatmap", "cam", "--explain-class", name) == 0
        assert not list(out.rglob("*.png"))
        maps.append(nibabel.load(next(out.glob("scans/*.nii.gz"))).get_fdata())
    assert np.abs(maps[0] - maps[1]).max() > 0.1


def test_explain_scores_every_map_with_masks_and_slices(run, phantoms, tmp_path, capsys):
    table = {
        path.name.removesuffix(".nii.gz"): [3, 4, 5] for path in (phantoms / "ct").rglob("*.gz")
    }
    (tmp_path / "slices.json").write_text(json.dumps(table))
    arguments = ("--checkpoint", run, "--masks", phantoms / "masks" / "CP", "--accelerator", "cpu")
    more = ("--slices", tmp_path / "slices.json", "--steps", 3, "--out", tmp_path / "x", "--json")
    assert call("explain", phantoms / "ct" / "CP", *arguments, *more) == 0
    result = json.loads(capsys.readouterr().out)
    rows = {row["map"]: row for row in result["rows"]}
    assert set(rows) == {
        *("mask", "mask-trunk", "trunk", "cam", "gradcam", "gradcam-stage1", "nonlocal"),
        *("random", "centre of lung"),
    }
    assert result["data_hash"]
    for name, row in rows.items():
        assert 0 <= row["pointing"] <= 1
        assert 0 <= row["slice_auc"] <= 1
        assert (row["like untrained"] is None) == (name in ("random", "centre of lung"))
        assert (row["insertion"] is None) == (name == "centre of lung")
    assert (tmp_path / "x" / "report.html").is_file()


def test_explain_finds_a_map_that_is_the_lesion(run, phantoms, tmp_path, monkeypatch, capsys):
    """With the lesions themselves as a map every score is 1, whatever the file's order."""
    import nlran.localizing
    from nlran.prepare import GridMap, read_mask

    folder = phantoms / "ct" / "CP"
    scans, explain = sorted(folder.iterdir()), nlran.localizing.explain_scan

    def perfect(network, path, *arguments, **options):
        found = explain(network, path, *arguments, **options)
        lesion = read_mask(phantoms / "masks" / "CP" / path.name, found.volume)
        same, shape = (1.0, 1.0, 1.0), found.volume.array.shape
        grid = GridMap(same, (0.0, 0.0, 0.0), shape, shape)
        return dataclasses.replace(found, grid=grid, maps={"mask": lesion.astype(np.float32)})

    monkeypatch.setattr(nlran.localizing, "explain_scan", perfect)
    arguments = ("--checkpoint", run, "--masks", phantoms / "masks", "--steps", 0)
    assert call("explain", folder.parent, *arguments, "--accelerator", "cpu", "--json") == 2
    assert "both be the mask of" not in capsys.readouterr().err
    arguments = ("--checkpoint", run, "--masks", phantoms / "masks" / "CP", "--steps", 0)
    assert call("explain", *scans, *arguments, "--accelerator", "cpu", "--json") == 0
    rows = {row["map"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    for score in ("pointing", "top_k_iou", "energy_inside", "average_precision"):
        assert rows["mask"][score] == pytest.approx(1)
        assert rows["random"][score] < 0.5


def test_a_command_does_not_overwrite_what_it_reads(run, phantoms, capsys):
    before = sorted(run.rglob("*"))
    for verb, given in (("predict", (phantoms / "ct" / "CP",)), ("explain", (phantoms / "ct",))):
        arguments = (*given, "--checkpoint", run / "export", "--out", run, "--overwrite")
        assert call(verb, *arguments) == 2
        assert "--overwrite would delete" in capsys.readouterr().err
    assert sorted(run.rglob("*")) == before


def test_a_failed_start_does_not_block_the_next(run, phantoms, tmp_path):
    (tmp_path / "bad.nii.gz").write_bytes(b"x")
    out = tmp_path / "p"
    arguments = ("--checkpoint", run, "--out", out, "--accelerator", "cpu")
    assert call("predict", tmp_path / "bad.nii.gz", *arguments) == 2
    assert call("predict", next((phantoms / "ct" / "CP").iterdir()), *arguments) == 0


@pytest.mark.parametrize(("split", "said"), [("train", "THESE ARE"), ("all", "12 OF 18 SCANS ARE")])
def test_evaluating_training_scans_is_said_loudly(run, phantoms, split, said, capsys):
    arguments = ("--data", phantoms / "ct", "--checkpoint", run, "--accelerator", "cpu")
    assert call("eval", *arguments, "--split", split) == 0
    assert said in capsys.readouterr().out


def test_the_model_card_says_what_it_was_trained_on(run):
    card = " ".join((run / "export" / "README.md").read_text().split())
    assert "trained on 4 NCP, 4 CP, 4 Normal, split by patient, 3 test scans" in card


def test_a_scan_is_no_lesion_mask(run, phantoms, capsys):
    arguments = ("--checkpoint", run, "--masks", phantoms / "ct" / "CP", "--accelerator", "cpu")
    assert call("explain", phantoms / "ct" / "CP", *arguments) == 2
    assert "expected a mask" in capsys.readouterr().err


def test_inspect_says_what_a_scan_is(phantoms, capsys):
    assert call("inspect", phantoms / "ct" / "CP", "--json") == 0
    (first, *_) = json.loads(capsys.readouterr().out)["rows"]
    assert (first["slices"], first["units"], first["kind"]) == (24, "HU", "nifti")


def test_audit_writes_a_report_and_does_not_overwrite_it(phantoms, tmp_path, capsys):
    arguments = ("--data", phantoms / "ct", "--out", tmp_path / "a", "--limit", 3)
    assert call("audit", *arguments, "--json") == 0
    assert json.loads(capsys.readouterr().out)["command"] == "nlran-audit"
    assert call("audit", *arguments) == 2
    assert call("audit", *arguments, "--overwrite") == 0


def test_best_is_chosen_on_val_and_is_what_is_exported(phantoms, tmp_path, monkeypatch):
    """The second epoch is forced to be the best; the last one's weights are others."""
    from nlran.lightning import NLRANModule

    out = tmp_path / "run"
    log = NLRANModule.log_dict

    def judged(self, numbers, **options):
        best = 1.0 if self.current_epoch == 1 else 0.1
        log(self, {k: best if k == "val/auc" else v for k, v in numbers.items()}, **options)

    monkeypatch.setattr(NLRANModule, "log_dict", judged)
    arguments = ("--data", phantoms / "ct", "--out", out, "--epochs", 9, "--patience", 2)
    assert call("train", *arguments, *SMALL, "--val", 0.2, "--test", 0.2) == 0
    history = list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))
    assert len(history) == 4  # the best was the second, and patience is two
    best, last = (
        torch.load(out / name, weights_only=True)["state_dict"]
        for name in ("best.ckpt", "last.ckpt")
    )
    exported = load_file(out / "export" / "model.safetensors")
    assert torch.equal(exported["head.weight"], best["network.head.weight"])
    assert not torch.equal(exported["head.weight"], last["network.head.weight"])


def test_balanced_weights_are_higher_for_rarer_classes(phantoms, tmp_path):
    data = tmp_path / "data"
    for name, count in (("NCP", 4), ("CP", 2), ("Normal", 2)):
        (data / name).mkdir(parents=True)
        for path in sorted((phantoms / "ct" / name).iterdir())[:count]:
            (data / name / path.name).write_bytes(path.read_bytes())
    arguments = ("--data", data, "--split", "none", "--epochs", 1, "--class-weights", "balanced")
    assert call("train", *arguments, *SMALL, "--out", tmp_path / "run") == 0
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert state["hyper_parameters"]["class_weights"] == pytest.approx([2 / 3, 4 / 3, 4 / 3])


def test_a_set_that_lacks_a_class_is_judged_with_the_macro_numbers_undefined(
    run, phantoms, tmp_path, capsys
):
    for name in ("NCP", "Normal"):
        (tmp_path / name).mkdir()
        path = next((phantoms / "ct" / name).iterdir())
        (tmp_path / name / path.name).write_bytes(path.read_bytes())
    arguments = ("--data", tmp_path, "--checkpoint", run, "--split", "all", "--accelerator", "cpu")
    assert call("eval", *arguments, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["metrics"]["macro_auc"] is None
    assert any("macro numbers are not defined" in note for note in result["notes"])
    assert [row["scans"] for row in result["metrics"]["per_class"]] == [1, 0, 1]


def test_evaluation_says_sensitivity_at_the_specificity_asked_for(run, phantoms, capsys):
    arguments = ("--data", phantoms / "ct", "--checkpoint", run, "--accelerator", "cpu")
    assert call("eval", *arguments, "--split", "train", "--specificity", "0.5") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.count("at 50% specificity (a point of the ROC curve of these scans") == 3


def test_a_run_is_not_resumed_with_other_scans(phantoms, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(phantoms / "ct", data)
    arguments = ("--data", data, "--out", tmp_path / "run", "--epochs", 1, *SMALL)
    assert call("train", *arguments, "--val", 0.2, "--test", 0.2) == 0
    (data / "CP" / "new.nii.gz").write_bytes(b"")
    more = next((phantoms / "ct" / "Normal").iterdir()).read_bytes()
    (data / "CP" / "new.nii.gz").write_bytes(more[:-1])
    next((data / "NCP").iterdir()).unlink()
    assert call("train", *arguments, "--val", 0.2, "--test", 0.2, "--resume", "last") == 2
    assert "splits.csv" in capsys.readouterr().err


def test_a_lung_mask_for_several_scans_is_refused(run, phantoms, tmp_path, capsys):
    mask = next((phantoms / "masks" / "CP").iterdir())
    arguments = ("--checkpoint", run, "--out", tmp_path / "p", "--lung-mask", mask)
    assert call("predict", phantoms / "ct" / "CP", *arguments) == 2
    assert "one mask for 6 scans" in capsys.readouterr().err


def test_a_batch_of_one_on_one_voxel_is_told_before_training(phantoms, tmp_path, capsys):
    arguments = ("--data", phantoms / "ct", "--split", "none", "--size", "16,16,16")
    assert call("train", *arguments, "--batch-size", 17, "--out", tmp_path / "r") == 2
    assert "pass --norm group" in capsys.readouterr().err


def test_phantoms_are_ready_to_train_on(tmp_path, capsys):
    out = tmp_path / "p"
    assert call("phantoms", "--out", out, "--count", 6, "--size", 24) == 0
    assert len(list((out / "ct").rglob("*.nii.gz"))) == 6
    assert call("phantoms", "--out", out, "--count", 6) == 2
    assert "folder is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        ("train", ("--data", "nowhere"), "nowhere: no such folder"),
        ("train", ("--data", ".", "--size", "8,16,16"), "--size must be >= 16"),
        ("train", ("--data", ".", "--size", "16,16"), "--size must be 3 numbers"),
        ("train", ("--data", ".", "--window", "400,-1000"), "--window must rise"),
        ("train", ("--data", ".", "--model", "nlrann"), "did you mean nlran"),
        (
            "train",
            ("--data", ".", "--model", "covnet", "--norm", "group"),
            "--norm is an option of",
        ),
        ("train", ("--data", ".", "--val", "0.9", "--test", "0.2"), "sum to less than 1"),
        ("train", ("--data", ".", "--limit", "0"), "--limit must be >= 1"),
        ("train", ("--data", ".", "--manifest", "no.csv"), "no.csv: no such file"),
        ("train", ("--data", ".", "--lung-mask", "no"), "no: no such folder"),
        ("train", ("--data", ".", "--dropout", "1"), "--dropout must be in"),
        ("train", ("--data", ".", "--spacing", "0,1,1"), "--spacing must be > 0"),
        ("eval", ("--data", ".", "--checkpoint", "no"), "no: no saved network"),
        ("predict", (), "give scans or folders"),
        ("predict", ("x", "--checkpoint", "no"), "no: no saved network"),
        ("explain", (), "give scans or folders"),
        ("inspect", (), "give scans or folders"),
        ("inspect", ("nowhere.nii",), "nowhere.nii: no such file"),
        ("train", ("--data", ".", "--size", "0,16,16"), "depth 0 is for covnet"),
        ("train", ("--data", ".", "--stem-stride", "2,2"), "--stem-stride must be 3 numbers"),
        ("train", ("--data", ".", "--non-local-after", "9"), "must name stages 1 to 4"),
        ("train", ("--data", ".", "--pretrained"), "no published weights for nlran"),
        ("train", ("--data", "."), "no scans in it"),
        ("audit", ("--data", "nowhere"), "nowhere: no such folder"),
        ("phantoms", ("--out", "x", "--count", "2"), "count must be >= 3"),
    ],
)
def test_bad_arguments_are_one_line(verb, arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if verb in ("predict", "explain") and "--checkpoint" not in arguments:
        arguments = (*arguments, "--checkpoint", "no")
    assert call(verb, *arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"nlran-{verb}: error: ")
    assert message in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--heatmap", "mask"), "--heatmap mask: plain3d has cam, gradcam"),
        (("--explain-class", "X"), "--explain-class X: there are NCP, CP, Normal"),
    ],
)
def test_what_a_network_lacks_is_named(options, message, phantoms, tmp_path, capsys):
    arguments = ("--data", phantoms / "ct", "--split", "none", "--limit", 3, "--epochs", 1)
    out = tmp_path / "run"
    assert call("train", *arguments, *SMALL, "--out", out, "--model", "plain3d") == 0
    scan = next((phantoms / "ct" / "CP").iterdir())
    assert call("predict", scan, "--checkpoint", out, "--out", tmp_path / "p", *options) == 2
    assert message in capsys.readouterr().err


def test_the_run_is_told_by_its_config(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["size"] == [32, 32, 32]
    assert config["preset"] == "quick"
    assert config["variant"] == "tiny"


def test_help_and_errors_need_no_torch():
    code = (
        "import sys\n"
        "from papercommons.cli import build_parser, run_command\n"
        "from nlran import cli\n"
        "import nlran\n"
        "for f in (cli.train, cli.evaluate, cli.predict, cli.explain, cli.audit, cli.inspect,\n"
        "          cli.phantoms):\n"
        "    text = ' '.join(build_parser(f, 'x').format_help().split())\n"
        "    assert '--json' in text\n"
        "    assert f in (cli.audit, cli.inspect, cli.phantoms) or 'esearch use only' in text\n"
        "assert run_command(cli.train, prog='x', argv=['--data', 'nowhere']) == 2\n"
        "heavy = {'torch', 'lightning', 'nibabel', 'pydicom', 'numpy', 'scipy', 'matplotlib'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_lightning_cli_stays_reachable(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nlran", "fit", "--help"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
