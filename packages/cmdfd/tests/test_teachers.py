from __future__ import annotations

import json

import pytest
import torch
from cmdfd.features import clip_stft
from cmdfd.hf_teacher import HFTeacher
from cmdfd.small_teacher import SmallTeacher, VisualContent
from cmdfd.teachers import (
    OfficialTeacher,
    SpeechTransformer,
    lip_crops,
    load_official_teacher,
)
from cmdfd.visual import VisualFrontend
from papercommons.errors import DataError


@pytest.fixture(scope="module")
def small(parity, names, rule_weights):
    """Both recognisers with the reference weights."""
    dim, heads, layers, hidden, inputs, classes = parity("teacher_small")["config"].tolist()
    found = {}
    listed = names("teacher_small")
    for stream in ("audio", "video"):
        net = SpeechTransformer(
            stream,
            classes,
            dim=dim,
            heads=heads,
            layers=layers,
            hidden=hidden,
            inputs=inputs,
            longest=200,
        ).eval()
        weights = rule_weights(listed[stream], listed["phase_offset"])
        own = net.state_dict()
        assert {n: list(v.shape) for n, v in own.items()} == {r[1]: r[2] for r in listed[stream]}
        net.load_state_dict({k: own[k] if v is None else v for k, v in weights.items()})
        found[stream] = net
    return found


@torch.no_grad()
def test_posteriors_are_the_references(small, parity):
    example = parity("teacher_small")
    for stream, given in (("audio", "stft"), ("video", "visual")):
        posterior = small[stream](example[given]).softmax(-1).transpose(0, 1)
        expected = example[f"{stream}_posterior_TBC"]
        torch.testing.assert_close(posterior, expected, rtol=0, atol=1e-5)


def test_full_networks_have_the_official_names_and_shapes(names):
    listed = names("teacher")
    with torch.device("meta"):
        nets = {
            "audio_teacher": SpeechTransformer("audio"),
            "video_teacher": SpeechTransformer("video"),
            "vsr_frontend": VisualFrontend(),
        }
    for name, net in nets.items():
        shapes = [[key, list(value.shape)] for key, value in net.state_dict().items()]
        assert sorted(shapes) == sorted(listed[name])
    for name in ("audio", "video"):
        count = sum(p.numel() for p in nets[f"{name}_teacher"].parameters())
        assert count == listed[f"{name}_params"]
    assert (
        sum(p.numel() for p in nets["vsr_frontend"].parameters()) == listed["vsr_frontend_params"]
    )


def recogniser(stream, classes=7):
    torch.manual_seed(0)
    return SpeechTransformer(stream, classes, dim=16, heads=2, layers=1, hidden=8, longest=50)


@torch.no_grad()
def test_official_teachers_take_crops_or_features_of_the_lips():
    torch.manual_seed(0)
    audio, video, lips = recogniser("audio"), recogniser("video"), VisualFrontend(2)
    teacher = OfficialTeacher(audio, video, lips).eval()
    wave, frames = torch.randn(2, 640 * 6) / 9, torch.randint(0, 256, (2, 6, 40, 40))
    heard, seen = teacher(wave, frames)
    assert heard.shape == seen.shape == (2, 6, 7)
    torch.testing.assert_close(heard.sum(-1), torch.ones(2, 6))
    torch.testing.assert_close(heard, audio(clip_stft(wave, 6)).softmax(-1))
    features = lips((lip_crops(frames) / 255 - 0.4161) / 0.1688)
    without = OfficialTeacher(audio, video).eval()
    torch.testing.assert_close(without(wave, features)[1], seen)
    with pytest.raises(ValueError, match="no lip front-end"):
        without(wave, frames)
    with pytest.raises(ValueError, match="at most 50 frames, got 51"):
        video(torch.zeros(1, 51, 16))


def test_lips_are_the_middle_of_the_face():
    frames = torch.zeros(1, 1, 112, 112)
    frames[..., 40:60, 30:70] = 200.0
    crop = lip_crops(frames)[0, 0]
    assert crop.shape == (112, 112)
    rows, columns = torch.where(crop > 100)
    assert (rows.min(), rows.max()) == (2 * 40 - 56, 2 * 60 - 56 - 1)
    assert (columns.min(), columns.max()) == (2 * 30 - 56, 2 * 70 - 56 - 1)


def test_official_files(tmp_path):
    classes = 11
    with torch.device("meta"):
        nets = {s: SpeechTransformer(s, classes) for s in ("audio", "video")}
    # one stored number each, so that the files are small
    empty = {
        s: {name: torch.zeros(()).expand(v.shape) for name, v in net.state_dict().items()}
        for s, net in nets.items()
    }
    torch.save(empty["audio"], tmp_path / "audio.pt")
    torch.save(empty["video"], tmp_path / "video.pt")
    teacher = load_official_teacher(tmp_path / "audio.pt", tmp_path / "video.pt")
    assert teacher.classes == classes
    assert not teacher.training
    del empty["video"]["videoEncoder.layers.3.linear1.weight"]
    torch.save(empty["video"], tmp_path / "less.pt")
    with pytest.raises(DataError, match=r"missing 1 \(videoEncoder.layers.3.linear1.weight\)"):
        load_official_teacher(tmp_path / "audio.pt", tmp_path / "less.pt")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(DataError, match=r"no outputConv\.bias"):
        load_official_teacher(tmp_path / "other.pt", tmp_path / "video.pt")


def test_teachers_need_the_same_classes():
    with pytest.raises(ValueError, match="7 of the voice, 8 of the mouth"):
        OfficialTeacher(recogniser("audio"), recogniser("video", 8))
    with pytest.raises(ValueError, match="classes must be >= 2"):
        SmallTeacher(1)
    with pytest.raises(ValueError, match="stream must be audio or video"):
        SpeechTransformer("text")


def test_the_small_pair_learns():
    torch.manual_seed(0)
    teacher = SmallTeacher(3, dim=16, width=2)
    wave, frames = torch.randn(2, 640 * 6) / 9, torch.randint(0, 256, (2, 6, 16, 16))
    labels = torch.tensor([[0, 0, 1, 1, 2, 2], [2, 1, 0, 2, 1, 0]]).flatten()
    optimizer = torch.optim.Adam(teacher.parameters(), lr=0.02)
    losses = []
    for _ in range(12):
        logits = torch.stack([teacher.audio_logits(wave, 6), teacher.visual_logits(frames)])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 2), labels.repeat(2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    again = SmallTeacher(**teacher.config)
    again.load_state_dict(teacher.state_dict())
    heard, seen = again.eval()(wave, frames)
    assert heard.shape == seen.shape == (2, 6, 3)
    with pytest.raises(ValueError, match="S >= 640 T for video of T frames"):
        again(wave[:, 1:], frames)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny recogniser with a CTC head, as Hugging Face saves it."""
    pytest.importorskip("transformers")
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    torch.manual_seed(0)
    config = Wav2Vec2Config(
        vocab_size=6,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    out = tmp_path_factory.mktemp("recogniser")
    Wav2Vec2ForCTC(config).save_pretrained(out)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(out)
    return out


def test_a_recogniser_of_hugging_face(folder):
    torch.manual_seed(0)
    teacher = HFTeacher.from_folder(folder, VisualContent(6, 16, 2))
    assert teacher.train().training
    assert not teacher.model.training
    assert not any(p.requires_grad for p in teacher.model.parameters())
    wave, frames = torch.randn(2, 640 * 7) / 9, torch.randint(0, 256, (2, 7, 16, 16))
    heard, seen = teacher.eval()(wave, frames)
    assert heard.shape == seen.shape == (2, 7, 6)
    torch.testing.assert_close(heard.sum(-1), torch.ones(2, 7))
    torch.testing.assert_close(teacher(wave / 30, frames)[0], heard, rtol=1e-3, atol=1e-4)
    loud = (wave - wave.mean(1, keepdim=True)) / wave.std(1, correction=0, keepdim=True)
    padded = torch.nn.functional.pad(loud, (0, 640))
    steps = teacher.model(padded).logits[:, :14].softmax(-1)  # two steps of 20 ms to a frame
    torch.testing.assert_close(heard, (steps[:, ::2] + steps[:, 1::2]) / 2, rtol=1e-4, atol=1e-5)
    teacher.visual_logits(frames).sum().backward()
    assert all(p.grad is not None for p in teacher.video.head.parameters())


def test_a_recogniser_that_does_not_fit(folder, tmp_path):
    with pytest.raises(ValueError, match="6 classes, the lip reader 5"):
        HFTeacher.from_folder(folder, VisualContent(5, 16, 2))
    with pytest.raises(DataError, match=r"config.json is missing"):
        HFTeacher.from_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(DataError, match="not a CTC recogniser") as caught:
        HFTeacher.from_folder(tmp_path)
    assert "\n" not in str(caught.value)
