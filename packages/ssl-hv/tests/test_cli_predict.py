from __future__ import annotations

import csv
import json
import math
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from ssl_hv.predicting import cap, describe_ratio, format_ratio
from ssl_hv.verifier import SiameseVerifier


@pytest.fixture(scope="module")
def images(words):
    return sorted(words.rglob("*.png"))


@pytest.fixture
def sure(run, tmp_path):
    """A verifier whose likelihood ratios are beyond what floats can hold."""
    verifier = SiameseVerifier.from_pretrained(run)
    verifier.slope.fill_(0)
    verifier.intercept.fill_(-5000)
    return verifier.save_pretrained(tmp_path / "sure")


def saved(path):
    with np.load(path) as file:
        return file["names"].tolist(), file["vectors"]


def scores(run, questioned, known):
    """By hand: read, invert, embed each alone."""
    verifier = SiameseVerifier.from_pretrained(run)
    a, *others = (
        torch.from_numpy(np.array(Image.open(path)))[None, None] for path in (questioned, *known)
    )
    with torch.no_grad():
        found = torch.cat([verifier(a, b) for b in others])
        return found, verifier.log_likelihood_ratio(found) / math.log(10), verifier.threshold


def held_out_pairs(run):
    """Return the number of pairs of either kind behind the calibration."""
    pairs = json.loads((run / "export" / "config.json").read_text())["val_ln_lr"]["pairs"]
    assert pairs["same"] == pairs["different"]
    return pairs["same"]


@pytest.mark.parametrize(
    ("log10_lr", "expected"), [(0.5, 0.5), (-0.5, -0.5), (3.0, 2.0), (-3.0, -1.0)]
)
def test_no_ratio_is_larger_than_its_calibration_can_support(log10_lr, expected):
    pairs = {"same": 10, "different": 100}
    found, notes = cap(log10_lr, pairs)
    assert found == pytest.approx(expected)
    assert bool(notes) == (found != log10_lr)
    assert cap(log10_lr, None) == (log10_lr, [])


def test_one_word_against_several(call, run, images, tmp_path, capsys):
    questioned, known, out = images[0], images[1:4], tmp_path / "p"
    assert call("predict", questioned, *known, "--checkpoint", run, "--out", out, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    each, log10_lr, threshold = scores(run, questioned, known)
    assert [row["known"] for row in result["rows"]] == list(map(str, known))
    assert [row["score"] for row in result["rows"]] == pytest.approx(each.tolist(), abs=1e-4)
    metrics = result["metrics"]
    mean, bound = log10_lr.mean().item(), math.log10(held_out_pairs(run))
    assert metrics["log10_lr"] == pytest.approx(min(max(mean, -bound), bound), abs=1e-3)
    assert metrics["capped"] == (abs(mean) > bound)
    assert metrics["likelihood_ratio"] == pytest.approx(10 ** metrics["log10_lr"])
    odds = metrics["likelihood_ratio"]
    assert metrics["probability_at_even_odds"] == pytest.approx(odds / (1 + odds))
    assert metrics["prediction"] == ("same" if each.mean() >= threshold else "different")
    assert "no proof of authorship" in result["limits"]
    assert {path.name for path in out.iterdir()} >= {"comparison.png", "report.html", "result.json"}
    rows = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    assert [row["known"] for row in rows] == list(map(str, known))
    assert [row["prediction"] for row in rows] == [str(int(s >= threshold)) for s in each]
    with Image.open(out / "comparison.png") as picture:
        assert picture.size[0] > 300
    assert "no proof of authorship" in " ".join((out / "report.html").read_text().split())


def test_the_order_of_the_two_does_not_matter(call, run, images, capsys):
    found = []
    for pair in ((images[0], images[7]), (images[7], images[0])):
        assert call("predict", *pair, "--checkpoint", run, "--json") == 0
        found.append(json.loads(capsys.readouterr().out)["metrics"])
    assert found[0]["score"] == pytest.approx(found[1]["score"], abs=1e-6)
    assert found[0]["prediction"] == found[1]["prediction"]


def test_the_alias_is_the_same_command():
    from importlib.metadata import entry_points

    scripts = {e.name: e.value for e in entry_points(group="console_scripts")}
    if "ssl-hv-predict" in scripts:
        assert scripts["ssl-hv-compare"] == scripts["ssl-hv-predict"]


def test_known_words_that_differ_among_themselves_are_said(call, run, images, tmp_path, capsys):
    verifier = SiameseVerifier.from_pretrained(run)
    verifier.threshold.fill_(1e6)  # every pair looks like two writers
    verifier.save_pretrained(tmp_path / "strict")
    arguments = (*images[:4], "--checkpoint", tmp_path / "strict")
    assert call("predict", *arguments) == 0
    assert "3 of 3 pairs of the known words look like different" in capsys.readouterr().out
    assert call("predict", *images[:2], "--checkpoint", tmp_path / "strict") == 0
    assert "of the known words look" not in capsys.readouterr().out


def test_evidence_beyond_measure_does_no_harm(call, sure, images, tmp_path, capsys):
    out = tmp_path / "p"
    assert call("predict", *images[:2], "--checkpoint", sure, "--out", out, "--json") == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics["probability_at_even_odds"] == 0
    assert metrics["likelihood_ratio"] is None
    assert metrics["log10_lr"] == pytest.approx(-5000 / math.log(10))


@pytest.mark.parametrize(
    ("log10_lr", "said", "written"),
    [
        (0.0, "no more support for one proposition than for the other", "1.0"),
        (-0.2, "no more support for one proposition than for the other", "1 : 1.6"),
        (0.5, "weak support for one writer", "3.2"),
        (1.5, "moderate support for one writer", "32"),
        (-2.5, "moderately strong support for two writers", "1 : 316"),
        (3.5, "strong support for one writer", "3,162"),
        (-5.0, "very strong support for two writers", "1 : 100,000"),
        (7.0, "extremely strong support for one writer", "10,000,000"),
    ],
)
def test_likelihood_ratios_in_words(log10_lr, said, written):
    assert describe_ratio(log10_lr) == said
    assert format_ratio(log10_lr) == written


def test_embeddings_are_those_of_the_encoder(call, run, images, tmp_path, monkeypatch):
    monkeypatch.setattr("ssl_hv.embedding.BATCH", 4)  # six images are two batches
    out = tmp_path / "e.npz"
    folder = images[0].parent
    assert call("embed", folder, images[9], "--checkpoint", run, "--out", out) == 0
    names, vectors = saved(out)
    assert names == [*map(str, sorted(folder.iterdir())), str(images[9])]
    assert (vectors.shape, vectors.dtype) == ((6, 256), np.float32)
    verifier = SiameseVerifier.from_pretrained(run)
    grey = torch.stack([torch.from_numpy(np.array(Image.open(name)))[None] for name in names])
    with torch.no_grad():
        np.testing.assert_allclose(vectors, verifier.embed(grey), rtol=1e-3, atol=1e-4)
    assert call("embed", folder, "--checkpoint", run, "--out", out) == 2
    assert call("embed", folder, "--checkpoint", "gsc", "--out", out, "--overwrite") == 0
    assert saved(out)[1].shape == (5, 512)


def test_a_pre_trained_encoder_embeds_too(call, pretrained, images, tmp_path, capsys):
    arguments = (images[0], "--checkpoint", pretrained, "--out", tmp_path / "e.npz", "--json")
    assert call("embed", *arguments) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == {
        "images": 1,
        "size": 256,
        "left_out": 0,
    }


def test_images_that_cannot_be_embedded_are_named_or_left_out(call, run, images, tmp_path, capsys):
    good = tmp_path / "in" / "good.png"
    good.parent.mkdir()
    shutil.copy(images[0], good)
    (tmp_path / "in" / "broken.png").write_bytes(images[0].read_bytes()[:80])
    Image.new("L", (64, 64), 255).save(tmp_path / "in" / "blank.png")
    Image.open(images[0]).resize((50, 40)).save(tmp_path / "in" / "small.png")
    out = tmp_path / "e.npz"
    arguments = (tmp_path / "in", "--checkpoint", run, "--out", out)
    assert call("embed", *arguments) == 2
    assert "blank.png: no ink" in capsys.readouterr().err
    assert not out.exists()
    assert call("embed", *arguments, "--skip-bad") == 0
    said = capsys.readouterr().out
    for name in ("blank.png", "broken.png", "small.png"):
        assert f"left out: {tmp_path / 'in' / name}" in " ".join(said.split())
    assert saved(out)[0] == [str(good)]
    assert call("embed", tmp_path / "in" / "blank.png", *arguments[1:], "--overwrite") == 2


@pytest.mark.parametrize("checkpoint", ["hog", "raw", "run"])
def test_sizes_that_differ_are_one_line(call, run, checkpoint, images, tmp_path, capsys):
    small = tmp_path / "small.png"
    Image.open(images[0]).resize((64, 50)).save(small)
    checkpoint = run if checkpoint == "run" else checkpoint
    arguments = (images[0], small, "--checkpoint", checkpoint, "--out", tmp_path / "e.npz")
    assert call("embed", *arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.endswith(
        "small.png: images are 50 x 64, the network takes 64 x 64; pass --resize 64"
    )
    assert call("embed", *arguments, "--resize", 64) == 0


def test_predict_names_what_it_cannot_use(call, run, pretrained, images, tmp_path, capsys):
    small, blank, broken = (tmp_path / f"{name}.png" for name in ("small", "blank", "broken"))
    Image.open(images[0]).resize((64, 50)).save(small)
    Image.new("L", (64, 64), 255).save(blank)
    broken.write_bytes(b"no picture")
    bad = SiameseVerifier("bigan", "cosine").save_pretrained(tmp_path / "uncalibrated")
    out = ("--out", tmp_path / "p")
    for checkpoint, path, message in (
        (run, small, "small.png: images are 50 x 64, the network takes 64 x 64; pass --resize 64"),
        (run, blank, "blank.png: no ink"),
        (run, broken, "broken.png: "),
        (run, tmp_path / "none.png", "none.png: no such file; give images of one word each"),
        (pretrained, images[1], "no verifier; ssl-hv-train makes one"),
        (bad, images[1], "the verifier is not calibrated"),
    ):
        assert call("predict", images[0], path, "--checkpoint", checkpoint, *out) == 2, message
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("ssl-hv-predict: error: ")
        assert message in line
    assert not (tmp_path / "p").exists()
    assert call("predict", images[0], small, "--checkpoint", run, "--resize", 64) == 0


def test_a_command_does_not_overwrite_what_it_reads(call, run, images, capsys):
    before = sorted(run.rglob("*"))
    arguments = (*images[:2], "--checkpoint", run / "export", "--out", run)
    assert call("predict", *arguments) == 2
    assert "folder is not empty" in capsys.readouterr().err
    assert call("predict", *arguments, "--overwrite") == 2
    assert "--overwrite would delete" in capsys.readouterr().err
    assert sorted(run.rglob("*")) == before
