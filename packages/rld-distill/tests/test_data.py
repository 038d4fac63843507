import hashlib
import pickle

import numpy as np
import pytest
import torch
from papercommons.errors import DataError
from PIL import Image
from rld_distill.augmentation import fit_size, random_crop_flip, strong_augment
from rld_distill.data import DistillData
from rld_distill.sources import load_splits, parse_data


@pytest.fixture(scope="module")
def digits():
    return DistillData("digits", batch_size=100)


def test_digits_are_the_real_scans_divided_without_loss(digits):
    splits = digits.splits
    assert [len(splits.train), len(splits.val), len(splits.test)] == [1293, 145, 359]
    names = [*splits.train.names, *splits.val.names, *splits.test.names]
    assert len(set(names)) == len(names) == 1797
    for part in (splits.train, splits.val, splits.test):
        share = torch.bincount(part.labels, minlength=10) / len(part)
        assert share.max() - share.min() < 0.04
    assert splits.train.pixels.shape == (1293, 3, 32, 32)
    assert splits.train.pixels.amax() == 255
    assert torch.equal(splits.train.pixels[:, 0], splits.train.pixels[:, 2])


def test_batches_are_normalised(digits):
    images = torch.cat([b.images for b in digits.loader(digits.splits.train)])
    assert images.dtype == torch.float32
    assert images.mean().abs() < 1e-3
    assert (images.std() - 1).abs() < 1e-2


def test_augmentation_depends_on_seed_epoch_and_index_alone(digits):
    train = digits.train_dataloader().dataset
    together = train.__getitems__([(3, 5), (3, 900), (3, 41)])
    alone = train[(3, 900)]
    assert torch.equal(together.images[1], alone.images[0])
    assert not torch.equal(train[(4, 900)].images, alone.images)
    other = DistillData("digits", seed=1).train_dataloader().dataset
    assert not torch.equal(other[(3, 900)].images, alone.images)


def test_workers_change_nothing(digits):
    def batches(workers):
        data = DistillData("digits", batch_size=500, num_workers=workers)
        return [(b.images, b.indices) for b in data.train_dataloader()]

    for (images, indices), (others, other_indices) in zip(batches(0), batches(1), strict=True):
        assert torch.equal(indices, other_indices)
        assert torch.equal(images, others)


def test_crop_and_flip_equal_a_plain_loop():
    images = torch.randint(0, 255, (6, 3, 9, 9), dtype=torch.uint8)
    draws = torch.rand(6, 3, generator=torch.Generator().manual_seed(0))
    got = random_crop_flip(images, draws, flip=True)
    for image, (down, right, mirror), result in zip(images, draws, got, strict=True):
        padded = torch.zeros(3, 17, 17, dtype=torch.uint8)
        padded[:, 4:13, 4:13] = image
        top, left = int(down * 9), int(right * 9)
        crop = padded[:, top : top + 9, left : left + 9]
        assert torch.equal(result, crop.flip(2) if mirror < 0.5 else crop)


def test_strong_augmentation_keeps_shape_and_varies():
    image = torch.randint(0, 255, (3, 32, 32), dtype=torch.uint8)
    results = []
    for seed in range(60):
        torch.manual_seed(seed)
        results.append(strong_augment(image.clone()))
    assert all(r.shape == image.shape and r.dtype == torch.uint8 for r in results)
    assert len({r.numpy().tobytes() for r in results}) > 50


@pytest.mark.parametrize(("height", "width"), [(32, 32), (40, 64), (20, 18)])
def test_fit_size_gives_the_size(height, width):
    assert fit_size(torch.zeros(3, height, width, dtype=torch.uint8), 32).shape == (3, 32, 32)


def write_npz(path, **changes):
    arrays = {
        "images": np.random.RandomState(0).randint(0, 255, (60, 8, 8, 3), dtype=np.uint8),
        "labels": np.arange(60) % 3,
    } | changes
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return str(path)


def test_npz_with_and_without_splits(tmp_path):
    plain = load_splits(write_npz(tmp_path / "a.npz"), size=16)
    assert plain.train.pixels.shape[1:] == (3, 16, 16)
    assert plain.classes == ["0", "1", "2"]
    split = np.array(["train"] * 30 + ["val"] * 12 + ["test"] * 18)
    names = np.array(["ant", "bee", "cat"])
    given = load_splits(write_npz(tmp_path / "b.npz", split=split, class_names=names))
    assert [len(given.train), len(given.val), len(given.test)] == [30, 12, 18]
    assert given.classes == ["ant", "bee", "cat"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "no array labels"),
        ({"labels": np.arange(60) - 1}, "labels must be >= 0, got -1"),
        ({"labels": np.arange(59)}, "labels must be integers"),
        ({"class_names": np.array(["a"])}, "label 2 at 2, but class_names has 1"),
        ({"images": np.zeros((60, 8, 8), np.float32)}, "images must be uint8"),
        ({"images": np.zeros((60, 8, 9), np.uint8)}, "must be square"),
        ({"split": np.array(["train", "dev"] * 30)}, "expected train, val or test"),
    ],
)
def test_bad_npz_is_named(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        load_splits(write_npz(tmp_path / "bad.npz", **changes))


@pytest.fixture
def folder(tmp_path):
    generator = np.random.RandomState(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(10):
            pixels = generator.randint(0, 255, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    return tmp_path


def test_folder_of_small_images_is_read_once(folder):
    data = DistillData(str(folder))
    assert data.classes == ["cat", "dog"]
    assert data.size == 20
    assert data.splits.train.pixels is not None
    assert data.augment == "crop-flip"


def test_folder_of_photographs_is_read_from_disk(folder):
    data = DistillData(f"folder:{folder}", size=72, batch_size=4)
    assert data.splits.train.pixels is None
    assert data.augment == "resized-crop"
    batch = next(iter(data.train_dataloader()))
    assert batch.images.shape == (4, 3, 72, 72)
    again = data.train_dataloader().dataset[(0, int(batch.indices[2]))]
    assert torch.equal(again.images[0], batch.images[2])
    assert next(iter(data.test_dataloader())).images.shape[1:] == (3, 72, 72)


def test_bad_image_is_an_error_or_left_out_by_name(folder):
    bad = folder / "cat" / "3.png"
    bad.write_bytes(bad.read_bytes()[:40])
    with pytest.raises(DataError, match=r"3\.png: not a readable image .*--skip-bad"):
        load_splits(str(folder))
    splits = load_splits(str(folder), skip_bad=True)
    assert splits.skipped == [str(bad)]
    assert sum(map(len, (splits.train, splits.val, splits.test))) == 19


def test_imagenet_layout_takes_val_as_the_published_test(folder, tmp_path):
    root = tmp_path / "imagenet"
    for split in ("train", "val"):
        (root / split).mkdir(parents=True)
        for name in ("cat", "dog"):
            (root / split / name).mkdir()
            source = folder / name / "0.png"
            for i in range(6):
                (root / split / name / f"{i}.png").write_bytes(source.read_bytes())
    splits = load_splits(str(root), val_fraction=0.5)
    assert [len(splits.train), len(splits.val), len(splits.test)] == [6, 6, 12]


def write_cifar10(root, monkeypatch):
    from torchvision.datasets import CIFAR10

    folder = root / CIFAR10.base_folder
    folder.mkdir()
    sums = {}
    generator = np.random.RandomState(0)
    for name in ("data_batch_1", "test_batch"):
        entry = {
            "data": generator.randint(0, 255, (20, 3072), dtype=np.uint8),
            "labels": list(range(10)) * 2,
        }
        (folder / name).write_bytes(pickle.dumps(entry))
    meta = {"label_names": [f"class{i}" for i in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta))
    for path in folder.iterdir():
        sums[path.name] = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", sums["data_batch_1"]]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    described = {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]}
    monkeypatch.setattr(CIFAR10, "meta", described)
    return folder


def test_cifar_is_read_as_published_after_its_sums_are_checked(tmp_path, monkeypatch):
    folder = write_cifar10(tmp_path, monkeypatch)
    splits = load_splits(str(tmp_path), val_fraction=0.0)
    assert [len(splits.train), len(splits.val), len(splits.test)] == [20, 0, 20]
    assert splits.augment == "crop-flip"
    assert splits.mean == (0.5071, 0.4867, 0.4408)
    stored = pickle.loads((folder / "test_batch").read_bytes())["data"][7].reshape(3, 32, 32)
    assert np.array_equal(splits.test.pixels[7].numpy(), stored)
    batch = folder / "data_batch_1"
    batch.write_bytes(batch.read_bytes() + b" ")
    with pytest.raises(DataError, match="data_batch_1: md5 is not"):
        load_splits(f"cifar10:{tmp_path}")
    batch.unlink()
    with pytest.raises(DataError, match="data_batch_1: missing"):
        load_splits(f"cifar10:{tmp_path}")


def test_omniglot_fixture_loads(shared_files):
    data = DistillData(str(shared_files / "data" / "omniglot-small" / "omniglot_small_32.npz"))
    assert len(data.classes) == 242
    assert data.augment == "crop"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("nowhere", "nowhere: no such folder or file; --data takes digits"),
        ("digit", "did you mean digits"),
        ("npz:nowhere.npz", "nowhere.npz: no such folder or file"),
        ("cifar100:.", "cifar-100-python: no such folder; unpack"),
    ],
)
def test_missing_data_is_named(data, message):
    with pytest.raises(DataError, match=message):
        parse_data(data)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="batch_size must be >= 1, got 0"):
        DistillData("digits", batch_size=0)
    with pytest.raises(ValueError, match=r"val_fraction must be in \[0, 1\), got 1"):
        DistillData("digits", val_fraction=1)
