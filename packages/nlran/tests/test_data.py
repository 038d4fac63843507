import logging
import pickle
import shutil

import numpy as np
import pytest
import torch
from nlran import cache
from nlran.augmentation import augment
from nlran.data import Batch, CTData
from nlran.scans import find_scans
from papercommons.errors import DataError
from PIL import Image

SIZE = (16, 24, 20)


@pytest.fixture
def ct(tmp_path, write_scan):
    """Five patients in each of two classes, the first with a second scan."""
    for label, name in enumerate(("NCP", "CP")):
        for patient in range(5):
            write_scan(tmp_path / name / f"{name}{patient}" / "a.npy", 10 * label + patient)
        write_scan(tmp_path / name / f"{name}0" / "b.npy", 10 * label + 9)
    return tmp_path


def make_data(folder, **changes):
    return CTData(
        str(folder), **({"size": SIZE, "val_fraction": 0.2, "test_fraction": 0.2} | changes)
    )


@pytest.fixture
def decoded(monkeypatch):
    """Paths of the scans decoded so far."""
    paths = []
    read = cache.read_scan

    def counting(scans, scan, **options):
        paths.append(scan.path)
        return read(scans, scan, **options)

    monkeypatch.setattr(cache, "read_scan", counting)
    return paths


def test_batches_are_what_the_network_expects(ct):
    data = make_data(ct, batch_size=3)
    assert data.classes == ["NCP", "CP"]
    assert (data.units, data.preparation.units, data.skipped) == ("HU", "HU", [])
    assert data.has_val
    batches = list(data.train_dataloader())
    assert len(batches) == -(-len(data.splits["train"]) // 3)
    for batch in batches:
        assert batch.volumes.shape == (len(batch.target), 1, *SIZE)
        assert batch.volumes.dtype == torch.float32
        assert batch.volumes.min() >= 0
        assert batch.volumes.max() <= 1
        assert batch.slices is None
        assert batch.target.dtype == batch.indices.dtype == torch.int64
        labels = [data.scans.scans[place].label for place in batch.indices.tolist()]
        assert batch.target.tolist() == labels
    seen = torch.cat([batch.indices for batch in batches]).tolist()
    assert sorted(seen) == data.splits["train"]
    assert seen != data.splits["train"]
    assert data.target_counts().sum() == len(seen)
    ordered = torch.cat([batch.indices for batch in data.test_dataloader()])
    assert ordered.tolist() == data.splits["test"]


def test_values_are_the_prepared_scan_in_the_window(ct):
    from nlran.preparation import prepare
    from nlran.scans import read_scan

    data = make_data(ct, window=(-500.0, 100.0))
    batch = next(iter(data.loader([4])))
    scan, grid = data.scans.scans[4], data.preparation
    expected, _ = prepare(read_scan(data.scans, scan), grid)
    unit = (torch.from_numpy(expected.astype(np.float32)) + 500) / 600
    assert torch.allclose(batch.volumes[0, 0], unit.clamp(0, 1), atol=1e-6)
    assert batch.volumes.min() == 0
    assert batch.volumes.max() == 1


def test_a_second_epoch_decodes_nothing(ct, decoded):
    data = make_data(ct)
    for _ in range(2):
        list(data.loader(range(len(data.scans))))
    assert sorted(decoded) == sorted(scan.path for scan in data.scans.scans)


def test_a_second_run_decodes_nothing_from_the_cache_folder(ct, tmp_path_factory, decoded):
    folder = tmp_path_factory.mktemp("cache") / "new"
    places = range(12)
    data = make_data(ct, cache=str(folder))
    first = torch.cat([batch.volumes for batch in data.loader(places)])
    assert len(list(folder.iterdir())) == len(decoded) == 12
    decoded.clear()
    second = torch.cat([b.volumes for b in make_data(ct, cache=str(folder)).loader(places)])
    assert decoded == []
    assert torch.equal(first, second)
    fresh = torch.cat([batch.volumes for batch in make_data(ct).loader(places)])
    assert torch.equal(first, fresh)


def test_the_cache_notices_what_changed(ct, tmp_path_factory, decoded, write_scan):
    folder = str(tmp_path_factory.mktemp("cache"))
    list(make_data(ct, cache=folder).loader([0, 1]))
    decoded.clear()
    write_scan(ct / "CP" / "CP0" / "b.npy", 77)
    changed = make_data(ct, cache=folder)
    assert changed.scans.scans[1].path == "CP/CP0/b.npy"
    list(changed.loader([0, 1]))
    assert decoded == ["CP/CP0/b.npy"]
    decoded.clear()
    list(make_data(ct, cache=folder, size=(16, 24, 24)).loader([1]))
    assert set(decoded) == {"CP/CP0/a.npy", "CP/CP0/b.npy"}
    decoded.clear()
    for file in changed.prepared.folder.iterdir():
        file.write_bytes(file.read_bytes()[:200])
    list(changed.loader([1]))
    assert decoded == ["CP/CP0/b.npy"]


def test_beyond_the_memory_limit_scans_are_read_again(ct, decoded):
    prepared = make_data(ct).prepared
    room = 3 * 2 * np.prod(SIZE)
    prepared = cache.PreparedScans(prepared.scans, prepared.preparation, memory=room)
    decoded.clear()
    for _ in range(2):
        for scan in prepared.scans.scans:
            prepared.load(scan)
    assert len(decoded) == 12 + 9


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        np.zeros(SIZE, np.float32),
        np.zeros(SIZE[1:], np.float16),
        np.zeros((2, 2, 2), np.float16),
    ],
)
def test_damaged_files_of_the_cache_are_made_anew(ct, tmp_path_factory, decoded, damaged):
    folder = tmp_path_factory.mktemp("cache")
    whole = next(iter(make_data(ct, cache=str(folder)).loader([1]))).volumes
    for file in folder.iterdir():
        file.write_bytes(b"")
        if len(damaged):
            np.save(file, damaged)
    decoded.clear()
    for _ in range(2):
        again = next(iter(make_data(ct, cache=str(folder)).loader([1]))).volumes
        assert torch.equal(again, whole)
    assert decoded == ["CP/CP0/a.npy", "CP/CP0/b.npy"]


def test_an_unwritable_cache_is_named(ct):
    (ct / "file").write_text("x")
    with pytest.raises(
        DataError, match=r"file/cache: cannot keep prepared scans .* another --cache"
    ):
        make_data(ct, cache=str(ct / "file" / "cache"))


def test_augmentation_depends_on_seed_epoch_and_scan_alone(ct):
    train = make_data(ct).train_dataloader().dataset
    together = train.__getitems__([(3, 1), (3, 4), (3, 0)])
    alone = train[(3, 4)]
    assert torch.equal(together.volumes[1], alone.volumes[0])
    assert not torch.equal(train[(4, 4)].volumes, alone.volumes)
    same = make_data(ct, val_fraction=0.21).train_dataloader().dataset
    assert same.indices == train.indices
    assert torch.equal(same[(3, 4)].volumes, alone.volumes)
    other = make_data(ct).loader(train.indices, augment=False).dataset
    assert not torch.equal(other[(3, 4)].volumes, alone.volumes)


def test_workers_change_nothing(ct):
    def batches(workers):
        return list(make_data(ct, num_workers=workers, batch_size=4).train_dataloader())

    for one, other in zip(batches(0), batches(1), strict=True):
        assert torch.equal(one.indices, other.indices)
        assert torch.equal(one.volumes, other.volumes)


def test_unequal_slice_counts_are_padded(tmp_path, write_scan):
    for label, name in enumerate(("NCP", "CP")):
        for patient in range(3):
            shape = (4 + 3 * patient, 20, 20)
            write_scan(tmp_path / name / f"{patient}.npy", 10 * label + patient, shape=shape)
    data = make_data(tmp_path, size=(0, 16, 16), split_by="none", batch_size=6)
    batch = next(iter(data.loader(range(6), augment=True)))
    assert batch.slices.tolist() == [4, 7, 10, 4, 7, 10]
    assert batch.volumes.shape == (6, 1, 10, 16, 16)
    for volume, count in zip(batch.volumes, batch.slices.tolist(), strict=True):
        assert volume[:, count:].abs().max() == 0 if count < 10 else True
        assert volume[:, count - 1].max() > 0
    alone = data.loader(range(6), augment=True).dataset[(0, 1)]
    assert torch.equal(alone.volumes[0], batch.volumes[1, :, :7])
    few = make_data(tmp_path, size=(0, 16, 16), split_by="none", batch_size=6, max_slices=5)
    assert next(iter(few.loader(range(6)))).slices.tolist() == [4, 5, 5, 4, 5, 5]
    assert few.preparation.max_slices == 5


def test_scans_already_found_are_taken_as_they_are(ct):
    scans = find_scans(ct, classes=["CP", "NCP"])
    data = CTData(scans, size=SIZE, split_by="none", batch_size=5)
    assert data.scans is scans
    assert data.classes == ["CP", "NCP"]
    assert torch.cat([b.indices for b in data.predict_dataloader()]).tolist() == list(range(12))
    one, other = (next(iter(data.predict_dataloader())) for _ in range(2))
    assert torch.equal(one.volumes, other.volumes)


def test_a_class_may_be_absent_where_a_network_knows_more(ct):
    data = make_data(ct, classes=["Normal", "CP", "NCP"], complete=False, split_by="none")
    assert data.classes == ["Normal", "CP", "NCP"]
    assert data.target_counts().tolist() == [0, 6, 6]
    with pytest.raises(DataError, match="no class Normal"):
        make_data(ct, classes=["Normal", "CP", "NCP"], split_by="none")


def test_no_val_and_no_test(ct):
    data = make_data(ct, split_by="none")
    assert not data.has_val
    assert data.val_dataloader() == []
    assert data.test_dataloader() == []
    assert len(data.train_dataloader()) == 3


def test_a_corrupt_scan_is_named_or_skipped(ct, caplog):
    bad = ct / "NCP" / "NCP3" / "a.npy"
    bad.write_bytes(bad.read_bytes()[:300])
    data = make_data(ct, split_by="none")
    with pytest.raises(DataError, match=r"NCP/NCP3/a\.npy: not readable .*--skip-bad"):
        list(data.train_dataloader())
    data = make_data(ct, split_by="none", skip_bad=True)
    assert [path for path, _ in data.skipped] == ["NCP/NCP3/a.npy"]
    assert "not readable" in data.skipped[0][1]
    assert "left out" in caplog.text
    assert len(data.scans) == sum(len(b.target) for b in data.train_dataloader()) == 11


def test_skipping_must_leave_every_class(ct):
    for bad in (ct / "NCP").rglob("*.npy"):
        bad.write_bytes(b"broken")
    with pytest.raises(DataError, match="no scan of NCP can be used; the first: "):
        make_data(ct, skip_bad=True)


def test_pictures_are_scaled_by_255(tmp_path, write_slices):
    for label, name in enumerate(("NCP", "CP")):
        write_slices(tmp_path / name / "1" / "2", range(6), label)
    data = make_data(tmp_path, split_by="none", size=(0, 20, 20))
    assert data.units == "uint8"
    volumes = next(iter(data.loader([0]))).volumes
    stored = np.asarray(Image.open(tmp_path / "CP" / "1" / "2" / "0003.png"))
    assert torch.allclose(volumes[0, 0, 3] * 255, torch.tensor(stored).float(), atol=0.1)


def test_mixed_units_need_a_word(ct, tmp_path_factory, write_scan, write_slices):
    write_slices(ct / "NCP" / "NCP7" / "1")
    with pytest.raises(DataError, match=r"NCP/NCP7/1: its values are uint8.*--mixed-units"):
        make_data(ct)
    data = make_data(ct, mixed_units=True, split_by="none")
    volumes = torch.cat([batch.volumes for batch in data.loader(range(len(data.scans)))])
    assert (volumes.mean(dim=(1, 2, 3, 4)) - 0.5).abs().max() < 0.05
    shutil.rmtree(ct / "NCP" / "NCP7")
    write_scan(ct / "NCP" / "NCP7" / "a.npy", 5, dtype=np.uint8)
    data = make_data(ct, split_by="none")
    with pytest.raises(DataError, match=r"NCP/NCP7/a\.npy: its values are uint8"):
        list(data.train_dataloader())


def test_masks_from_a_folder(ct, tmp_path_factory):
    masks = tmp_path_factory.mktemp("masks")
    for scan in find_scans(ct).scans:
        mask = np.zeros((12, 20, 22), np.uint8)
        mask[:, :10] = 1
        (masks / scan.path).parent.mkdir(parents=True, exist_ok=True)
        np.save(masks / scan.path, mask)
    volumes = next(iter(make_data(ct, lung_mask=str(masks)).loader([0]))).volumes
    assert volumes[..., 14:, :].max() == 0
    assert volumes[..., :10, :].mean() > 0.3
    (masks / "CP" / "CP0" / "a.npy").unlink()
    with pytest.raises(DataError, match=r"the mask of CP/CP0/a\.npy; give it"):
        make_data(ct, lung_mask=str(masks))
    shutil.rmtree(masks / "CP")
    shutil.rmtree(masks / "NCP")
    with pytest.raises(DataError, match=r"masks0: no mask for CP/CP0/a\.npy"):
        make_data(ct, lung_mask=str(masks))


def test_one_mask_is_not_laid_on_two_scans(ct, tmp_path_factory):
    masks = tmp_path_factory.mktemp("masks")
    np.save(masks / "a.npy", np.ones((12, 20, 22), np.uint8))
    data = make_data(ct, lung_mask=str(masks), split_by="none")
    with pytest.raises(DataError, match=r"a\.npy: of CP/CP0/a\.npy, or of CP/CP1/a\.npy\?"):
        list(data.loader([0, 2]))


def test_notes_of_the_reader_are_passed_on(ct, caplog):
    np.save(ct / "CP" / "CP0" / "a.npy", np.full((12, 20, 22), 40, np.int16))
    with caplog.at_level(logging.WARNING):
        make_data(ct)
    assert "CP/CP0/a.npy: does not look like a chest CT in HU" in caplog.text


def test_the_hash_follows_the_set(ct):
    before = make_data(ct).data_hash
    assert make_data(ct, seed=5).data_hash == before
    assert make_data(ct, limit=4).data_hash != before


def test_options_are_checked(ct):
    with pytest.raises(ValueError, match="batch_size must be >= 1"):
        make_data(ct, batch_size=0)
    with pytest.raises(ValueError, match="max_slices needs a size that keeps all slices"):
        make_data(ct, max_slices=8)
    with pytest.raises(ValueError, match="window must be low < high"):
        make_data(ct, window=(400, -1000))


def test_batches_travel_between_processes():
    batch = Batch(torch.zeros(1, 1, 2, 2, 2), torch.tensor([1]), torch.tensor([0]))
    assert pickle.loads(pickle.dumps(batch)).target == 1


def smooth_volumes(count, shape=(3, 33, 41)):
    """Blobs that are far from the border and from symmetric."""
    _, h, w = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    blob = np.exp(-8 * ((h + 0.2) ** 2 + (w - 0.25) ** 2))
    return torch.tensor(blob, dtype=torch.float32).expand(count, 1, *shape).clone() * 0.8


def centre_of(volume):
    h, w = (torch.arange(n) - (n - 1) / 2 for n in volume.shape[-2:])
    mass = volume.sum()
    return (volume.sum((0, 1, 3)) @ h / mass).item(), (volume.sum((0, 1, 2)) @ w / mass).item()


def test_augmented_volumes_are_turned_scaled_and_mirrored():
    volumes = smooth_volumes(64)
    changed = augment(volumes, range(64))
    assert changed.shape == volumes.shape
    assert changed.min() >= 0
    assert changed.max() <= 1
    weight = (changed - 0.1).clamp(min=0)
    centres = np.array([centre_of(volume) for volume in weight])
    h, w = centre_of((volumes[0] - 0.1).clamp(min=0))
    mirrored = centres[:, 1] < 0
    assert 20 < mirrored.sum() < 44
    radius = np.hypot(*centres.T) / np.hypot(h, w)
    turned = np.degrees(np.arctan2(np.abs(centres[:, 1]), -centres[:, 0]) - np.arctan2(w, -h))
    assert 0.85 < radius.min() < 0.95
    assert 1.05 < radius.max() < 1.15
    assert 7 < np.abs(turned).max() < 11.5
    assert not augment(volumes, range(64), flip=False)[:, :, :, :, :12].gt(0.4).any()


def test_brightness_and_noise_stay_small():
    flat = torch.full((40, 1, 4, 32, 32), 0.5)
    middle = augment(flat, range(40), window=1000.0)[..., 8:24, 8:24]
    means, deviations = middle.mean((1, 2, 3, 4)), middle.std((1, 2, 3, 4))
    assert 0.01 < (means - 0.5).abs().max() < 0.5 * 0.02 + 20 / 1000 + 0.001
    assert 0.006 < deviations.max() < 0.011
    assert deviations.min() < 0.002


def test_augment_checks_its_seeds():
    with pytest.raises(ValueError, match="2 volumes need as many seeds"):
        augment(torch.zeros(2, 1, 4, 4, 4), [1])
