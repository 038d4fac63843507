import json
import subprocess
import sys

import pytest
from nlran.__main__ import main


def test_inspect_says_what_a_scan_is(call, phantoms, capsys):
    assert call("inspect", phantoms / "ct" / "CP", "--json") == 0
    (first, *_) = json.loads(capsys.readouterr().out)["rows"]
    assert (first["slices"], first["units"], first["kind"]) == (24, "HU", "nifti")


def test_audit_writes_a_report_and_does_not_overwrite_it(call, phantoms, tmp_path, capsys):
    arguments = ("--data", phantoms / "ct", "--out", tmp_path / "a", "--limit", 3)
    assert call("audit", *arguments, "--json") == 0
    assert json.loads(capsys.readouterr().out)["command"] == "nlran-audit"
    assert call("audit", *arguments) == 2
    assert call("audit", *arguments, "--overwrite") == 0


def test_phantoms_are_ready_to_train_on(call, tmp_path, capsys):
    out = tmp_path / "p"
    assert call("phantoms", "--out", out, "--count", 6, "--size", 24) == 0
    assert len(list((out / "ct").rglob("*.nii.gz"))) == 6
    result = json.loads((out / "result.json").read_text())
    assert [row["scans"] for row in result["rows"]] == [2, 2, 2]
    assert result["data_hash"]
    assert (out / "report.html").is_file()
    assert call("phantoms", "--out", out, "--count", 6) == 2
    assert "folder is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        ("train", ("--data", "nowhere"), "nowhere: no such folder"),
        ("train", ("--data", ".", "--size", "8,16,16"), "--size must be >= 16"),
        ("train", ("--data", ".", "--size", "16,16"), "--size must be 3 numbers"),
        ("train", ("--data", ".", "--window", "400,-1000"), "--window must rise"),
        ("train", ("--data", ".", "--network", "nlrann"), "did you mean nlran"),
        (
            "train",
            ("--data", ".", "--network", "covnet", "--norm", "group"),
            "--norm is an option of",
        ),
        (
            "train",
            ("--data", ".", "--val-fraction", "0.9", "--test-fraction", "0.2"),
            "sum to less than 1",
        ),
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
        ("phantoms", ("--out", "x", "--count", "2"), "--count must be >= 3, got 2"),
        ("phantoms", ("--out", "x", "--size", "8"), "--size must be >= 16, got 8"),
        ("train", ("--data", ".", "--lr", "-1"), "--lr must be > 0, got -1"),
        ("train", ("--data", ".", "--warmup", "1"), "--warmup must be in [0, 1), got 1"),
        ("train", ("--data", ".", "--patience", "-1"), "--patience must be >= 0, got -1"),
    ],
)
def test_bad_arguments_are_one_line(call, verb, arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if verb in ("predict", "explain") and "--checkpoint" not in arguments:
        arguments = (*arguments, "--checkpoint", "no")
    assert call(verb, *arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"nlran-{verb}: error: ")
    assert message in line
    assert not list(tmp_path.iterdir())


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
