from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn
from vlm_hv.records import read_records


@pytest.fixture
def baseline(call, words, tmp_path):
    def baseline(kind, *arguments):
        out = tmp_path / kind
        given = ("--data", words, "--kind", kind, "--split", "test", "--accelerator", "cpu")
        assert call("baseline", *given, "--out", out, *arguments) == 0
        return out

    return baseline


@pytest.mark.parametrize("kind", ["hog", "gsc"])
def test_handcrafted_features_tell_made_up_writers_apart(baseline, kind):
    out = baseline(kind)
    records = read_records(out / "predictions.jsonl")
    metrics = json.loads((out / "result.json").read_text())["metrics"]
    assert metrics["auc"] > 0.7
    assert metrics["training_pairs"] == 2 * 4 * 6
    for record in records:
        assert record["prediction"] == ("same" if record["score"] > 0.5 else "different")
    val = read_records(out / "predictions_val.jsonl")
    both = [{w for r in part for w in r["writers"]} for part in (records, val)]
    assert not both[0] & both[1]


def test_the_pairs_are_those_of_a_model(baseline, ask, call, tmp_path, capsys):
    assert ask("--limit", 8, "--seed", 5, "--mode", "direct", "--out", tmp_path / "vlm") == 0
    out = baseline("gsc", "--limit", 8, "--seed", 5, "--overwrite")
    pairs = [
        [(r["known"], r["questioned"]) for r in read_records(folder / "predictions.jsonl")]
        for folder in (out, tmp_path / "vlm")
    ]
    assert pairs[0] == pairs[1]
    capsys.readouterr()
    given = (out, tmp_path / "vlm", "--bootstrap", 20, "--json")
    assert call("eval", *given) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["system"] for row in found["rows"]] == ["gsc", "fake, direct"]


def test_resnet18_learns_what_it_is_shown():
    from papercommons.cli import ComputeOptions
    from papercommons.data.pairs import Pairs
    from papercommons.metrics.roc import binary_auc
    from vlm_hv.siamese import score_pairs, train_resnet

    random = np.random.default_rng(0)
    writer = np.arange(16) % 2
    images = (250 - 120 * writer[:, None, None] - random.integers(0, 20, (16, 16, 16))).astype("u1")
    left, right = (a.ravel() for a in np.triu_indices(16, 1))
    pairs = Pairs(left, right, (writer[left] == writer[right]).astype(np.int64))
    module = train_resnet(images, pairs, epochs=10, run=ComputeOptions(accelerator="cpu"))
    some = score_pairs(module, pairs, batch_size=7)
    assert some == pytest.approx(score_pairs(module, pairs), abs=1e-4)
    module.train()  # with the statistics of these images: the running ones need longer
    assert binary_auc(score_pairs(module, pairs), pairs.same) > 0.9


def test_the_baseline_takes_another_encoder():
    from papercommons.cli import ComputeOptions
    from papercommons.data.pairs import Pairs
    from vlm_hv.siamese import SiameseResNet, score_pairs, train_resnet

    class Means(nn.Module):
        dim = 2

        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2))

        def forward(self, images):  # ink, three equal channels
            return (
                torch.stack([images[:, 0].mean((1, 2)), images[:, 2].std((1, 2))], 1) * self.scale
            )

    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16)).astype("u1")
    pairs = Pairs(np.array([0, 1, 2]), np.array([3, 4, 5]), np.array([1, 0, 1]))
    encoder = Means()
    run = ComputeOptions(accelerator="cpu")
    module = train_resnet(images, pairs, epochs=2, run=run, network=encoder)
    assert module.network is encoder
    assert set(module.state_dict()) == {"network.scale", "head.weight", "head.bias"}
    assert (encoder.scale != 1).all()  # trained with the head
    ink = 1 - images / 255
    features = np.stack([ink.mean((1, 2)), ink.std((1, 2), ddof=1)], 1)
    features = features * encoder.scale.detach().numpy()
    wanted = np.abs(features[:3] - features[3:]) @ module.head.weight.detach().numpy()[0]
    wanted = wanted + module.head.bias.item()
    assert score_pairs(module, pairs) == pytest.approx(wanted, abs=1e-5)
    with pytest.raises(ValueError, match="must have dim"):
        SiameseResNet(images, network=nn.Flatten())


def test_resnet18_as_a_command(baseline):
    out = baseline("resnet18", "--max-pairs", 16, "--epochs", 1)
    assert all(0 <= record["score"] <= 1 for record in read_records(out / "predictions.jsonl"))


def test_judged_writers_are_never_trained_on(call, words, tmp_path, capsys):
    pairs = tmp_path / "p.csv"
    pairs.write_text("left,right,label\n00_0.png,00_1.png,1\n00_0.png,01_1.png,0\n")
    given = ("--data", words, "--pairs", pairs, "--kind", "gsc", "--accelerator", "cpu")
    assert call("baseline", *given, "--out", tmp_path / "out") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "training writers are judged and were not trained on" in said
    val = read_records(tmp_path / "out" / "predictions_val.jsonl")
    assert not {"w00", "w01"} & {w for r in val for w in r["writers"]}
    everyone = ("--data", words, "--split", "all", "--kind", "gsc", "--accelerator", "cpu")
    assert call("baseline", *everyone, "--out", tmp_path / "all") == 2
    assert "at least 4 are needed to hold 2 out" in capsys.readouterr().err


def test_hog_needs_its_size(call, write_words, tmp_path, capsys):
    root = write_words(tmp_path / "w", samples=2, size=48)
    given = ("--data", root, "--kind", "hog", "--accelerator", "cpu", "--out", tmp_path / "out")
    assert call("baseline", *given) == 2
    assert "HOG is for words of 64 x 64 pixels; pass --resize 64" in capsys.readouterr().err
