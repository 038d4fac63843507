from __future__ import annotations

import csv
import json
import shutil
import sys

import numpy as np
import pytest
from defi_net.calibration import FIXED, ImageThreshold
from defi_net.localizer import Localizer
from defi_net.model import DeFINet
from defi_net.reading import read_photo
from papercommons.errors import DataError
from papercommons.testing.networks import change_network
from PIL import Image


def table(folder):
    with (folder / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def three(photos, tmp_path_factory):
    """Three photographs, two of one name."""
    root = tmp_path_factory.mktemp("three")
    for number, name in enumerate(("a/x.png", "b/x.png", "b/y.png")):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(photos / f"p{number}.png", root / name)
    return root


@pytest.fixture(scope="module")
def predicted(call, three, run, tmp_path_factory):
    out = tmp_path_factory.mktemp("predicted") / "out"
    more = ("--format", "png,npy", "--tile", 32, "--overlap", 16, "--threshold", 0.4)
    assert call("predict", three, "--checkpoint", run, "--out", out, *more) == 0
    return out


def test_files_are_what_the_network_says(predicted, three, run):
    model = DeFINet.from_pretrained(run)
    localizer = Localizer(model, size=32, overlap=16)
    photo = read_photo(three / "b/x.png")
    edge, probability = localizer.maps(photo)
    folder = predicted / "photographs"
    assert np.abs(np.load(folder / "x_2_prob.npy") - probability).max() < 1e-6
    assert np.abs(np.load(folder / "x_2_edge.npy") - edge).max() < 1e-6
    pixels_of = {}
    for kind in ("prob", "edge", "mask", "overlay"):
        with Image.open(folder / f"x_2_{kind}.png") as image:
            pixels_of[kind] = np.asarray(image)
    for kind, values in (("prob", probability), ("edge", edge)):
        pixels = pixels_of[kind]
        assert np.abs(pixels - 255 * values).max() <= 0.51
    assert (pixels_of["mask"] == 255 * (probability > 0.4)).all()
    assert pixels_of["overlay"].shape == (72, 80, 3)
    row = next(row for row in table(predicted) if row["photograph"] == "x_2")
    assert float(row["score"]) == pytest.approx(probability.max(), abs=1e-5)
    assert float(row["marked"]) == pytest.approx((probability > 0.4).mean(), abs=1e-5)
    assert row["path"] == str(three / "b/x.png")


def test_the_verdict_follows_the_networks_threshold(predicted, run):
    kept = json.loads((run / "export/config.json").read_text())["image_threshold"]
    rows = table(predicted)
    for row in rows:
        assert (row["prediction"] == "forged") == (float(row["score"]) > kept["value"])
    result = json.loads((predicted / "result.json").read_text())
    assert result["metrics"]["photographs"] == 3
    assert result["metrics"]["called_forged"] == sum(row["prediction"] == "forged" for row in rows)
    assert (predicted / "report.html").read_text().count("data:image/png") == 3


def test_only_what_is_asked_for_is_written(call, three, run, tmp_path, capsys):
    out = tmp_path / "out"
    given = ("--checkpoint", run, "--save", "mask", "--resize", 32)
    assert call("predict", three / "a/x.png", *given, "--out", out) == 0
    names = {path.name for path in (out / "photographs").iterdir()}
    assert names == {"x_mask.png", "x_panels.png", "x.json"}
    assert "seen as photographs resized to 32 x 32" in capsys.readouterr().out


def test_an_interrupted_run_goes_on(call, three, run, tmp_path, capsys, monkeypatch):
    copy, out = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(three, copy)
    network = shutil.copytree(run, tmp_path / "network")
    given = (copy, "--checkpoint", network, "--out", out, "--save", "prob")
    seen = []
    maps = Localizer.maps

    def stop_at_the_third(self, photo, *, label=None):
        seen.append(label)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return maps(self, photo, label=label)

    monkeypatch.setattr(Localizer, "maps", stop_at_the_third)
    assert call("predict", *given) == 1
    assert "--resume goes on with what is missing" in capsys.readouterr().err
    assert call("predict", *given) == 2
    assert "pass --resume, --overwrite" in capsys.readouterr().err
    shutil.copy(copy / "b/y.png", copy / "a/x.png")  # changed since
    assert call("predict", *given, "--resume") == 0
    assert seen[3:] == ["x.png", "y.png"]
    assert len(table(out)) == 3
    assert call("predict", *given, "--resume", "--threshold", 0.3) == 2
    assert "cannot resume: threshold was 0.5" in capsys.readouterr().err
    assert call("predict", copy, "--config", out / "config.yaml", "--resume") == 0
    change_network(network)
    assert call("predict", *given, "--resume") == 2
    assert "cannot resume: weights was" in capsys.readouterr().err


def test_bad_files_are_named(call, three, run, tmp_path, capsys):
    copy = tmp_path / "photos"
    shutil.copytree(three, copy)
    (copy / "a/x.png").write_bytes(b"no picture")
    Image.new("RGB", (15, 40)).save(copy / "b/tiny.png")
    whole = (copy / "b/y.png").read_bytes()
    (copy / "b/y.png").write_bytes(whole[: len(whole) // 2])
    given = (copy, "--checkpoint", run, "--save", "prob")
    assert call("predict", *given, "--out", tmp_path / "a") == 2
    assert "a/x.png" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    assert call("predict", *given, "--out", tmp_path / "b", "--skip-bad", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["metrics"] | {"called_forged": 0} == {
        "photographs": 1,
        "left_out": 3,
        "called_forged": 0,
    }
    left = [note for note in printed["notes"] if note.startswith("left out")]
    assert [any(name in note for note in left) for name in ("a/x.png", "tiny.png", "y.png")]
    only = (copy / "a", "--checkpoint", run, "--skip-bad")
    assert call("predict", *only, "--out", tmp_path / "c") == 2
    assert "none of the photographs can be used" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--checkpoint", "nowhere"), "nowhere: no saved network"),
        (("--threshold", 0), "--threshold must be in (0, 1)"),
        (("--save", "heat"), "--save: expected comma-separated of prob, mask, edge, overlay"),
        (("--batch-size", 0), "--batch-size must be >= 1"),
        (("--precision", "64-true"), "expected one of 32-true, bf16-mixed, 16-mixed"),
    ],
)
def test_wrong_options_are_one_line(call, three, run, tmp_path, options, message, capsys):
    more = () if options[0] == "--checkpoint" else ("--checkpoint", run)
    assert call("predict", three, *more, *options, "--out", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("defi-net-predict: error: ")
    assert message in line


def test_photographs_have_to_be_given(call, run, tmp_path, capsys):
    assert call("predict", "--checkpoint", run) == 2
    assert "give photographs, e.g. defi-net-predict" in capsys.readouterr().err
    assert call("predict", tmp_path / "no.png", "--checkpoint", run) == 2
    assert "no such file or folder; give photographs" in capsys.readouterr().err
    assert call("predict", run, "--checkpoint", run) == 2
    assert "no images in it" in capsys.readouterr().err


def test_an_export_is_the_network(call, run, tmp_path, capsys):
    out = tmp_path / "out"
    assert call("export", "--checkpoint", run, "--out", out) == 0
    ours, theirs = (json.loads((p / "config.json").read_text()) for p in (out, run / "export"))
    assert ours == theirs
    first, second = (DeFINet.from_pretrained(p).state_dict() for p in (out, run))
    assert all((first[name] == second[name]).all() for name in second)
    assert (out / "README.md").is_file()
    assert call("export", "--checkpoint", run, "--out", out) == 2
    assert "pass --overwrite" in capsys.readouterr().err
    assert call("export", "--checkpoint", run, "--out", run, "--overwrite") == 2
    assert "--overwrite would delete" in capsys.readouterr().err


def test_onnx_names_its_extra(call, run, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    given = ("--formats", "onnx", "--out", tmp_path / "o")
    assert call("export", "--checkpoint", run, *given) == 2
    assert 'pip install "defi-net[onnx]", or pass --formats' in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("stride", [1, 2])
def test_what_onnx_computes_is_the_network(stride):
    import torch
    from defi_net.exporting import ExportedNetwork

    model = DeFINet("hrnet_tiny", 4, stem_stride=stride).eval()
    images = torch.rand(2, 3, 32, 48)
    with torch.inference_mode():
        found, wanted = ExportedNetwork(model)(images), model.edge_and_probability(images)
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.slow
def test_onnx_says_the_same_at_any_size(call, run, tmp_path, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    import torch

    out = tmp_path / "o"
    code = call("export", "--checkpoint", run, "--formats", "onnx", "--out", out)
    said = capsys.readouterr()
    if code == 2 and "install a newer torch" in said.err:
        pytest.skip(f"the exporter of torch {torch.__version__} fails, and the command says so")
    assert code == 0
    assert "largest difference" in said.out
    session = onnxruntime.InferenceSession(out / "model.onnx")
    images = torch.rand(2, 3, 40, 88, generator=torch.Generator().manual_seed(1))
    found = session.run(["edge", "probability"], {"images": images.numpy()})
    with torch.inference_mode():
        wanted = DeFINet.from_pretrained(run).edge_and_probability(images)
    for one, other in zip(found, wanted, strict=True):
        assert np.abs(one - other.numpy()).max() < 1e-5


@pytest.mark.parametrize("wrong", [lambda x: x + 0.1, lambda x: x * np.nan])
def test_onnx_that_says_something_else_is_not_kept(tmp_path, wrong):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    import torch
    from papercommons.onnx_export import write_onnx

    images = torch.rand(2, 3, 4, 4)
    how = {"outputs": ["y"], "dynamic": {0: torch.export.Dim("batch", min=1)}, "example": images}
    network = torch.nn.Identity()
    try:
        write_onnx(network, tmp_path / "x.onnx", checked=[images], reference=lambda x: (x,), **how)
    except DataError as error:
        pytest.skip(str(error))
    with pytest.raises(DataError, match=r"y\.onnx: not written: ONNX differs from torch"):
        write_onnx(
            network, tmp_path / "y.onnx", checked=[images], reference=lambda x: (wrong(x),), **how
        )
    assert [file.name for file in tmp_path.iterdir()] == ["x.onnx"]


def test_the_page_looks_at_one_photograph(run, three):
    from defi_net.demo import look

    localizer = Localizer(DeFINet.from_pretrained(run), size=32, overlap=0)
    photo = read_photo(three / "b/y.png")
    drawn, probability, says = look(photo, localizer, FIXED)
    assert drawn.shape == photo.shape
    assert np.abs(probability - localizer(photo)).max() < 1e-6
    assert f"Score {probability.max():.3f}" in says
    _, _, says = look(photo, localizer, ImageThreshold("max", 0.0, 0.1, 5, 2))
    assert says.startswith("**Forged.**")
    with pytest.raises(ValueError, match="give a photograph first"):
        look(None, localizer, FIXED)
    with pytest.raises(ValueError, match="the photograph is 10x80; sides must be >= 16"):
        look(np.zeros((80, 10, 3), np.uint8), localizer, FIXED)


def test_the_page_names_its_extra(call, run, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert call("demo", "--checkpoint", run) == 2
    assert 'pip install "defi-net[demo]"' in capsys.readouterr().err
    assert call("demo", "--checkpoint", run, "--port", 0) == 2
    assert "--port must be 1 to 65535" in capsys.readouterr().err
