"""Train, val and test, divided by patient; no torch."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from papercommons.errors import DataError
from papercommons.files import write_csv

from nlran.scans import Scan, ScanSet
from nlran.tables import read_manifest

SplitBy = Literal["patient", "scan", "manifest", "none"]
Splits = dict[str, list[int]]
_PAIRS = (("train", "val"), ("train", "test"), ("val", "test"))


def split_scans(
    scans: ScanSet,
    *,
    by: SplitBy = "patient",
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
) -> Splits:
    """Return the places of the scans of train, val and test, ascending.

    A patient's place follows from the seed and the patients of its class. Every class is divided in
    the same shares, and is in every split that is asked for.

    Args:
        scans: the set.
        by: patient: all scans of a patient fall in one split, and published splits stay; scan: each
            scan by itself, as the paper did, so that patients with several scans are in training
            and test (`split_notes` says how many); manifest: the published splits, even if they
            leak; none: everything is for training. Published splits without val give it from train.
        val_fraction: share of the patients of each class, in [0, 1); 0: no val split.
        test_fraction: likewise.
        seed: another seed gives another split.

    Raises:
        ValueError: shares that are negative or leave nothing to train with.
        DataError: a class has fewer patients than there are splits, published splits are missing,
            or they tear a patient apart (by patient), or copies of a scan fall in two splits.
    """
    shares = {"val": val_fraction, "test": test_fraction}
    if min(shares.values()) < 0 or sum(shares.values()) >= 1:
        raise ValueError(f"shares must be >= 0 and sum to less than 1, got {shares}")
    published = any(scan.split for scan in scans.scans)
    if by == "none":
        return {"train": list(range(len(scans))), "val": [], "test": []}
    if by == "manifest" or (by == "patient" and published):
        splits = _published(scans, by)
        if not splits["val"] and val_fraction > 0:
            splits |= _divide(scans, splits["train"], _patient, {"val": val_fraction}, seed)
    else:
        key = _patient if by == "patient" else _path
        splits = _divide(scans, range(len(scans)), key, shares, seed)
    _check_copies(scans, splits)
    return splits


def split_notes(scans: ScanSet, splits: Splits) -> list[str]:
    """Return what makes results on these splits flatter, a sentence each.

    Args:
        scans: the set.
        splits: of `split_scans`.
    """
    notes = []
    if (splits["val"] or splits["test"]) and not scans.patients_known:
        notes.append(
            "patients are unknown, each scan counts as one; if a patient has several scans, give "
            "patient_id in a --manifest or a folder per patient: else the results flatter"
        )
    for first, second in _PAIRS:
        if shared := len(_shared(scans, splits, first, second)):
            count = len(splits[second])
            notes.append(
                f"LEAK: {shared} of {count} {second} scans ({shared / count:.0%}) have a scan of "
                f"the same patient in {first}: the results flatter; split by patient to judge"
            )
    return notes


def _published(scans: ScanSet, by: SplitBy) -> Splits:
    splits: Splits = {"train": [], "val": [], "test": []}
    for place, scan in enumerate(scans.scans):
        if scan.split is None:
            raise DataError(
                f"{scans.root}: {scan.path} is in no split; --split-by manifest needs a column "
                "split in the --manifest, or folders train, val and test"
            )
        splits[scan.split].append(place)
    present = {scans.scans[place].label for place in splits["train"]}
    if lost := [name for label, name in enumerate(scans.classes) if label not in present]:
        raise DataError(f"{scans.root}: the published train split has no scan of {lost[0]}")
    for first, second in _PAIRS if by == "patient" else ():
        if torn := _shared(scans, splits, first, second):
            scan = scans.scans[torn[0]]
            raise DataError(
                f"{scans.root}: patient {scan.patient} is in {first} and {second} ({scan.path}); "
                "correct the splits, or take them as they are with --split-by manifest"
            )
    return splits


def _divide(
    scans: ScanSet,
    places: Sequence[int],
    key: Callable[[Scan], str],
    shares: dict[str, float],
    seed: int,
) -> Splits:
    """Divide places by key, class by class; what no share takes is train."""
    groups: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place in places:
        scan = scans.scans[place]
        groups[scan.label][key(scan)].append(place)
    wanted = {name: share for name, share in shares.items() if share > 0}
    splits: Splits = {"train": [], **{name: [] for name in shares}}
    for label, members in groups.items():
        if len(members) <= len(wanted):
            what = "patients" if key is _patient else "scans"
            raise DataError(
                f"{scans.root}: class {scans.classes[label]} has {len(members)} {what}, too few "
                f"for {' and '.join(['train', *wanted])}; add some, set --val-fraction or "
                "--test-fraction to 0, or train on everything with --split-by none"
            )
        order = sorted(members, key=lambda k: hashlib.sha256(f"{seed}:{k}".encode()).digest())
        spare = len(order) - len(wanted) - 1
        for name, share in wanted.items():
            more = min(max(round(share * len(members)) - 1, 0), spare)
            spare -= more
            for _ in range(1 + more):
                splits[name] += members[order.pop()]
        splits["train"] += [place for k in order for place in members[k]]
    return {name: sorted(chosen) for name, chosen in splits.items()}


def _patient(scan: Scan) -> str:
    return scan.patient


def _path(scan: Scan) -> str:
    return scan.path


def _shared(scans: ScanSet, splits: Splits, first: str, second: str) -> list[int]:
    """Return the places in the second split whose patients have scans in the first too."""
    patients = {scans.scans[place].patient for place in splits[first]}
    return [place for place in splits[second] if scans.scans[place].patient in patients]


def _check_copies(scans: ScanSet, splits: Splits) -> None:
    home = {place: name for name, places in splits.items() for place in places}
    for group in scans.copies:
        if len({home[place] for place in group}) > 1:
            paths = " and ".join(scans.scans[place].path for place in group[:3])
            raise DataError(f"{scans.root}: the same scan in two splits: {paths}; remove one")


def read_splits(path: str | Path, scans: ScanSet) -> Splits:
    """Return the places of the scans of each split as `write_splits` wrote them.

    Args:
        path: splits.csv of a run.
        scans: the set; each of its scans must be listed, by the same relative path.

    Raises:
        DataError: not such a file, or a scan is not in it.
    """
    listed = {row.path: row.split for row in read_manifest(path)}
    splits: Splits = {"train": [], "val": [], "test": []}
    for place, scan in enumerate(scans.scans):
        split = listed.get(scan.path)
        if split is None:
            raise DataError(
                f"{scans.root}: {scan.path} is in no split of {path}; if these are not the scans "
                "of the run, pass --split all"
            )
        splits[split].append(place)
    return splits


def write_splits(path: str | Path, scans: ScanSet, splits: Splits) -> None:
    """Write a csv with scan, patient, class and split of every scan; it is a manifest too.

    Args:
        path: the file.
        scans: the set.
        splits: places of scans by split.
    """
    rows = [
        {
            "scan": scans.scans[place].path,
            "patient": scans.scans[place].patient,
            "class": scans.classes[scans.scans[place].label],
            "split": name,
        }
        for name, places in splits.items()
        for place in places
    ]
    write_csv(path, rows)
