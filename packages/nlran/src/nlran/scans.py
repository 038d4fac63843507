"""Which scans a folder, a manifest or a MedMNIST file holds, of which class and whose; no torch.

Layouts (see `find_scans`)::

    FOLDER/CLASS/scan                       a scan is a file (NIfTI, MetaImage, DICOM, NumPy)
    FOLDER/CLASS/PATIENT/scan               or a folder of DICOM files or of png or jpg slices
    FOLDER/{train,val,test}/CLASS/...       published splits
    FOLDER and a csv                        path,label[,patient_id,split]
    FILE.npz                                MedMNIST's 3-D sets

What begins with a dot, and __MACOSX, is passed over.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from papercommons.errors import DataError, nearest

from nlran.content import find_copies, sample, scan_files
from nlran.layouts import DIAGNOSES, canonical, in_folders, in_manifest, in_medmnist
from nlran.medmnist import find_item, is_medmnist
from nlran.slices import natural_key
from nlran.tables import kept_slices
from nlran.volumes import Volume, is_picture, read_volume, visible_files, volume_kind


@dataclass(frozen=True)
class Scan:
    """One scan.

    Attributes:
        path: relative to the root of its set, with forward slashes; ``name.npz#train/12`` for an
            item of a MedMNIST file.
        label: number of its class.
        patient: id, unique over the set; the scan itself where nothing is known.
        split: train, val or test where it is published.
        slices: rule for `kept_slices`, where Clean-CC-CCII corrects the scan.
        kind: of file, see `volume_kind`.
    """

    path: str
    label: int
    patient: str
    split: str | None = None
    slices: str = ""
    kind: str = ""


@dataclass(frozen=True)
class ScanSet:
    """Scans with their classes and patients.

    Attributes:
        root: folder that the scans' paths are relative to.
        scans: sorted by path, or in the order of the manifest.
        classes: names; a label is an index into it.
        layout: what was recognised, in words.
        patients_known: False where every scan counts as a patient of its own for want of ids.
        notes: what was left out or is odd, a sentence each.
        copies: groups of scans with equal content, as places in `scans`.
        skipped: path and reason of scans left out as unusable.
        arrays: uint8 arrays of a MedMNIST file by name, each (N, D, H, W); else empty.
    """

    root: Path
    scans: Sequence[Scan]
    classes: Sequence[str]
    layout: str
    patients_known: bool
    notes: tuple[str, ...] = ()
    copies: Sequence[Sequence[int]] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.scans)

    def files(self, scan: Scan) -> list[Path]:
        """Return the files of a scan; of a MedMNIST item the file it is in."""
        return scan_files(self.root / (scan.path.partition("#")[0] if self.arrays else scan.path))

    def hash(self) -> str:
        """Return a short hash of classes, paths, labels, and names, sizes and samples of files."""
        digest = hashlib.sha256(repr(list(self.classes)).encode())
        seen: dict[tuple[Path, ...], str] = {}  # the items of a MedMNIST file share one
        for scan in self.scans:
            files = tuple(self.files(scan))
            if files not in seen:
                sizes = [(file.name, file.stat().st_size) for file in files]
                seen[files] = f"{sizes}{sample(files)}"
            digest.update(repr((scan.path, scan.label, seen[files])).encode())
        return digest.hexdigest()[:16]

    def subset(self, places: Sequence[int]) -> ScanSet:
        """Return the set with only the scans at `places`, ascending."""
        new = {old: place for place, old in enumerate(places)}
        copies = [[new[place] for place in group if place in new] for group in self.copies]
        return replace(
            self,
            scans=[self.scans[place] for place in places],
            copies=[group for group in copies if len(group) > 1],
        )

    def limit(self, count: int) -> ScanSet:
        """Return at most `count` scans of each class, of many patients and of all splits."""
        turns: Counter[object] = Counter()
        chosen: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
        for place, scan in enumerate(self.scans):
            nth = turns[scan.patient]
            turn = turns[scan.label, scan.split, nth]
            chosen[scan.label].append((nth, turn, place))
            turns[scan.patient] += 1
            turns[scan.label, scan.split, nth] += 1
        kept = [place for ranked in chosen.values() for *_, place in sorted(ranked)[:count]]
        return self.subset(sorted(kept))

    def without(self, bad: Mapping[int, str]) -> ScanSet:
        """Return the set without some scans, which it lists as skipped.

        Args:
            bad: place of a scan -> why it is left out.

        Raises:
            DataError: a class would be left without scans.
        """
        rest = self.subset([place for place in range(len(self)) if place not in bad])
        present = {scan.label for scan in rest.scans}
        for place, why in bad.items():
            if self.scans[place].label not in present:
                name = self.classes[self.scans[place].label]
                raise DataError(f"{self.root}: no scan of {name} can be used; the first: {why}")
        skipped = [(self.scans[place].path, why) for place, why in bad.items()]
        return replace(rest, skipped=(*self.skipped, *skipped))


def find_scans(
    data: str | Path,
    *,
    manifest: str | Path | None = None,
    classes: Sequence[str] | None = None,
    skip_bad: bool = False,
    check: bool = True,
    complete: bool = True,
) -> ScanSet:
    """Return the scans in a folder or MedMNIST file; nothing is decoded.

    Classes are ordered NCP, CP, Normal if there are no others, else by name. COVID-CT-MD's folders
    are taken for these three. The patient of a scan is the topmost folder between class and scan,
    together with the class; Clean-CC-CCII's and CC-CCII's csv files beside the class folders are
    read. Copies of one scan in a class count as one patient. A patient's name under two classes
    counts as two patients, but for CC-CCII, whose ids are unique.

    Args:
        data: folder in one of the layouts above, or MedMNIST's .npz file.
        manifest: csv of the scans in `data`, see `read_manifest`; it decides alone.
        classes: the classes to take, in this order; None: all.
        skip_bad: leave out scans of the manifest that are missing instead of raising.
        check: refuse a patient in two classes, and copies of one scan in two classes or splits.
        complete: whether each of the given `classes` must have scans; if not, one may be absent
            where there are no others than those given.

    Raises:
        DataError: nothing found, fewer than two classes, an unknown or empty class, slices lying
            loose, a link or path that leads out of `data`, or what `check` refuses.
    """
    root = Path(data)
    if not root.exists():
        raise DataError(f"{data}: no such folder; expected {data}/CLASS/scan")
    wanted = None if classes is None else [canonical(name) for name in classes]
    if manifest is not None:
        found = in_manifest(root, Path(manifest), skip_bad=skip_bad)
    elif is_medmnist(root):
        found = in_medmnist(root)
    elif root.is_dir() and volume_kind(root) is None:
        found = in_folders(root, wanted)
    else:
        raise DataError(f"{data}: one scan; expected a set, {root.parent}/CLASS/scan")
    seen = found.seen or {scan.label for scan in found.scans}
    names = _choose_classes(root, seen, wanted, complete)
    rows = [scan for scan in found.scans if scan.label in names]
    if others := len(found.scans) - len(rows):
        found.notes.append(f"left out: {others} scans of other classes")
    numbers = {name: number for number, name in enumerate(names)}
    scans = [Scan(s.path, numbers[s.label], s.patient, s.split, s.slices, s.kind) for s in rows]
    copies = [] if found.arrays else find_copies([root / scan.path for scan in scans])
    if check:
        _check_patients(root, scans, names)
        _check_copies(root, scans, copies)
    if copies:
        alike = "; ".join(" = ".join(scans[i].path for i in group) for group in copies[:3])
        found.notes.append(f"copies of a scan count as one patient ({len(copies)}): {alike}")
    return ScanSet(
        root if root.is_dir() else root.parent,
        _join_patients(scans, copies),
        names,
        found.layout,
        found.patients_known,
        tuple(found.notes),
        copies,
        tuple(found.skipped),
        found.arrays,
    )


def _choose_classes(
    root: Path, found: set[str], wanted: Sequence[str] | None, complete: bool
) -> list[str]:
    """Return the classes in their order: as wanted, or NCP, CP, Normal, or by name."""
    for name in wanted or ():
        if name not in found and (complete or not found <= set(wanted or ())):
            seen = ", ".join(sorted(found)) or "none"
            raise DataError(f"{root}: no class {name} (seen: {seen}){nearest(name, found)}")
    if wanted is not None:
        names = list(dict.fromkeys(wanted))
    elif found <= set(DIAGNOSES):
        names = [name for name in DIAGNOSES if name in found]
    elif all(name.isdecimal() for name in found):
        names = sorted(found, key=int)
    else:
        names = sorted(found)
    if len(names) > 1:
        return names
    inner = root / names[0]
    nested = inner.is_dir() and sum(path.is_dir() for path in inner.iterdir()) > 1
    hint = f" (or was {inner} meant?)" if nested else ""
    raise DataError(f"{root}: only one class found, {names[0]}; two are needed{hint}")


def _check_patients(root: Path, scans: Sequence[Scan], names: Sequence[str]) -> None:
    first: dict[str, Scan] = {}
    for scan in scans:
        other = first.setdefault(scan.patient, scan)
        if other.label != scan.label:
            raise DataError(
                f"{root}: patient {scan.patient} is in two classes: {other.path} is "
                f"{names[other.label]}, {scan.path} is {names[scan.label]}; correct one"
            )


def _check_copies(root: Path, scans: Sequence[Scan], copies: Sequence[Sequence[int]]) -> None:
    for group in copies:
        for what, values in (
            ("classes", {scans[i].label for i in group}),
            ("splits", {scans[i].split for i in group}),
        ):
            if len(values) > 1:
                paths = " and ".join(scans[i].path for i in group[:3])
                raise DataError(f"{root}: the same scan in two {what}: {paths}; remove one")


def _join_patients(scans: Sequence[Scan], copies: Sequence[Sequence[int]]) -> list[Scan]:
    """Return the scans with all patients of a group of copies made one."""
    joined = list(scans)
    for group in copies:
        one, many = joined[group[0]].patient, {joined[i].patient for i in group}
        joined = [replace(s, patient=one) if s.patient in many else s for s in joined]
    return joined


def read_scan(scans: ScanSet, scan: Scan, *, allow_gaps: bool = False) -> Volume:
    """Return the volume of a scan.

    Args:
        scans: its set.
        scan: one of them.
        allow_gaps: see `read_volume`.

    Raises:
        DataError: it cannot be read.
    """
    if scans.arrays:
        array = find_item(scans.arrays, scan.path).astype(np.float32)
        spacing = (1.0, 1.0, 1.0)
        kind = "medmnist"
        return Volume(array, spacing, np.eye(4), "uint8", kind, geometry=False, stored="uint8")
    path = scans.root / scan.path
    volume = read_volume(path, allow_gaps=allow_gaps)
    if not scan.slices:
        return volume
    stems = sorted((f.stem for f in visible_files(path) if is_picture(f)), key=natural_key)
    if not all(stem.isdecimal() for stem in stems):
        raise DataError(f"{path}: its slices are not numbered as Clean-CC-CCII's list expects")
    kept = kept_slices([int(stem) for stem in stems], scan.slices)
    if len(kept) < 2:
        raise DataError(f"{path}: Clean-CC-CCII's list leaves {len(kept)} of its slices")
    return replace(volume, array=volume.array[kept])
