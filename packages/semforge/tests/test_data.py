from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from papercommons.errors import DataError
from PIL import Image
from semforge.data import FaceForgeryData
from semforge.graph import LabelGraph
from semforge.lightning import SemForgeModule

GRAPH = LabelGraph.ffsc()
REAL, AGE, POSE = "000000000000", "110000100001", "100001111111"
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:The number of training batches"
)


@pytest.fixture
def folder(tmp_path):
    """24 pictures of 40 x 40 whose mean says their number; a third of them real."""
    lines = []
    for k in range(24):
        pixels = np.random.default_rng(k).integers(0, 9, (40, 40, 3), np.uint8) + np.uint8(10 * k)
        Image.fromarray(pixels).save(tmp_path / f"{k:02d}.png")
        lines.append(f"{k:02d}.png {(REAL, AGE, POSE)[k % 3]}\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    return tmp_path


def make(folder, name="list.txt", **options):
    options = {"graph": GRAPH, "size": 32, "batch_size": 4, "augment": 0.0} | options
    return FaceForgeryData(folder / name, **options)


def epoch(loader, number=0):
    loader.sampler.set_epoch(number)
    return list(loader)


def test_batches_are_as_the_module_wants_them(folder):
    data = make(folder, val_fraction=0.25)
    assert data.has_val
    assert {k: len(v) for k, v in data.splits.items()} == {"train": 18, "val": 6, "test": 0}
    batches = epoch(data.train_dataloader())
    assert len(batches) == 4
    for batch in batches:
        assert batch.images.shape == (4, 3, 32, 32)
        assert batch.images.dtype == torch.float32
        assert 0 <= batch.images.min() <= batch.images.max() <= 1
        assert batch.labels.dtype == torch.int8
        for name, image, label in zip(batch.names, batch.images, batch.labels, strict=True):
            number = int(name[:2])
            assert abs(image.mean() * 255 - 10 * number - 4) < 1
            assert "".join(map(str, label.tolist())) == (REAL, AGE, POSE)[number % 3]
    assert data.test_dataloader() == []
    (val,) = {tuple(n for b in epoch(data.val_dataloader()) for n in b.names)}
    assert val == tuple(sorted(val))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on one core
def test_chance_follows_from_seed_epoch_and_index(folder):
    def seen(number, **options):
        data = make(folder, augment=0.7, self_blend=0.5, val_fraction=0, **options)
        return epoch(data.train_dataloader(), number)

    one, two = seen(3), seen(3, num_workers=2)
    for a, b in zip(one, two, strict=True):
        assert a.names == b.names
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
    by_name = {n: x for b in seen(4) for n, x in zip(b.names, b.images, strict=True)}
    pairs = [(x, by_name[n]) for b in one for n, x in zip(b.names, b.images, strict=True)]
    assert sum(not torch.equal(a, b) for a, b in pairs) > 10
    assert [b.names for b in seen(4)] != [b.names for b in one]
    assert [b.names for b in seen(3, seed=1)] != [b.names for b in one]


def test_only_training_pictures_are_changed(folder):
    data = make(folder, augment=1.0, self_blend=1.0, val_fraction=0.25)
    plain = make(folder, val_fraction=0.25)
    for split in ("val", "train"):
        for a, b in zip(data.loader(split), plain.loader(split), strict=True):
            assert torch.equal(a.images, b.images)
    first = epoch(data.train_dataloader())
    untouched = {
        n: x for b in plain.loader("train") for n, x in zip(b.names, b.images, strict=True)
    }
    changed = [
        not torch.equal(x, untouched[n])
        for b in first
        for n, x in zip(b.names, b.images, strict=True)
    ]
    assert all(changed)


def test_self_blending_turns_real_faces_alone(folder):
    data = make(folder, self_blend=1.0, val_fraction=0)
    labels = torch.cat([batch.labels for batch in epoch(data.train_dataloader())])
    text = ["".join(map(str, row.tolist())) for row in labels]
    assert set(text) == {"1" + "2" * 11, AGE, POSE}
    half = make(folder, self_blend=0.5, val_fraction=0)
    roots = [batch.labels[:, 0] for k in range(8) for batch in epoch(half.train_dataloader(), k)]
    assert 0.08 < (torch.cat(roots) == 0).float().mean() < 0.26


def test_pictures_can_be_changed_before_judging(folder):
    data = make(folder, val_fraction=0)
    seen = list(data.loader("train", change=lambda image, rng: 255 - image))
    plain = list(data.loader("train"))
    torch.testing.assert_close(seen[0].images, 1 - plain[0].images)
    with pytest.raises(ValueError, match="there is no test split"):
        data.loader("test")


@pytest.mark.parametrize("meta", ["val", "train"])
def test_meta_batches_train_with_auto_lambda(folder, meta):
    data = make(folder, meta=meta, val_fraction=0.25)
    loader = data.train_dataloader()
    batches = [batch for batch, _, _ in iter(loader)]
    assert len(batches) == len(loader) == 4
    names = {name for batch in batches for name in batch["meta"].names}
    assert names <= set(data.splits[meta].names)
    assert batches[0]["meta"].names != batches[0]["train"].names
    torch.manual_seed(0)
    module = SemForgeModule("tiny", GRAPH, image_size=32, weighting="autol")
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, datamodule=data)
    assert trainer.global_step == 4
    assert "val/auc" in trainer.callback_metrics


def test_all_of_val_comes_up_in_meta_batches(folder):
    data = make(folder, meta="val", val_fraction=0.75, batch_size=2)
    assert len(data.splits["val"]) > 2 * len(data.splits["train"])
    loader = data.train_dataloader()
    seen = set()
    for number in range(5):
        for one in loader.iterables.values():
            one.sampler.set_epoch(number)
        seen |= {name for batch, _, _ in iter(loader) for name in batch["meta"].names}
    assert seen == set(data.splits["val"].names)


def test_lists_with_splits_and_given_parts(folder):
    lines = (folder / "list.txt").read_text().splitlines()
    split = [
        line.replace(" ", f" {('train', 'val', 'test')[k // 8]} ") for k, line in enumerate(lines)
    ]
    (folder / "split.txt").write_text("\n".join(split))
    data = make(folder, "split.txt")
    assert {k: len(v) for k, v in data.splits.items()} == {"train": 8, "val": 8, "test": 8}
    (folder / "rest.txt").write_text("\n".join(lines[20:]))
    given = make(folder, "split.txt", test=folder / "rest.txt")
    assert len(given.splits["test"]) == 4
    alone = FaceForgeryData(test=folder / "split.txt", graph=GRAPH, size=32)
    assert {k: len(v) for k, v in alone.splits.items()} == {"train": 0, "val": 0, "test": 8}
    assert alone.test_dataloader()
    with pytest.raises(DataError, match="no train split"):
        alone.train_dataloader()
    leaky = {"val": folder / "list.txt"}
    with pytest.raises(DataError, match="train and val share 8 of people, videos and files"):
        make(folder, "split.txt", **leaky)
    assert make(folder, "split.txt", allow_leak=True, **leaky).facts["leaks"]["train and val"] == 8


def test_folders_of_frames_count_as_videos(folder):
    for video in "ab":
        (folder / video).mkdir()
        for k in range(10):
            Image.new("RGB", (40, 40), (20 * k,) * 3).save(folder / video / f"{k:03d}.png")
    (folder / "videos.txt").write_text(f"a {REAL}\nb {AGE}\n")
    data = make(folder, "videos.txt", n_frames=4, val_fraction=0)
    assert data.splits["train"].names == tuple(f"{v}#{k}" for v in "ab" for k in (0, 3, 6, 9))
    assert data.splits["train"].videos == ("a",) * 4 + ("b",) * 4
    means = torch.cat([batch.images.mean((1, 2, 3)) for batch in data.loader("train")]) * 255
    np.testing.assert_allclose(means, [0, 60, 120, 180] * 2, atol=0.1)
    assert data.facts["splits"]["train"]["videos"] == 2


def test_boxes_are_cut_out_once(folder, tmp_path):
    rows = [f"{k:02d}.png,0,0,20,20\n" for k in range(24)]
    boxes = folder / "boxes.csv"
    boxes.write_text("path,left,top,right,bottom\n" + "".join(rows))
    options = {"crop": "boxes", "boxes": str(boxes), "cache": folder / "cache"}
    data = make(folder, **options)
    files = {file: file.stat().st_mtime_ns for file in data.splits["train"].files}
    assert all(file.is_relative_to(folder / "cache") for file in files)
    again = make(folder, **options)
    assert {file: file.stat().st_mtime_ns for file in again.splits["train"].files} == files
    assert data.data_hash == again.data_hash
    other = make(folder, **options, **{"size": 48})
    assert not set(other.splits["train"].files) & set(files)
    boxes.write_text("path,left,top,right,bottom\n" + "".join(rows[1:]))
    with pytest.raises(DataError, match=r"1 of .* cannot be used: .*00.png: no box is listed"):
        make(folder, **options)
    assert make(folder, **options, skip_bad=True).left_out == ["00.png"]


def test_what_cannot_be_used_is_named_or_left_out(folder, caplog):
    (folder / "03.png").write_bytes((folder / "03.png").read_bytes()[:300])
    Image.new("RGB", (20, 40)).save(folder / "05.png")
    Image.new("L", (40, 40)).save(folder / "06.png")
    with pytest.raises(DataError, match=r"1 of 24 cannot be used: .*05.png: is 20x40"):
        make(folder, val_fraction=0)
    data = make(folder, val_fraction=0, skip_bad=True)
    assert data.left_out == ["03.png", "05.png"]
    assert "leaves out 2 of 24" in caplog.text
    assert data.facts["left_out"] == ["03.png", "05.png"]
    assert data.facts["notes"] == ["1 pictures are grey and were converted to RGB"]
    assert json.loads(json.dumps(data.facts)) == data.facts
    assert data.facts["splits"]["train"]["methods"] == {"fake": 15, "real": 7}


def test_both_classes_are_needed(folder):
    (folder / "real.txt").write_text(f"00.png {REAL}\n03.png {REAL}\n")
    (folder / "fake.txt").write_text(f"01.png {AGE}\n02.png {POSE}\n")
    with pytest.raises(DataError, match=r"no forged faces for training.*--self-blend"):
        make(folder, "real.txt", val_fraction=0)
    assert len(make(folder, "real.txt", val_fraction=0, self_blend=0.5).splits["train"]) == 2
    with pytest.raises(DataError, match="no real faces for training"):
        make(folder, "fake.txt", val_fraction=0, self_blend=0.5)
    one = FaceForgeryData(test=folder / "fake.txt", graph=GRAPH, size=32)
    assert "the test split has no real faces" in one.facts["notes"]


def test_arguments(folder):
    for options, what in (
        ({"augment": 1.5}, "augment must be in"),
        ({"val_fraction": 1.0}, "val_fraction must be in"),
        ({"batch_size": 0}, "batch_size must be >= 1"),
        ({"meta": "test"}, "meta must be val or train"),
        ({"meta": "val", "val_fraction": 0}, "meta val needs a val split"),
        ({"size": 8}, "size must be >= 32"),
    ):
        with pytest.raises(ValueError, match=what):
            make(folder, **options)
    with pytest.raises(ValueError, match="give train, val or test"):
        FaceForgeryData(graph=GRAPH)


def test_hash_changes_with_labels(folder):
    before = make(folder).data_hash
    assert make(folder).data_hash == before
    text = (folder / "list.txt").read_text().replace(AGE, POSE, 1)
    (folder / "list.txt").write_text(text)
    assert make(folder).data_hash != before


def test_videos_with_faces(shared_files, tmp_path):
    pytest.importorskip("av")
    pytest.importorskip("skimage")
    (tmp_path / "list.txt").write_text(f"bbaf2n.mpg {REAL}\nbrbk7n.mpg 1\n")
    data = FaceForgeryData(
        tmp_path / "list.txt",
        graph=GRAPH,
        root=shared_files / "data/av",
        size=64,
        crop="detect",
        n_frames=3,
        val_fraction=0,
    )
    assert data.splits["train"].names == tuple(
        f"{v}.mpg#{k}" for v in ("bbaf2n", "brbk7n") for k in range(3)
    )
    (batch,) = data.loader("train")
    assert batch.videos == ["bbaf2n.mpg"] * 3 + ["brbk7n.mpg"] * 3
    # a face is lighter in the middle than the hair above it
    assert (
        batch.images[:, 0, 30:40, 24:40].mean((1, 2)) > batch.images[:, 0, :6, 24:40].mean((1, 2))
    ).all()
