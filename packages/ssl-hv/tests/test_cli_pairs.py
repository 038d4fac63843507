from __future__ import annotations

import csv
import gzip
import importlib.util
import json
import logging
import subprocess
import sys
import tarfile

import pytest
from papercommons.data.pairs import read_pairs
from papercommons.data.words import open_words
from PIL import Image
from ssl_hv.data import WordData


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_pairs_are_balanced_and_of_one_split(call, words, tmp_path, capsys):
    out = tmp_path / "p.csv"
    assert call("pairs", "--data", words, "--split", "train", "--out", out, "--json") == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    opened, data = open_words(words), WordData(str(words))
    pairs = read_pairs(out, opened)
    assert len(pairs) == metrics["pairs"] == 2 * metrics["same_writer_pairs"] == 2 * 11 * 10
    assert {*pairs.left.tolist(), *pairs.right.tolist()} <= set(data.splits["unlabelled"])
    assert metrics["writers"] == 11
    assert list(table(out)[0]) == ["left", "right", "label"]
    assert call("pairs", "--data", words, "--out", out) == 2
    assert "the file exists; pass --overwrite" in capsys.readouterr().err
    assert call("pairs", "--data", words, "--out", out, "--overwrite") == 0


def test_the_seed_draws_other_pairs_of_two_writers(call, words, tmp_path):
    files = [tmp_path / f"{k}.csv" for k in range(3)]
    for path, seed in zip(files, (3, 3, 4), strict=True):
        arguments = ("--split", "all", "--seed", seed, "--out", path, "--max-per-writer", 4)
        assert call("pairs", "--data", words, *arguments) == 0
    first, same, other = (path.read_text() for path in files)
    assert first == same != other
    assert len(table(files[0])) == 2 * 14 * 4


def test_a_tenth_of_the_writers_are_the_first_ones(call, words, tmp_path):
    out = tmp_path / "p.csv.gz"
    arguments = ("--split", "all", "--writer-fraction", 0.2, "--out", out)
    assert call("pairs", "--data", words, *arguments) == 0
    rows = list(csv.DictReader(gzip.decompress(out.read_bytes()).decode().splitlines()))
    assert {row[side][:3] for row in rows for side in ("left", "right")} == {"w00", "w01"}


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")
def test_parquet_has_the_columns_of_the_authors(call, words, tmp_path):
    import pyarrow.parquet

    assert call("pairs", "--data", words, "--out", tmp_path / "p.parquet") == 0
    assert call("pairs", "--data", words, "--out", tmp_path / "p.csv") == 0
    names = pyarrow.parquet.read_schema(tmp_path / "p.parquet").names
    assert names == ["sample1", "sample2", "label"]
    opened = open_words(words)
    one, two = (read_pairs(tmp_path / f"p.{kind}", opened) for kind in ("parquet", "csv"))
    assert (one.left == two.left).all()
    assert (one.right == two.right).all()


def test_a_writer_with_one_word_is_counted(call, write_words, tmp_path, caplog):
    root = write_words(tmp_path / "w", writers=range(5))
    for path in sorted((root / "w03").iterdir())[1:]:
        path.unlink()
    with caplog.at_level(logging.WARNING, logger="papercommons"):
        assert call("pairs", "--data", root, "--split", "all", "--out", tmp_path / "p.csv") == 0
    assert "1 of 5 writers have one image only" in caplog.text


def test_training_takes_pairs_from_a_file(call, train_small, words, tmp_path, caplog):
    out = tmp_path / "p.csv"
    arguments = ("--split", "all", "--max-per-writer", 3, "--out", out)
    assert call("pairs", "--data", words, *arguments) == 0
    run = ("--encoder", "hog", "--pairs", out, "--out", tmp_path / "run")
    with caplog.at_level(logging.WARNING, logger="papercommons"):
        assert train_small(*run) == 0
    assert "pairs have an image outside the labelled training part" in caplog.text
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert 9 * 3 <= result["metrics"]["training_pairs"] < 14 * 6


def test_evaluation_repeats_the_numbers_of_training(call, run, words, tmp_path):
    out = tmp_path / "eval"
    assert call("eval", "--data", words, "--checkpoint", run, "--out", out) == 0
    trained = json.loads((run / "result.json").read_text())["metrics"]
    judged = json.loads((out / "result.json").read_text())["metrics"]
    for name in ("accuracy", "auc", "eer", "cllr", "min_cllr", "threshold"):
        assert judged[name] == pytest.approx(trained[name], abs=1e-4), name
    for name, bounds in trained["intervals"].items():
        assert judged["intervals"][name] == pytest.approx(bounds, abs=1e-4), name
    assert (out / "report.html").is_file()
    for ours, theirs in zip(table(out / "items.csv"), table(run / "items.csv"), strict=True):
        assert (ours["sample1"], ours["sample2"]) == (theirs["sample1"], theirs["sample2"])
        assert float(ours["score"]) == pytest.approx(float(theirs["score"]), abs=1e-4)
    assert call("eval", "--data", words, "--checkpoint", run, "--out", out) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--split", "train"), "THESE WRITERS WERE TRAINED ON"),
        (("--threshold", "eer"), "THE THRESHOLD WAS CHOSEN ON THE TEST PAIRS"),
    ],
)
def test_what_flatters_is_said_loudly(call, run, words, options, said, capsys):
    arguments = ("--data", words, "--checkpoint", run, "--bootstrap", 10)
    assert call("eval", *arguments, *options) == 0
    assert said in capsys.readouterr().out
    assert call("eval", *arguments) == 0
    assert said not in capsys.readouterr().out


def test_the_threshold_may_be_given(call, run, words, capsys):
    arguments = ("--data", words, "--checkpoint", run, "--bootstrap", 10, "--json")
    assert call("eval", *arguments, "--threshold", "-1000") == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert (metrics["recall"], metrics["false_match_rate"], metrics["threshold"]) == (1, 1, -1000)
    assert call("eval", *arguments, "--threshold", "eer") == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics["false_match_rate"] == pytest.approx(metrics["false_non_match_rate"], abs=0.1)


def test_pairs_of_one_kind_leave_numbers_undefined(call, run, words, tmp_path, capsys):
    pairs, out = tmp_path / "p.csv", tmp_path / "out"
    pairs.write_text("sample1,sample2,label\n00_0.png,00_1.png,1\n01_0.png,01_1.png,1\n")
    arguments = ("--data", words, "--checkpoint", run, "--pairs", pairs)
    assert call("eval", *arguments, "--out", out) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "ROC AUC – – –" in said
    assert "ONLY ONE KIND OF PAIR" in said

    def refuse(constant):
        raise AssertionError(constant)

    metrics = json.loads((out / "result.json").read_text(), parse_constant=refuse)["metrics"]
    assert metrics["auc"] is None
    assert metrics["recall"] is not None
    assert "–" in (out / "report.html").read_text()
    assert call("eval", *arguments, "--threshold", "eer") == 2
    assert "--threshold eer needs pairs of one writer and of two" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,label\n00_0.png,00_1.png,1\n", "expected columns left,right,label"),
        ("left,right,label\n00_0.png,00_1.png,2\n", "label '2' in row 1; expected 0 or 1"),
        ("left,right,label\n00_0.png,nobody.png,1\n", "no image 'nobody.png'"),
        ("left,right,label\n00_0.png,01_1.png,1\n", "does not agree with their writers"),
        ("left,right,label\n00_0.png,00_0.png,1\n", "is paired with itself"),
        ("left,right,label\n", "holds no pairs"),
    ],
)
def test_lists_of_pairs_are_checked(call, train_small, run, words, tmp_path, text, message, capsys):
    (tmp_path / "p.csv").write_text(text)
    given = ("--pairs", tmp_path / "p.csv")
    assert call("eval", "--data", words, "--checkpoint", run, *given) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert train_small("--encoder", "raw", *given, "--out", tmp_path / "r") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_bad_words_are_named(call, train_small, run, write_words, tmp_path, capsys):
    root = write_words(tmp_path / "w", samples=3)
    path = root / "w01" / "01_0.png"
    good = path.read_bytes()
    wrong = {
        "no ink": lambda: Image.new("L", (64, 64), 255).save(path),
        "01_0.png": lambda: path.write_bytes(b"no picture"),
        "pass --resize 64": lambda: Image.new("L", (80, 40), 0).save(path),
    }
    for message, spoil in wrong.items():
        spoil()
        for command in (
            lambda *more: train_small("--data", root, "--encoder", "raw", *more),
            lambda *more: call("eval", "--data", root, "--checkpoint", run, *more),
            lambda *more: call("pretrain", "--data", root, *more),
        ):
            assert command("--out", tmp_path / "out") == 2
            line = capsys.readouterr().err.strip().splitlines()[-1]
            assert message in line
            assert "01_0.png" in line
            assert not (tmp_path / "out").exists()
        path.write_bytes(good)


def test_images_of_another_size_than_the_verifiers(call, run, write_words, tmp_path, capsys):
    root = write_words(tmp_path / "w", samples=2, size=48)
    arguments = ("--data", root, "--checkpoint", run, "--bootstrap", 10)
    assert call("eval", *arguments) == 2
    assert "images are 48 x 48, the network takes 64 x 64; pass --resize 64" in (
        capsys.readouterr().err
    )
    assert call("eval", *arguments, "--resize", 64) == 0


def test_a_broken_pack_is_told(call, write_pack, tmp_path, capsys):
    root = write_pack(tmp_path / "pack")
    index = (root / "index.csv").read_text()
    for text, message in (
        (index.replace("sha256", "hash"), "no column sha256"),
        (index.replace("0002a_num1", "0002a_num9"), "has no 0002a_num9.png"),
    ):
        (root / "index.csv").write_text(text)
        assert call("pairs", "--data", root, "--out", tmp_path / "p.csv") == 2
        assert message in capsys.readouterr().err
    (root / "index.csv").write_text(index)
    with tarfile.open(root / "images.tar", "a") as archive:
        archive.addfile(tarfile.TarInfo("../out.png"))
    assert call("pairs", "--data", root, "--out", tmp_path / "p.csv") == 2
    assert "is not a plain file of this folder" in capsys.readouterr().err


DATA = ("--data", ".")


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        ("pretrain", ("--data", "nowhere"), "nowhere: no such folder; expected CEDAR AND"),
        ("pretrain", (*DATA, "--method", "vicregg"), "no vicregg; did you mean vicreg"),
        ("pretrain", (*DATA, "--width", "2"), "--width must be >= 4, got 2"),
        ("pretrain", (*DATA, "--encoder", "vit-tiny", "--width", "8"), "--width is for resnet-lay"),
        ("pretrain", (*DATA, "--epochs", "0"), "--epochs must be >= 1, got 0"),
        ("pretrain", (*DATA, "--batch-size", "1"), "--batch-size must be >= 2"),
        ("pretrain", (*DATA, "--lr", "-1"), "--lr must be > 0"),
        ("pretrain", (*DATA, "--warmup", "1"), "--warmup must be in [0, 1)"),
        ("pretrain", (*DATA, "--resize", "8"), "--resize must be >= 16, got 8"),
        ("pretrain", (*DATA, "--precision", "64-true"), "expected one of 32-true, bf16-mixed"),
        ("pretrain", (*DATA, "--method", "vae", "--positives", "page"), "vae compares no views"),
        ("pretrain", DATA, "no images in it"),
        ("pretrain", (), "needs --data"),
        ("train", ("--data", "nowhere"), "nowhere: no such folder"),
        ("train", (*DATA, "--encoder", "resnet19"), "did you mean resnet18"),
        ("train", (*DATA, "--encoder", "."), "no saved network"),
        ("train", (*DATA, "--encoder-lr", "0"), "--encoder-lr must be > 0, got 0"),
        ("train", (*DATA, "--encoder", "hog", "--width", "8"), "--width is for resnet-layout"),
        ("train", (*DATA, "--writer-fraction", "0"), "--writer-fraction must be in (0, 1]"),
        ("train", (*DATA, "--val-fraction", "1"), "--val-fraction must be in (0, 1)"),
        ("train", (*DATA, "--pairs", "no.csv"), "no.csv: no such file"),
        ("train", (*DATA, "--max-per-writer", "0"), "--max-per-writer must be >= 1"),
        ("train", (*DATA, "--weight-decay", "-1"), "--weight-decay must be >= 0"),
        ("train", (*DATA, "--freeze"), "--freeze would keep the random weights"),
        ("train", (*DATA, "--encoder", "hog", "--objective", "writers"), "has nothing to train"),
        ("train", (*DATA, "--encoder", "hog", "--objective", "pairs"), "has nothing to train"),
        ("eval", (*DATA, "--checkpoint", "no"), "no: no saved network"),
        ("eval", ("--data", "nowhere", "--checkpoint", "no"), "nowhere: no such folder"),
        ("embed", ("--checkpoint", "raw"), "give images or folders"),
        ("embed", ("x.png", "--checkpoint", "raw"), "x.png: no such file"),
        ("embed", ("x.png", "--checkpoint", "raw", "--out", "x.csv"), "--out must end in .npz"),
        ("embed", ("x.png", "--checkpoint", "no"), "no: no such folder, and no encoder"),
        ("predict", ("a.png", "--checkpoint", "no"), "a questioned and at least one known image"),
        ("predict", ("a.png", "b.png", "--checkpoint", "no"), "a.png: no such file"),
        ("pairs", ("--data", "nowhere"), "nowhere: no such folder"),
        ("pairs", (*DATA, "--out", "p.txt"), "--out must end in .csv, .csv.gz or .parquet"),
        ("pairs", (*DATA, "--writer-fraction", "2"), "--writer-fraction must be in (0, 1]"),
        ("pairs", (*DATA, "--max-per-writer", "0"), "--max-per-writer must be >= 1, got 0"),
        ("pairs", DATA, "no images in it"),
    ],
)
def test_bad_arguments_are_one_line(call, verb, arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call(verb, *arguments) == 2
    *said, line = capsys.readouterr().err.strip().splitlines()
    assert all(other.startswith("preset ") for other in said)
    assert line.startswith(f"ssl-hv-{verb}: error: ")
    assert message in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--threshold", "best"), "--threshold must be val, eer or a score, got best"),
        (("--threshold", "nan"), "--threshold must be val, eer or a score, got nan"),
        (("--bootstrap", "5"), "--bootstrap must be >= 10, got 5"),
        (("--pairs", "no.csv"), "no.csv: no such file; --pairs takes a list of pairs"),
        (("--split-by", "seen"), "no split 'seen', it has paper, writers"),
        (("--variant", "all", "--split-by", "unseen"), "no split 'unseen'"),
    ],
)
def test_bad_options_of_an_evaluation(call, run, words, options, message, capsys):
    assert call("eval", "--data", words, "--checkpoint", run, *options) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


def test_help_and_errors_need_no_torch():
    code = (
        "import sys\n"
        "from papercommons.cli import build_parser, run_command\n"
        "from ssl_hv import cli\n"
        "for f in (cli.pretrain, cli.train, cli.evaluate, cli.embed, cli.predict, cli.pairs):\n"
        "    text = ' '.join(build_parser(f, 'x').format_help().split())\n"
        "    assert '--json' in text\n"
        "assert run_command(cli.train, prog='x', argv=['--data', 'nowhere']) == 2\n"
        "heavy = {'torch', 'lightning', 'sklearn', 'skimage', 'numpy', 'scipy', 'matplotlib'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
