import csv
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from nlran.scans import Scan, ScanSet, find_scans
from nlran.splits import read_splits, split_notes, split_scans, write_splits
from papercommons.errors import DataError


def make_set(rows, classes=("NCP", "CP", "Normal"), *, patients_known=True, copies=()):
    """A set of (label, patient) or (label, patient, split) rows."""
    scans = [Scan(f"scan{place}", *row) for place, row in enumerate(rows)]
    return ScanSet(Path("ct"), scans, classes, "test", patients_known, copies=copies)


def random_set(random):
    """Between 3 and 12 patients of each class, with 1 to 5 scans each, in random order."""
    rows = [
        (label, f"{label}-{patient}")
        for label in range(random.integers(2, 4))
        for patient in range(random.integers(3, 13))
        for _ in range(random.integers(1, 6))
    ]
    random.shuffle(rows)
    return make_set([(int(label), str(patient)) for label, patient in rows])


def test_no_patient_is_in_two_splits_in_1000_random_sets():
    random = np.random.default_rng(0)
    for seed in range(1000):
        scans = random_set(random)
        val, test = random.uniform(0.01, 0.45, 2)
        splits = split_scans(scans, val_fraction=val, test_fraction=test, seed=seed)
        assert sorted(chain(*splits.values())) == list(range(len(scans)))
        homes = {}
        for name, places in splits.items():
            for place in places:
                assert homes.setdefault(scans.scans[place].patient, name) == name
        labels = {scan.label for scan in scans.scans}
        for places in splits.values():
            assert {scans.scans[place].label for place in places} == labels


def test_shares_hold_and_follow_the_seed_alone():
    rows = [(label, f"{label}-{patient}") for label in range(3) for patient in range(100)]
    scans = make_set(rows)
    splits = split_scans(scans, val_fraction=0.1, test_fraction=0.2)
    assert [len(splits[name]) for name in ("train", "val", "test")] == [210, 30, 60]
    assert splits == split_scans(scans, val_fraction=0.1, test_fraction=0.2)
    assert splits["test"] != split_scans(scans, val_fraction=0.1, test_fraction=0.2, seed=1)["test"]
    shuffled = make_set(rows[::-1])
    test = {scans.scans[place].patient for place in splits["test"]}
    again = split_scans(shuffled, val_fraction=0.1, test_fraction=0.2)["test"]
    assert {shuffled.scans[place].patient for place in again} == test


def test_a_share_of_zero_makes_no_split():
    scans = make_set([(label, f"{label}-{patient}") for label in range(3) for patient in range(2)])
    splits = split_scans(scans, val_fraction=0, test_fraction=0.1)
    assert splits["val"] == []
    assert len(splits["test"]) == 3


def test_too_few_patients_are_an_error():
    scans = make_set([(0, "a"), (0, "b"), (0, "b"), (1, "c"), (1, "d"), (1, "e")])
    with pytest.raises(DataError, match="class NCP has 2 patients, too few for train and val"):
        split_scans(scans)
    assert len(split_scans(scans, by="scan")["train"]) == 2


@pytest.mark.parametrize("shares", [(-0.1, 0.1), (0.5, 0.5)])
def test_shares_out_of_range(shares):
    with pytest.raises(ValueError, match="must be >= 0 and sum to less than 1"):
        split_scans(make_set([]), val_fraction=shares[0], test_fraction=shares[1])


def test_the_leak_of_splitting_by_scan_is_counted():
    rows = [(label, f"{label}-{patient}") for label in range(2) for patient in range(10)] * 3
    scans = make_set(rows)
    splits = split_scans(scans, by="scan", val_fraction=0, test_fraction=0.2)
    training = {scans.scans[place].patient for place in splits["train"]}
    leaked = sum(scans.scans[place].patient in training for place in splits["test"])
    assert leaked > 0
    (note,) = split_notes(scans, splits)
    assert note.startswith(f"LEAK: {leaked} of 12 test scans")
    assert (
        len(split_notes(scans, split_scans(scans, by="scan", val_fraction=0.4, test_fraction=0.4)))
        == 3
    )
    assert split_notes(scans, split_scans(scans)) == []


def test_unknown_patients_are_noted_and_no_split_trains_on_all():
    scans = make_set([(label, str(4 * label + p)) for label in range(2) for p in range(4)])
    unknown = make_set([(s.label, s.patient) for s in scans.scans], patients_known=False)
    assert "patients are unknown" in split_notes(unknown, split_scans(unknown))[0]
    splits = split_scans(unknown, by="none")
    assert splits == {"train": list(range(8)), "val": [], "test": []}
    assert split_notes(unknown, splits) == []


PUBLISHED = [
    (0, "a", "train"),
    (0, "b", "train"),
    (0, "c", "test"),
    (1, "d", "train"),
    (1, "e", "train"),
    (1, "f", "test"),
]


def test_published_splits_stay_and_val_comes_from_train():
    splits = split_scans(make_set(PUBLISHED, ("x", "y")), test_fraction=0.5)
    assert splits["test"] == [2, 5]
    assert sorted(splits["train"] + splits["val"]) == [0, 1, 3, 4]
    assert len(splits["val"]) == 2
    whole = split_scans(make_set(PUBLISHED, ("x", "y")), by="manifest", val_fraction=0)
    assert whole == {"train": [0, 1, 3, 4], "val": [], "test": [2, 5]}


def test_published_splits_that_tear_a_patient_apart():
    scans = make_set([*PUBLISHED, (0, "a", "test")], ("x", "y"))
    with pytest.raises(DataError, match="patient a is in train and test"):
        split_scans(scans)
    splits = split_scans(scans, by="manifest", val_fraction=0)
    assert splits["test"] == [2, 5, 6]
    assert "LEAK: 1 of 3 test scans" in split_notes(scans, splits)[0]


def test_published_splits_with_a_patient_in_val_and_test():
    scans = make_set([*PUBLISHED, (0, "c", "val"), (1, "g", "val")], ("x", "y"))
    with pytest.raises(DataError, match=r"patient c is in val and test \(scan2\)"):
        split_scans(scans)
    (note,) = split_notes(scans, split_scans(scans, by="manifest"))
    assert note.startswith("LEAK: 1 of 2 test scans (50%) have a scan of the same patient in val")


def test_published_splits_must_be_complete():
    with pytest.raises(DataError, match="scan6 is in no split"):
        split_scans(make_set([*PUBLISHED, (0, "g")], ("x", "y")))
    with pytest.raises(DataError, match="needs a column split"):
        split_scans(make_set([(0, "a"), (1, "b")]), by="manifest")
    with pytest.raises(DataError, match="train split has no scan of z"):
        split_scans(make_set([*PUBLISHED, (2, "g", "test")], ("x", "y", "z")))


def test_copies_must_not_fall_in_two_splits():
    rows = [(label, str(6 * label + patient)) for label in range(2) for patient in range(6)]
    scans = make_set(rows, copies=[list(range(6))])
    with pytest.raises(DataError, match="the same scan in two splits: scan0 and scan1"):
        split_scans(scans, by="scan")


def test_splits_csv_is_a_manifest(tmp_path):
    value = 0
    for name in ("NCP", "CP"):
        for patient in range(6):
            (tmp_path / name / f"{name}{patient}").mkdir(parents=True)
            array = np.full((4, 8, 8), value, np.int16)
            np.save(tmp_path / name / f"{name}{patient}" / "a.npy", array)
            value += 1
    scans = find_scans(tmp_path)
    splits = split_scans(scans, val_fraction=0.2, test_fraction=0.2, seed=3)
    write_splits(tmp_path / "splits.csv", scans, splits)
    with (tmp_path / "splits.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert list(rows[0]) == ["scan", "patient", "class", "split"]
    assert read_splits(tmp_path / "splits.csv", scans) == splits
    again = find_scans(tmp_path, manifest=tmp_path / "splits.csv")
    assert again.classes == ["NCP", "CP"]
    repeated = split_scans(again, by="manifest")
    for name, places in splits.items():
        before = {(scans.scans[p].path, scans.scans[p].patient) for p in places}
        assert {(again.scans[p].path, again.scans[p].patient) for p in repeated[name]} == before


def test_scans_of_another_run_are_in_no_split(tmp_path):
    scans = make_set(
        [(label, str(4 * label + patient)) for label in range(2) for patient in range(4)]
    )
    splits = split_scans(scans)
    write_splits(tmp_path / "splits.csv", scans, {**splits, "train": splits["train"][1:]})
    with pytest.raises(DataError, match=r"is in no split of .*--split all"):
        read_splits(tmp_path / "splits.csv", scans)
    (tmp_path / "splits.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="no column path and label"):
        read_splits(tmp_path / "splits.csv", scans)
