"""Which photograph has which mask: pairs, manifests and ManiDataset (section 4); needs no torch.

Layouts::

    pairs     ROOT/images/* and ROOT/labels/* (or masks/) by stem, the official layout;
              or ROOT/{train,val,test}/images and .../labels
    manifest  a .csv with the columns image, mask, method, split, source (all but image may be
              absent); or .json: rows with those names, or IMDL-BenCo's [["Tp/x.jpg", "Gt/x.png"],
              ["Tp/y.jpg", "Negative"]]; or a folder with manifest.csv
    mani      ROOT/Tp/* and ROOT/Gt/* by stem, and authentic ones in ROOT/Au/* if there is that

The archives of published sets are in `defi_net.archives`. Paths in a manifest begin at its folder
and stay below it.
"""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from papercommons.data.images import SUFFIXES, find_images
from papercommons.errors import DataError, nearest, one_line, reason

MissingMask = Literal["error", "authentic"]

AUTHENTIC = "authentic"  # the method of what was not forged
MAX_MANIFEST = 1 << 30  # bytes
SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLITS |= {"val": "val", "valid": "val", "validation": "val"}
_LABEL_FOLDERS = ("labels", "masks", "mask", "label", "gt")
_NO_MASK = ("", "negative", "none")


@dataclass(frozen=True)
class Sample:
    """One photograph.

    Attributes:
        image: its file.
        mask: file of its mask; None: it is authentic.
        method: what made the forgery; ``authentic`` for none, ``forged`` if unknown.
        split: train, val or test; empty if the set does not say.
        source: what it was made from: photographs with one source belong in one split.
        name: how reports call it: its path below the set's folder.
    """

    image: Path
    mask: Path | None
    method: str = "forged"
    split: str = ""
    source: str = ""
    name: str = ""


def find_samples(
    data: str | Path, *, layout: str = "auto", missing_mask: MissingMask = "error"
) -> list[Sample]:
    """Return the photographs of a data set, sorted by name.

    Args:
        data: a folder, or a manifest.
        layout: auto, pairs, manifest, mani, or an archive's of `defi_net.archives`.
        missing_mask: what a photograph without a mask is where the layout has masks by file:
            ``error``, or ``authentic``.

    Raises:
        DataError: no such folder, no layout fits, no images, images and masks that do not match,
            two images of one name, or a path that leads out of the folder.
        ValueError: there is no such layout.
    """
    from defi_net.archives import ARCHIVES, guess_archive

    root = Path(data)
    known = ["auto", "pairs", "manifest", "mani", *ARCHIVES]
    if layout not in known:
        hint = nearest(layout, known) or f"; there are {', '.join(known)}"
        raise ValueError(f"no layout {layout!r}{hint}")
    if not root.exists():
        raise DataError(f"{root}: no such file or folder; expected a data set (see --layout)")
    if layout == "auto":
        layout = _guess(root) or guess_archive(root)
    if layout == "pairs":
        samples = _read_pairs(root, missing_mask)
    elif layout == "manifest":
        samples = read_manifest(root / "manifest.csv" if root.is_dir() else root)
    elif layout == "mani":
        samples = _read_mani(root, missing_mask)
    else:
        samples = ARCHIVES[layout](root)
    if not samples:
        raise DataError(f"{root}: no images in it for layout {layout}")
    _check_names(root, samples)
    return sorted(samples, key=lambda sample: sample.name)


def _guess(root: Path) -> str:
    """Return the general layout that fits, or an empty string."""
    if root.is_file() or (root / "manifest.csv").is_file():
        return "manifest"
    if subfolder(root, "Tp") and subfolder(root, "Gt"):
        return "mani"
    tops = [root, *(root / folder.name for folder in root.iterdir() if folder.name in SPLITS)]
    return "pairs" if any(subfolder(top, "images") for top in tops) else ""


def subfolder(root: Path, *names: str) -> Path | None:
    """Return the sub-folder with one of these names, in any case of letters, if there is one."""
    wanted = [name.lower() for name in names]
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    by_name = {folder.name.lower(): folder for folder in reversed(folders)}
    return next((by_name[name] for name in wanted if name in by_name), None)


def _check_names(root: Path, samples: Sequence[Sample]) -> None:
    name, times = Counter(sample.name for sample in samples).most_common(1)[0]
    if times > 1:
        raise DataError(f"{root}: {one_line(name)} is there {times} times; list every image once")


def _read_pairs(root: Path, missing_mask: MissingMask) -> list[Sample]:
    tops = [(root, "")]
    if subfolder(root, "images") is None:
        tops = [
            (folder, SPLITS[folder.name.lower()])
            for folder in sorted(root.iterdir())
            if folder.is_dir() and folder.name.lower() in SPLITS
        ]
    samples: list[Sample] = []
    for top, split in tops:
        images, labels = subfolder(top, "images"), subfolder(top, *_LABEL_FOLDERS)
        if images is None or labels is None:
            lacking = "images" if images is None else "labels"
            raise DataError(
                f"{top}: no folder {lacking}; layout pairs needs images/ and labels/ with files of "
                "the same stem"
            )
        samples += match_by_stem(
            root, find_images([images]), find_images([labels]), missing_mask, split=split
        )
    return samples


def _read_mani(root: Path, missing_mask: MissingMask) -> list[Sample]:
    forged, masks, authentic = (subfolder(root, name) for name in ("Tp", "Gt", "Au"))
    if forged is None or masks is None:
        raise DataError(f"{root}: layout mani needs the folders Tp (forged) and Gt (masks)")
    samples = match_by_stem(root, find_images([forged]), find_images([masks]), missing_mask)
    for path in find_images([authentic]) if authentic else []:
        name = path.relative_to(root).as_posix()
        samples.append(Sample(path, None, AUTHENTIC, source=path.stem, name=name))
    return samples


def match_by_stem(
    root: Path,
    images: Sequence[Path],
    masks: Sequence[Path],
    missing_mask: MissingMask,
    *,
    split: str = "",
) -> list[Sample]:
    """Return the samples of images and masks with equal stems (a mask's may end in ``_mask``).

    Args:
        root: folder of the set.
        images: files.
        masks: files.
        missing_mask: what an image without a mask is.
        split: of all.

    Raises:
        DataError: a stem twice, an image without a mask, or a mask without an image.
    """
    image_of, mask_of = _by_stem(images), _by_stem(masks, "_mask")
    lacking = sorted(image_of.keys() - mask_of.keys()) if missing_mask == "error" else []
    unused = sorted(mask_of.keys() - image_of.keys())
    if lacking or unused:
        parts = []
        if lacking:
            parts.append(f"{len(lacking)} images without a mask ({shorten(lacking)})")
        if unused:
            parts.append(f"{len(unused)} masks without an image ({shorten(unused)})")
        advice = "; pass --missing-mask authentic if those are not forged" if not unused else ""
        raise DataError(f"{root}: {' and '.join(parts)}; names must agree{advice}")
    return [
        Sample(
            path,
            mask_of.get(stem),
            "forged" if stem in mask_of else AUTHENTIC,
            split,
            stem,
            path.relative_to(root).as_posix(),
        )
        for stem, path in sorted(image_of.items())
    ]


def _by_stem(paths: Sequence[Path], ending: str = "") -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        stem = path.stem.removesuffix(ending)
        if stem in found:
            raise DataError(
                f"{path}: {found[stem].name} has the same stem, so masks cannot be told apart; "
                "rename one"
            )
        found[stem] = path
    return found


def shorten(words: Iterable[str], between: str = ", ") -> str:
    """Return the first five of `words` in a line, with ``...`` if there are more.

    Args:
        words: names.
        between: what separates them.
    """
    first = list(islice(words, 6))
    return one_line(between.join([*first[:5], *(["..."] if len(first) > 5 else [])]))


def read_manifest(path: Path) -> list[Sample]:
    """Return the rows of a manifest, see the module.

    Args:
        path: .csv or .json.

    Raises:
        DataError: missing, too large, broken, a row without an image, an unknown split, or a path
            that is absolute or leads out of the manifest's folder.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a manifest (.csv or .json)")
    if path.stat().st_size > MAX_MANIFEST:
        raise DataError(f"{path}: larger than 1 GiB; split it")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; save the manifest as UTF-8") from None
    rows = _json_rows(path, text) if path.suffix.lower() == ".json" else _csv_rows(path, text)
    inside = path.parent.resolve()
    return [_row(path, inside, number, row) for number, row in enumerate(rows, start=1)]


def _csv_rows(path: Path, text: str) -> list[Mapping[str, Any]]:
    try:
        reader = csv.DictReader(text.splitlines(), strict=True)
        columns = reader.fieldnames or []
        rows: list[Mapping[str, Any]] = list(reader)
    except csv.Error as error:
        raise DataError(f"{path}: not readable as CSV ({reason(error)})") from None
    if "image" not in columns:
        raise DataError(
            f"{path}: no column image; the first line must name the columns image, mask, method, "
            f"split; it is {one_line(','.join(columns))[:100]!r}"
        )
    return rows


def _json_rows(path: Path, text: str) -> list[Mapping[str, Any]]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON ({reason(error)})") from None
    if isinstance(rows, list) and all(_is_imdl(row) for row in rows):
        return [{"image": image, "mask": mask} for image, mask in rows]
    if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
        return rows
    raise DataError(
        f'{path}: must be a list of ["image", "mask"] pairs, or of objects with the keys image, '
        "mask, method, split"
    )


def _is_imdl(row: Any) -> bool:
    return isinstance(row, list) and len(row) == 2 and all(isinstance(word, str) for word in row)


def _row(path: Path, inside: Path, number: int, row: Mapping[str, Any]) -> Sample:
    words = {name: _text(row.get(name)) for name in ("image", "mask", "method", "split", "source")}
    where = f"{path}, row {number}"
    if not words["image"]:
        raise DataError(f"{where}: names no image")
    split = SPLITS.get(words["split"].lower(), "")
    if words["split"] and not split:
        raise DataError(f"{where}: split must be train, val or test, is {words['split']!r}")
    image = _below(where, path.parent, inside, words["image"])
    mask = None
    if words["mask"].lower() not in _NO_MASK:
        mask = _below(where, path.parent, inside, words["mask"])
    method = words["method"] or ("forged" if mask else AUTHENTIC)
    if (method == AUTHENTIC) != (mask is None):
        state = "has no mask" if mask is None else "has a mask"
        raise DataError(f"{where}: {state}, but its method is {one_line(method)!r}")
    source = _text(row.get("source_hash")) or words["source"] or image.stem
    return Sample(image, mask, method, split, source, words["image"])


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _below(where: str, folder: Path, inside: Path, name: str) -> Path:
    path = folder / name
    try:
        os.fsencode(name)
    except UnicodeEncodeError:  # JSON can write half a character
        raise DataError(f"{where}: {name!a} is no name of a file") from None
    if "\0" in name or Path(name).is_absolute() or not path.resolve().is_relative_to(inside):
        raise DataError(
            f"{where}: {one_line(name)} leads out of {folder}; paths must begin at the manifest's "
            "folder and stay below it"
        )
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{where}: {one_line(name)} is no image file ({', '.join(sorted(SUFFIXES))})"
        )
    if not path.is_file():
        raise DataError(f"{where}: no such file: {one_line(str(path))}")
    return path
