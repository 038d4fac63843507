"""How sets of scans lie on disk: class folders, published splits, manifests, MedMNIST files."""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from papercommons.errors import DataError

from nlran.content import companions
from nlran.medmnist import item_path, read_medmnist
from nlran.tables import (
    SPLIT_NAMES,
    read_cleaned,
    read_lesion_slices,
    read_manifest,
    read_unzip_list,
)
from nlran.volumes import is_picture, volume_kind

DIAGNOSES = ("NCP", "CP", "Normal")
_COVID_CT_MD = {"covid-19 subjects": "NCP", "cap subjects": "CP", "normal subjects": "Normal"}
log = logging.getLogger("papercommons")
_CANONICAL = {name.lower(): name for name in DIAGNOSES} | _COVID_CT_MD


class Found(NamedTuple):
    """One scan; see `nlran.scans.Scan`."""

    path: str
    label: str
    patient: str
    split: str | None = None
    slices: str = ""
    kind: str = ""


@dataclass
class Finding:
    """What was found; see `nlran.scans.ScanSet`."""

    layout: str
    scans: list[Found] = field(default_factory=list)
    patients_known: bool = True
    notes: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)  # classes, also those not wanted


def canonical(label: str) -> str:
    """Return the name of a class; NCP, CP and Normal are known in any case and as COVID-CT-MD's."""
    return _CANONICAL.get(label.lower(), label)


def in_medmnist(path: Path) -> Finding:
    """Return the items of a MedMNIST file; every item counts as a patient.

    Raises:
        DataError: see `read_medmnist`.
    """
    arrays, labels = read_medmnist(path)
    finding = Finding(f"MedMNIST file {path.name}", patients_known=False, arrays=arrays)
    for split, numbers in labels.items():
        names = (item_path(path, split, index) for index in range(len(numbers)))
        finding.scans += [
            Found(name, str(n), name, split, kind="medmnist")
            for name, n in zip(names, numbers, strict=True)
        ]
    return finding


def in_manifest(root: Path, manifest: Path, *, skip_bad: bool = False) -> Finding:
    """Return the scans that a manifest lists.

    Args:
        root: what its paths are relative to and must not lead out of.
        manifest: the csv, see `read_manifest`.
        skip_bad: leave out scans that are missing or no scans.

    Raises:
        DataError: see `read_manifest`; a path leads out of `root`, or there is no scan.
    """
    finding = Finding(f"manifest {manifest.name}")
    inside = root.resolve()
    for row in read_manifest(manifest):
        where = f"{manifest}: line {row.line}: {row.path}"
        path = (root / row.path).resolve()
        if not path.is_relative_to(inside):
            raise DataError(f"{where}: leads out of {root}; list scans inside --data only")
        kind = volume_kind(path)
        if kind is None:
            why = "no such file or folder" if not path.exists() else "not a scan that nlran reads"
            if not skip_bad:
                raise DataError(f"{where}: {why}; correct the manifest or pass --skip-bad")
            finding.skipped.append((row.path, why))
            continue
        name = path.relative_to(inside).as_posix()
        finding.patients_known = bool(row.patient)
        finding.scans.append(
            Found(name, canonical(row.label), row.patient or name, row.split, kind=kind)
        )
    if not finding.scans:
        raise DataError(f"{manifest}: none of its scans is in {root}; its paths are relative to it")
    return finding


def in_folders(root: Path, classes: Sequence[str] | None) -> Finding:
    """Return the scans in class folders, which may lie in folders of splits.

    Args:
        root: the folder.
        classes: those wanted, in their canonical spelling; None: all.

    Raises:
        DataError: no, unknown or empty classes, loose slices, or links that lead out of `root`.
    """
    finding = Finding("class folders")
    top = root
    if (studies := root / "studies") in _subfolders(root, root) and [*studies.glob("CT-[0-9]")]:
        top = studies
    splits = {folder: SPLIT_NAMES.get(folder.name.lower()) for folder in _subfolders(top, root)}
    if "train" in splits.values() and all(splits.values()):
        finding.layout = "class folders in train, val and test folders"
        if len(set(splits.values())) < len(splits):
            names = ", ".join(folder.name for folder in splits)
            raise DataError(f"{top}: two folders for one split ({names}); put both in one")
    else:
        splits = {top: None}
    spare: Counter[str] = Counter()
    for place, split in splits.items():
        for folder in _class_folders(place, root, classes, finding):
            finding.scans += _in_class(folder, root, split, spare)
    _recognise(top, finding)
    if spare := +spare:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in spare.most_common(5))
        finding.notes.append(f"left out, as no scans: {kinds}")
    return finding


def find_scan_files(places: Sequence[str]) -> list[tuple[Path, str]]:
    """Return the scans meant by files and folders, with their names for outputs and masks.

    Args:
        places: scans, or folders with scans at any depth; a folder of masks right in one of them is
            passed over.

    Returns:
        Path and name of each scan, by place and path. The name is relative to the place, with
        forward slashes; of a place that is a scan it is its own.

    Raises:
        DataError: a place does not exist or holds no scan, or links lead out of it.
    """
    found: list[tuple[Path, str]] = []
    for place in map(Path, places):
        if not place.exists():
            raise DataError(f"{place}: no such file or folder")
        if place.is_file() or _kind(place, place):
            named = place.resolve() if place.name in ("", "..") else place
            found.append((place, named.name))
            continue
        spare: Counter[str] = Counter()
        paths = [path for path, _ in _scans_below(place, place, spare, {place.resolve()})]
        if spare := +spare:
            log.info("%s: %d files are no scans", place, spare.total())
        below = [(path, path.relative_to(place)) for path in paths]
        scans = [
            (path, name.as_posix()) for path, name in below if name.parts[0].lower() != "masks"
        ]
        if not scans:
            raise DataError(
                f"{place}: no scans in it; expected NIfTI, MetaImage or NumPy files, or folders of "
                "DICOM files or of png or jpg slices"
            )
        if len(scans) < len(below):
            log.warning("%s: its folder of masks is passed over", place)
        found += scans
    return found


def _class_folders(
    place: Path, root: Path, classes: Sequence[str] | None, finding: Finding
) -> list[Path]:
    """Return the folders of the wanted classes."""
    found: dict[str, Path] = {}
    for folder in _subfolders(place, root):
        if folder.name.lower() == "masks":
            finding.notes.append(f"{folder}: taken for masks of the scans")
        elif (other := found.setdefault(canonical(folder.name), folder)) != folder:
            raise DataError(f"{folder}: the same class as {other.name}; put both in one folder")
    finding.seen |= found.keys()
    if not found:
        loose = [path for path in _entries(place, root) if volume_kind(path)]
        what = "scans without class folders" if loose else "no scans in it"
        raise DataError(f"{place}: {what}; expected {place}/CLASS/scan, or pass --manifest")
    known = [name for name in found if name in DIAGNOSES]
    if classes is None:
        odd = [folder.name for name, folder in found.items() if name not in DIAGNOSES]
        if len(known) > 1 and odd:
            raise DataError(
                f"{place}: unknown class folder {odd[0]!r} (seen: {', '.join(found)}); pass "
                f"--classes {','.join(known)} to leave it out, or name it among the classes"
            )
        return list(found.values())
    if left_out := [folder.name for name, folder in found.items() if name not in classes]:
        finding.notes.append(f"{place}: left out: {', '.join(left_out)}")
    return [folder for name, folder in found.items() if name in classes]


def _in_class(folder: Path, root: Path, split: str | None, spare: Counter[str]) -> Iterator[Found]:
    if _kind(folder, root):
        raise DataError(
            f"{folder}: slices lie directly in the class folder: give each scan a folder of its "
            "own; single 2-D slices cannot be used, nlran needs volumes"
        )
    label, empty = canonical(folder.name), True
    for path, kind in _scans_below(folder, root, spare, {folder.resolve()}):
        name, inner = path.relative_to(root).as_posix(), path.relative_to(folder).parts
        nested = len(inner) > 1 or folder.name.lower() in _COVID_CT_MD
        yield Found(name, label, f"{label}/{inner[0]}" if nested else name, split, kind=kind)
        empty = False
    if empty:
        raise DataError(
            f"{folder}: class without scans (NIfTI, MetaImage, DICOM, NumPy files, or folders of "
            "DICOM files or png/jpg slices)"
        )


def _scans_below(
    folder: Path, root: Path, spare: Counter[str], visited: set[Path]
) -> Iterator[tuple[Path, str]]:
    """Give the scans in a folder; a folder that is reached again by a link is not entered."""
    entries = _entries(folder, root)
    data = {file for path in entries for file in companions(path)}
    for path in entries:
        if path.is_dir():
            if (real := path.resolve()) in visited:
                spare["folder reached twice"] += 1
                continue
            visited.add(real)
        if kind := _kind(path, root):
            yield path, kind
            spare["folder in a scan"] += len(_subfolders(path, root))
        elif path.is_dir():
            yield from _scans_below(path, root, spare, visited)
        elif path not in data:
            spare[path.suffix.lower() or "without suffix"] += 1


def _kind(path: Path, root: Path) -> str | None:
    """Return the kind of scan; pictures beside files that are scans do not make a folder one."""
    kind = volume_kind(path)
    if not path.is_dir() or kind is None:
        return kind
    files = [file for file in _entries(path, root) if not is_picture(file) and file.is_file()]
    others = [file for file in files if volume_kind(file) not in (None, "dicom")]
    if kind == "dicom" and others:
        raise DataError(
            f"{path}: holds DICOM files and another scan ({others[0].name}); keep them apart"
        )
    return None if others else kind


def _recognise(top: Path, finding: Finding) -> None:
    """Name a published layout, and take in the lists beside its class folders."""
    names = {path.name.lower() for path in top.iterdir()}
    finding.patients_known = not any(scan.patient == scan.path for scan in finding.scans)
    if names & _COVID_CT_MD.keys():
        finding.layout = "COVID-CT-MD (subject folders of DICOM files)"
    elif any(top.glob("CT-[0-9]")):
        finding.layout = "MosMedData (studies by severity)"
    listed, lesions, cleaned = read_unzip_list(top), read_lesion_slices(top), read_cleaned(top)
    if listed or lesions or cleaned:
        finding.layout = "CC-CCII (class/patient/scan)"
        finding.scans = list(_clean(finding, cleaned))
    if absent := set(listed) - {scan.path for scan in finding.scans} - dict(finding.skipped).keys():
        finding.notes.append(
            f"{len(absent)} of {len(listed)} scans listed by CC-CCII are not there, "
            f"e.g. {min(absent)}"
        )
    if lesions:
        count = sum(map(len, lesions.values()))
        finding.notes.append(f"{count} slices of {len(lesions)} scans are listed with lesions")
    owners = defaultdict(set)
    for scan in finding.scans:
        owners[scan.patient.rpartition("/")[2]].add(scan.label)
    shared = [name for name, labels in owners.items() if len(labels) > 1]
    if finding.layout.startswith("CC-CCII"):  # whose ids are unique
        for place, scan in enumerate(finding.scans):
            if (patient := scan.patient.rpartition("/")[2]) in shared:
                finding.scans[place] = scan._replace(patient=patient)
    elif shared:
        finding.notes.append(
            f"{len(shared)} names stand under two classes (e.g. {shared[0]}) and are taken for "
            "different patients; if they are not, give patient_id in a --manifest"
        )


def _clean(finding: Finding, rules: dict[str, str]) -> Iterator[Found]:
    changed = 0
    for scan in finding.scans:
        rule = rules.get(scan.path, "|")
        if "discard" in rule or "no image" in rule:
            finding.skipped.append((scan.path, "discarded by Clean-CC-CCII's list"))
            continue
        changed += rule != "|"
        yield scan._replace(slices=rule if rule != "|" else "")
    if rules:
        finding.notes.append(
            f"Clean-CC-CCII's list corrects the slices of {changed} scans and discards "
            f"{len(finding.skipped)}"
        )


def _subfolders(folder: Path, root: Path) -> list[Path]:
    return [path for path in _entries(folder, root) if path.is_dir()] if folder.is_dir() else []


def _entries(folder: Path, root: Path) -> list[Path]:
    """Return what is in a folder, by name; links that lead out of `root` are refused."""
    try:
        with os.scandir(folder) as listed:
            entries = [e for e in listed if not e.name.startswith(".") and e.name != "__MACOSX"]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})") from None
    inside = root.resolve()
    for entry in entries:
        if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(inside):
            raise DataError(
                f"{entry.path}: link out of the folder; copy what it means, or remove it"
            )
    return [Path(entry.path) for entry in sorted(entries, key=lambda entry: entry.name)]
