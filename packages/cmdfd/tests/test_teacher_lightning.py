from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from cmdfd.hf_teacher import HFTeacher
from cmdfd.prepared import open_prepared
from cmdfd.small_teacher import SmallTeacher, VisualContent
from cmdfd.teacher_lightning import ContentModule, TeachBatch, TeachData, TeachDataset, letter_loss
from cmdfd.teachers import OfficialTeacher, SpeechTransformer
from cmdfd.teaching_saved import check_teacher, open_teacher, save_teacher
from cmdfd.teaching_words import (
    LETTERS,
    frame_targets,
    grid_sentence,
    letter_error_rate,
    letter_targets,
    read_letters,
)
from papercommons.errors import DataError


def numbers_of(text):
    return np.array([LETTERS.index(letter) for letter in text])


def test_names_of_grid_are_sentences():
    assert grid_sentence("s3/sbia1a.mpg") == "set blue in a one again"
    assert grid_sentence("LRWPZP") == "lay red with p zero please"
    for name in ("bbaf2", "bbaf2x", "bbaf2nn", "clip-01"):
        with pytest.raises(DataError, match="not named as clips of GRID"):
            grid_sentence(name)


def test_letters_are_read_as_ctc_says():
    assert read_letters(numbers_of("bbii") * 1) == "bi"
    frames = np.concatenate([[0, 0], numbers_of("be"), [0], numbers_of("ee"), [0, 1, 1, 0]])
    assert read_letters(frames) == "bee "
    assert read_letters(np.zeros(0, int)) == ""
    assert letter_error_rate(["bin", "at"], ["bun", "at"]) == pytest.approx(1 / 5)


def test_letter_loss_is_torchs_clip_by_clip():
    torch.manual_seed(0)
    logits = torch.randn(2, 9, len(LETTERS), dtype=torch.double, requires_grad=True)
    letters = [torch.tensor(numbers_of("bin")), torch.tensor(numbers_of("too"))[:2]]
    padded = torch.nn.utils.rnn.pad_sequence(letters, batch_first=True, padding_value=-100)
    each = [
        torch.nn.functional.ctc_loss(
            x.log_softmax(-1)[:, None], y[None], torch.tensor([9]), torch.tensor([len(y)])
        )
        for x, y in zip(logits.float(), letters, strict=True)
    ]
    torch.testing.assert_close(letter_loss(logits, padded), torch.stack(each).mean())


def test_a_teacher_learns_classes_of_frames(talking_set):
    clips = open_prepared(talking_set)
    real = clips.select([e for e in clips.entries if not e.entire and e.split == "train"])
    torch.manual_seed(0)
    module = ContentModule(SmallTeacher(11, dim=16, width=4), "frames", lr=0.01)
    data = TeachData((real, frame_targets(real)), None, "frames", frames_per_batch=50)
    optimizer = module.configure_optimizers()["optimizer"]
    losses = []
    for _ in range(8):
        for batch in data.train_dataloader():
            loss, logits = module.losses(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    assert (logits["video"].argmax(-1) == batch.targets).float().mean() > 0.5
    assert data.val_dataloader() == []


def test_pieces_and_their_targets_go_together(talking_set):
    clips = open_prepared(talking_set)
    real = clips.select([e for e in clips.entries if not e.entire])
    targets = frame_targets(real)
    items = [(0, 0), (0, 1), (0, 2)]
    batch = TeachDataset(real, targets, "frames", max_frames=8, augmented=True)[items]
    assert batch.frames.shape == batch.clean.shape == (3, 8, 16, 16)
    assert batch.targets.shape == (3, 8)
    seen = batch.clean.float().mean((2, 3)).sub(20).div(90).round()
    assert torch.equal(seen.long(), batch.targets)
    whole = TeachDataset(real, [np.arange(3), np.arange(2), *targets[2:]], "letters", max_frames=8)
    letters = whole[[(0, 0), (0, 1)]].targets
    assert letters.tolist() == [[0, 1, 2], [0, 1, -100]]


def test_words_that_are_not_known(talking_set):
    clips = open_prepared(talking_set)
    with pytest.raises(DataError, match="what is heard when is not known"):
        frame_targets(clips)
    with pytest.raises(DataError, match="not named as clips of GRID"):
        letter_targets(clips)


def test_only_the_lip_reader_is_distilled(recogniser):
    torch.manual_seed(0)
    teacher = HFTeacher.from_folder(recogniser, VisualContent(6, 16, 4))
    module = ContentModule(teacher, "distill", lr=0.01)
    optimizer = module.configure_optimizers()["optimizer"]
    before = {name: value.clone() for name, value in teacher.model.state_dict().items()}
    frames = torch.randint(0, 256, (2, 7, 16, 16), dtype=torch.uint8)
    batch = TeachBatch(frames, frames, torch.randn(2, 640 * 7) / 9, torch.empty(2, 0).long())
    losses = []
    for _ in range(6):
        loss, _ = module.losses(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert 0 < losses[-1] < losses[0]
    assert all(
        torch.equal(value, before[name]) for name, value in teacher.model.state_dict().items()
    )
    assert optimizer.param_groups[0]["params"][0] is next(teacher.video.parameters())


def test_a_saved_teacher_is_the_same(tmp_path, recogniser):
    torch.manual_seed(0)
    wave, frames = torch.randn(1, 640 * 6) / 9, torch.randint(0, 256, (1, 6, 16, 16))
    small = SmallTeacher(5, dim=16, width=4).eval()
    save_teacher(small, tmp_path / "small" / "export", made_by="a test")
    other = HFTeacher.from_folder(recogniser, VisualContent(6, 16, 4)).eval()
    about = {"recogniser": str(recogniser), "dim": 16, "width": 4}
    save_teacher(other, tmp_path / "hf", **about)
    for teacher, folder in ((small, "small"), (other, "hf")):
        read = open_teacher(str(tmp_path / folder))
        assert not read.training
        for ours, theirs in zip(teacher(wave, frames), read(wave, frames), strict=True):
            torch.testing.assert_close(ours, theirs)
    assert "a test" in (tmp_path / "small" / "export" / "README.md").read_text()
    audio, video = SpeechTransformer("audio", 5, layers=1), SpeechTransformer("video", 5, layers=1)
    with pytest.raises(ValueError, match="a OfficialTeacher is not saved"):
        save_teacher(OfficialTeacher(audio, video), tmp_path / "no")


def test_teachers_that_are_not_there(tmp_path):
    (tmp_path / "config.json").write_text('{"package": "cmdfd", "model": {}}')
    for name, message in {
        str(tmp_path / "no"): "no saved network",
        "official:a.pt": "expected official:AUDIO,VIDEO",
        "official:a.pt,b.pt": "a.pt: no such file",
        f"hf:{tmp_path / 'no'}": "no recogniser",
    }.items():
        with pytest.raises(DataError, match=message):
            check_teacher(name)
    assert check_teacher(str(tmp_path)) == [str(tmp_path)]
    with pytest.raises(DataError, match="no teacher of cmdfd-teach"):
        open_teacher(str(tmp_path))


@pytest.mark.parametrize(
    ("size", "value"),
    [("dim", 8 * 10**9), ("width", 10**9), ("classes", 10**12), ("width", 0), ("dim", "8")],
)
def test_sizes_in_a_file_do_not_fill_the_memory(tmp_path, size, value):
    sizes = {"classes": 5, "dim": 8, "width": 1, size: value}
    saved = {"package": "cmdfd", "kind": "small", "classes": 5, "model": sizes}
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.raises(DataError, match=r"config\.json: "):
        open_teacher(str(tmp_path))
