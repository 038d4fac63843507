from __future__ import annotations

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from defi_net.data import InpaintingData, MaskBatch, check_size
from defi_net.reading import read_photo
from papercommons.errors import DataError
from papercommons.files import write_csv
from PIL import Image


def write_set(root: Path, photos: int = 6, **more: str) -> Path:
    """Write two forgeries and an authentic crop of each photo, each photo with its own grey."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(photos):
        for kind in ("telea", "ns", "authentic"):
            name = f"{number}_{kind}.png"
            photo = np.full((40, 48, 3), 20 * number, dtype=np.uint8)
            photo += rng.integers(0, 9, photo.shape, dtype=np.uint8)
            mask = np.zeros((40, 48), dtype=np.uint8)
            mask[8:24, 6 : 12 + 4 * number] = 255
            if kind != "authentic":
                photo[mask > 0] = 255
            for folder, array in (("images", photo), ("labels", mask)):
                if folder == "images" or kind != "authentic":
                    (root / folder).mkdir(parents=True, exist_ok=True)
                    Image.fromarray(array).save(root / folder / name)
            row = {"image": f"images/{name}", "method": kind, "source": str(number), **more}
            rows.append(row | {"mask": "" if kind == "authentic" else f"labels/{name}"})
    write_csv(root / "manifest.csv", rows)
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set"))


def sources(data, split):
    return {sample.source for sample in data.splits[split]}


def batches(loader):
    return list(loader)


def test_no_photograph_is_in_two_splits(root):
    data = InpaintingData(str(root), size=32, val_fraction=0.3)
    assert len(sources(data, "val")) == 2
    assert sources(data, "train") | sources(data, "val") == {str(k) for k in range(6)}
    assert not sources(data, "train") & sources(data, "val")
    assert data.splits["test"] == []
    assert data.test_dataloader() == []
    assert data.has_val
    assert not data.shared
    again = InpaintingData(str(root), size=32, val_fraction=0.3, seed=1)
    assert sources(again, "val") != sources(data, "val")


def test_batches_hold_what_they_say(root):
    data = InpaintingData(str(root), size=40, batch_size=4, augment="none", fit="crop")
    (batch,) = batches(data.loader(data.splits["train"][:3]))
    assert isinstance(batch, MaskBatch)
    assert (batch.images.dtype, batch.images.shape) == (torch.float32, (3, 3, 40, 40))
    assert (batch.masks.dtype, batch.masks.shape) == (torch.float32, (3, 1, 40, 40))
    assert batch.names == [sample.name for sample in data.splits["train"][:3]]
    assert batch.methods == [sample.method for sample in data.splits["train"][:3]]
    assert batch.images.is_contiguous()
    for image, mask, method in zip(batch.images, batch.masks, batch.methods, strict=True):
        assert 0 <= image.min() <= image.max() <= 1
        assert torch.equal(image[:1] == 1, mask == 1)
        assert mask.any() == (method != "authentic")
    authentic = batch.methods.index("authentic")
    photo = torch.from_numpy(read_photo(data.splits["train"][authentic].image))
    assert torch.equal(batch.images[authentic], photo[:, 4:44].permute(2, 0, 1) / 255)


def test_masks_stay_binary_unless_soft(root):
    for soft in (False, True):
        data = InpaintingData(str(root), size=16, batch_size=99, augment="paper", soft_masks=soft)
        masks = next(iter(data.loader(data.splits["train"], augment="paper"))).masks
        between = ((masks > 0) & (masks < 1)).any()
        assert bool(between) == soft
        assert masks.min() >= 0
        assert masks.max() <= 1


def test_augmentation_follows_seed_epoch_and_index(root):
    def first(seed=0, epoch=0, workers=0):
        data = InpaintingData(str(root), size=32, batch_size=5, seed=seed, num_workers=workers)
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        found = batches(loader)
        return torch.cat([b.images for b in found]), [n for b in found for n in b.names]

    images, names = first()
    again, same = first()
    assert torch.equal(images, again)
    assert names == same
    assert first(epoch=1)[1] != names
    assert len(set(names)) == len(names) == 15  # 5 of 6 photographs; the last batch is whole
    with_workers, order = first(workers=1)
    assert order == names
    assert torch.equal(with_workers, images)


def test_resuming_sees_the_same_picture(root):
    data = InpaintingData(str(root), size=32, seed=4)
    dataset = data.train_dataloader().dataset
    one, _ = dataset.read(3, 2)
    other, _ = pickle.loads(pickle.dumps(dataset)).read(3, 2)
    np.testing.assert_array_equal(one, other)
    assert any((dataset.read(epoch, 2)[0] != one).any() for epoch in range(3))


def test_published_splits_are_kept(tmp_path):
    root = write_set(tmp_path / "train", split="train")
    test = write_set(tmp_path / "other", photos=2, split="test")
    data = InpaintingData(str(root), size=32, test=str(test), val_fraction=0)
    assert not data.has_val
    assert data.val_dataloader() == []
    assert len(data.splits["test"]) == 6
    assert data.shared == {"train and test": ["0", "1"]}
    alone = InpaintingData(str(test), size=32)
    assert [len(alone.splits[name]) for name in ("train", "val", "test")] == [0, 0, 6]
    assert len(next(iter(alone.test_dataloader())).names) == 6
    with pytest.raises(DataError, match="no train split"):
        alone.train_dataloader()


def test_bad_files_stop_or_are_left_out(tmp_path, caplog):
    root = write_set(tmp_path)
    (root / "images" / "1_ns.png").write_bytes(b"\x89PNG broken")
    grey = np.full((40, 48), 90, dtype=np.uint8)
    Image.fromarray(grey).save(root / "labels" / "2_ns.png")
    with pytest.raises(DataError, match=r"1_ns\.png: not a readable image"):
        InpaintingData(str(root), size=32)
    with caplog.at_level(logging.WARNING, logger="papercommons"):
        data = InpaintingData(str(root), size=32, skip_bad=True)
    assert sorted(data.left_out) == ["images/1_ns.png", "images/2_ns.png"]
    assert sum(map(len, data.splits.values())) == 16
    assert "leaves out 2 of 18 images" in caplog.text


def test_errors_while_reading_name_the_file(tmp_path):
    root = write_set(tmp_path)
    data = InpaintingData(str(root), size=32, val_fraction=0)
    Image.fromarray(np.full((40, 48), 90, dtype=np.uint8)).save(root / "labels" / "0_telea.png")
    with pytest.raises(DataError, match=r"0_telea\.png: 100% of the mask is grey"):
        batches(data.train_dataloader())


def test_the_hash_follows_the_data(root, tmp_path):
    one = InpaintingData(str(root), size=32)
    assert one.data_hash == InpaintingData(str(root), size=64).data_hash
    assert one.data_hash != InpaintingData(str(root), size=32, val_fraction=0.5).data_hash
    assert one.data_hash != InpaintingData(str(write_set(tmp_path, photos=5)), size=32).data_hash


def test_bad_options_are_refused(root):
    for options, message in (
        ({"batch_size": 0}, "batch_size must be >= 1"),
        ({"val_fraction": 1.0}, "val_fraction must be in"),
        ({"size": 100}, r"size must be a multiple of 8 and >= 16, got 100; the nearest is 96"),
        ({"layout": "pears"}, "did you mean pairs"),
    ):
        with pytest.raises(ValueError, match=message):
            InpaintingData(str(root), **options)
    with pytest.raises(ValueError, match="nearest is 16"):
        check_size(9)
    check_size(352)


def test_every_augmentation_gives_squares(root):
    for how in ("none", "paper", "robust"):
        data = InpaintingData(str(root), size=16, augment=how, batch_size=2)
        assert next(iter(data.train_dataloader())).images.shape == (2, 3, 16, 16)
