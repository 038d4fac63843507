import numpy as np
import pytest
import torch
from gits_sampling.data import ImageData, load_images
from papercommons.errors import DataError
from PIL import Image


def save(path, value, size=(12, 9)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


def test_digits_are_v_over_8_minus_1():
    data = ImageData(batch_size=100, val_fraction=0.2)
    from sklearn.datasets import load_digits

    digits = torch.from_numpy(load_digits().images).float()[:, None] / 8 - 1
    batches = list(data.train_dataloader())
    count = sum(len(batch.labels) for batch in batches)
    assert count + len(data.splits["val"]) == 1797
    assert len(data.splits["val"]) == pytest.approx(359, abs=10)
    image = batches[0].images[0]
    assert (digits - image).abs().flatten(1).amax(1).min() == 0
    assert data.shape == (1, 8, 8)
    together = torch.cat([data.splits[name].read(range(10)) for name in ("train", "val")])
    assert torch.unique(together, dim=0).shape[0] == 20  # no image in both
    assert data.sigma_data() == pytest.approx(digits.double().std().item(), abs=0.01)


def test_a_folder_with_classes_and_splits(tmp_path):
    for split in ("train", "val"):
        for number, name in enumerate(("cat", "dog")):
            for k in range(3):
                save(tmp_path / split / name / f"{k}.png", 100 * number + 10 * k)
    data = ImageData(str(tmp_path), size=8, batch_size=6)
    assert data.classes == ["cat", "dog"]
    assert sorted(data.splits) == ["train", "val"]
    (batch,) = data.val_dataloader()
    assert batch.images.shape == (6, 3, 8, 8)
    assert batch.labels.tolist() == [0, 0, 0, 1, 1, 1]
    levels = torch.tensor([0, 10, 20, 100, 110, 120]) / 127.5 - 1
    torch.testing.assert_close(batch.images[:, 0, 4, 4], levels)


def test_a_folder_without_classes_grey_and_from_disk(tmp_path, monkeypatch):
    for k in range(4):
        save(tmp_path / f"{k}.png", 40 * k)
    splits, classes, *_ = load_images(str(tmp_path), grey=True)
    assert classes == [tmp_path.name]
    assert splits["all"].shape == (1, 9, 9)
    in_memory = splits["all"].read(range(4))
    monkeypatch.setattr("gits_sampling.data.IN_MEMORY_BYTES", 0)
    on_disk = load_images(str(tmp_path), grey=True)[0]["all"]
    assert on_disk.pixels is None
    assert torch.equal(on_disk.subset([3, 1]).read([0, 1]), in_memory[[3, 1]])


def test_npz_with_a_split(tmp_path):
    images = np.arange(4, dtype=np.uint8)[:, None, None].repeat(8, 1).repeat(8, 2)
    split = np.array(["train", "train", "test", "val"])
    np.savez(tmp_path / "x.npz", images=images, labels=np.array([0, 1, 1, 0]), split=split)
    data = ImageData(str(tmp_path / "x.npz"))
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [2, 1, 1]
    (batch,) = data.test_dataloader()
    assert batch.images.shape == (1, 1, 8, 8)
    torch.testing.assert_close(batch.images[0, 0, 0, 0], torch.tensor(2 / 127.5 - 1))


def test_flips_follow_from_seed_and_epoch():
    def epoch(data, number):
        loader = data.train_dataloader()
        loader.sampler.set_epoch(number)
        return next(iter(loader)).images

    plain, flipped = (ImageData(batch_size=64, flip=flip) for flip in (False, True))
    a, b = epoch(plain, 0), epoch(flipped, 0)
    same = (a == b).flatten(1).all(1)
    mirrored = (a == b.flip(3)).flatten(1).all(1)
    assert (same | mirrored).all()
    assert 16 < same.sum() < 48
    assert torch.equal(b, epoch(flipped, 0))
    assert not torch.equal(b, epoch(flipped, 1))
    (val, _), (val2, _) = (next(iter(d.val_dataloader())) for d in (plain, flipped))
    assert torch.equal(val, val2)


def test_bad_data_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such folder or file"):
        ImageData(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="no images"):
        ImageData(str(tmp_path))
    with pytest.raises(ValueError, match="size"):
        ImageData("digits", size=2)
    with pytest.raises(ValueError, match="batch_size"):
        ImageData("digits", batch_size=0)
    save(tmp_path / "a.png", 3)
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"b\.png: not a readable image"):
        ImageData(str(tmp_path))
    found = ImageData(str(tmp_path), skip_bad=True, val_fraction=0)
    assert (len(found.splits["train"]), found.left_out) == (1, 1)
