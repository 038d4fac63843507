"""Published sets in the folders in which they come (section 4); needs no torch.

Checked against the archive's own lists, its README or the files: cocoglide, tgif, deepfill. Known
from other people's loaders, not checked against the archive: defacto, autosplice. From memory, not
checked against the archive: iid.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from papercommons.data.images import find_images
from papercommons.errors import DataError

from defi_net.layouts import AUTHENTIC, SPLITS, Sample, match_by_stem, subfolder

IID_METHODS = ("CA", "EC", "GC", "LB", "NS", "PM", "RN", "SG", "SH", "TE")

_TGIF_FORGED = re.compile(
    r"(?P<id>\d+)_mask_(?P<mask>bbox|segm|random)\.png"
    r"(?P<adapted>_ps_mask\.png)?_(?P<model>[a-z0-9]+)(-(?P<crop>512|1024))?_(?P<number>\d+)\.png"
)
_TGIF_AUTHENTIC = re.compile(r"(?P<id>\d+)_orig(_(?P<crop>512|1024))?\.png")
_COCOGLIDE = re.compile(r"glide_inpainting_val2017_(?P<id>\d+)_up")
_IID = re.compile(rf"(?:^|[_-])(?P<method>{'|'.join(IID_METHODS)})(?:[_-]|$)")


def guess_archive(root: Path) -> str:
    """Return the archive's layout that a folder has.

    Raises:
        DataError: none fits.
    """
    if not root.is_dir():
        raise DataError(f"{root}: not a folder, nor a manifest (.csv, .json)")
    if subfolder(root, "inpainting_img"):
        return "defacto"
    if any(subfolder(root, f"Forged_JPEG{quality}") for quality in (100, 90, 75)):
        return "autosplice"
    if subfolder(root, "fake") and subfolder(root, "mask"):
        return "cocoglide"
    names = [path.name for path in find_images([root])]
    if any(_TGIF_FORGED.fullmatch(name) for name in names):
        return "tgif"
    if any(Path(name).stem.endswith("_output") for name in names):
        return "deepfill"
    raise DataError(
        f"{root}: no layout fits; expected images/ and labels/, Tp/ and Gt/, or manifest.csv; "
        "--layout names one"
    )


def read_defacto(root: Path) -> list[Sample]:
    """Return the inpainting part of DEFACTO; not checked against the archive.

    ``inpainting_img/img/N_COCO.tif`` with ``inpainting_annotations/probe_mask/N_COCO.jpg``. Some
    masks there have another size than their image (``resize_masks``).

    Args:
        root: folder with both.

    Raises:
        DataError: a folder is absent, or files do not match.
    """
    images = root / "inpainting_img"
    masks = root / "inpainting_annotations" / "probe_mask"
    for folder in (images, masks):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; layout defacto needs it")
    samples = match_by_stem(root, find_images([images]), find_images([masks]), "error")
    return [
        _changed(sample, method="defacto", source=sample.source.partition("_")[2] or sample.source)
        for sample in samples
    ]


def read_autosplice(root: Path) -> list[Sample]:
    """Return AutoSplice; not checked against the archive.

    ``Forged_JPEG{100,90,75}/ID_K.jpg`` with ``Mask/ID_mask.png`` (edits of one picture share it),
    and ``Authentic/ID.jpg``.

    Args:
        root: folder with them.

    Raises:
        DataError: no masks, or an image without one.
    """
    folder = subfolder(root, "Mask")
    if folder is None:
        raise DataError(f"{root}: no folder Mask; layout autosplice needs it")
    masks = {path.stem.removesuffix("_mask"): path for path in find_images([folder])}
    samples: list[Sample] = []
    for quality in (100, 90, 75):
        forged = subfolder(root, f"Forged_JPEG{quality}")
        for path in find_images([forged]) if forged else []:
            source = path.stem.partition("_")[0]
            mask = masks.get(path.stem) or masks.get(source)
            if mask is None:
                raise DataError(f"{path}: no mask {folder / source}_mask.png")
            samples.append(_sample(root, path, mask, f"dalle2-jpeg{quality}", source))
    return samples + _authentic(root, subfolder(root, "Authentic"), lambda path: path.stem)


def read_cocoglide(root: Path) -> list[Sample]:
    """Return CocoGlide: its table.csv where there is one, else pairs by COCO number.

    ``fake/glide_inpainting_val2017_ID_up.png``, ``mask/OBJECT_ID_mask.png`` and
    ``real/OBJECT_ID.png``.

    Args:
        root: folder with fake, mask and perhaps real.

    Raises:
        DataError: a forged image without a mask, or a name of another form.
    """
    masks = {_number(path.stem.removesuffix("_mask")): path for path in _in(root, "mask")}
    for row in _rows(root / "table.csv"):
        if row.get("fake") and row.get("mask"):
            masks[Path(row["fake"]).stem] = root / "mask" / Path(row["mask"]).name
    samples: list[Sample] = []
    for path in _in(root, "fake"):
        found = _COCOGLIDE.fullmatch(path.stem)
        source = found["id"] if found else _number(path.stem)
        mask = masks.get(path.stem) or masks.get(source)
        if mask is None:
            raise DataError(f"{path}: no mask {root / 'mask'}/*_{source}_mask.png")
        samples.append(_sample(root, path, mask, "glide", source))
    return samples + _authentic(root, subfolder(root, "real"), lambda path: _number(path.stem))


def read_tgif(root: Path) -> list[Sample]:
    """Return TGIF or TGIF2 as it comes, in any folders; names as in its README.

    The method is model and mode, ``sd2-sp`` or ``sdxl-fr``. Masks of ``sp`` are the ones adapted by
    Photoshop where those exist. Masks and originals of FLUX.1 lie in ``masks-flux`` and
    ``original-flux``, with the names of the others but another crop.

    Args:
        root: folder with forgeries, masks and perhaps originals.

    Raises:
        DataError: a forged image without its mask.
    """
    paths = find_images([root])
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        by_name[path.name].append(path)
    samples: list[Sample] = []
    for path in paths:
        folders = [part.lower() for part in path.relative_to(root).parts[:-1]]
        split = next((SPLITS[part] for part in folders if part in SPLITS), "")
        if found := _TGIF_FORGED.fullmatch(path.name):
            mask = _tgif_mask(path, found, by_name)
            mode = "fr" if found["crop"] else "sp"
            sample = _sample(root, path, mask, f"{found['model']}-{mode}", found["id"], split)
            samples.append(sample)
        elif found := _TGIF_AUTHENTIC.fullmatch(path.name):
            samples.append(_sample(root, path, None, AUTHENTIC, found["id"], split))
    return samples


def _tgif_mask(path: Path, found: re.Match[str], by_name: Mapping[str, list[Path]]) -> Path:
    plain = f"{found['id']}_mask_{found['mask']}"
    names = [f"{plain}.png_ps_mask.png", f"{plain}.png"]
    if found["crop"]:
        names = [f"{plain}_{found['crop']}.png", f"{found['id']}_mask_{found['crop']}.png"]
    flux = found["model"].startswith("flux")
    for name in names:
        fitting = sorted(by_name.get(name, []), key=lambda mask: ("flux" in str(mask)) != flux)
        if fitting:
            return fitting[0]
    raise DataError(f"{path}: no mask {' or '.join(names)} below the folder; unpack the masks too")


def read_deepfill(root: Path) -> list[Sample]:
    """Return examples as the DeepFill repository has them.

    ``NAME_output.png`` is the forgery, ``NAME_mask.png`` its mask, ``NAME_raw.png`` the photograph.

    Args:
        root: folder with them.

    Raises:
        DataError: a forgery without a mask.
    """
    samples: list[Sample] = []
    for path in find_images([root]):
        name, _, kind = path.stem.rpartition("_")
        mask = path.with_name(f"{name}_mask{path.suffix}")
        if kind == "output" and not mask.is_file():
            raise DataError(f"{path}: no mask {mask}")
        if kind == "output":
            samples.append(_sample(root, path, mask, "deepfill", name))
        elif kind == "raw":
            samples.append(_sample(root, path, None, AUTHENTIC, name))
    return samples


def read_iid(root: Path) -> list[Sample]:
    """Return the diverse set of IID-Net; from memory, not checked against the archive.

    Forgeries and masks (files that end in ``_mask``, or lie in a folder named masks, mask, labels
    or gt) with equal stems; the method is a tag of the stem or the name of a folder, such as GC.

    Args:
        root: folder with them.

    Raises:
        DataError: images and masks that do not match.
    """
    paths = find_images([root])
    masks = {path for path in paths if _is_iid_mask(path.relative_to(root))}
    by_folder: dict[str, tuple[list[Path], list[Path]]] = defaultdict(lambda: ([], []))
    for path in paths:
        tags = [part for part in path.relative_to(root).parts[:-1] if part in IID_METHODS]
        by_folder[tags[0] if tags else ""][path in masks].append(path)
    samples: list[Sample] = []
    for tag, (images, labels) in sorted(by_folder.items()):
        for sample in match_by_stem(root, images, labels, "error"):
            found = _IID.search(sample.image.stem)
            method = tag or (found["method"] if found else "forged")
            source = _IID.sub("_", sample.source).strip("_-") or sample.source
            samples.append(_changed(sample, method=method, source=source))
    return samples


def _is_iid_mask(path: Path) -> bool:
    folders = {part.lower() for part in path.parts[:-1]}
    return path.stem.endswith("_mask") or bool(folders & {"masks", "mask", "labels", "gt"})


ARCHIVES: Mapping[str, Callable[[Path], list[Sample]]] = {
    "iid": read_iid,
    "defacto": read_defacto,
    "autosplice": read_autosplice,
    "cocoglide": read_cocoglide,
    "tgif": read_tgif,
    "deepfill": read_deepfill,
}


def _in(root: Path, name: str) -> list[Path]:
    folder = subfolder(root, name)
    if folder is None:
        raise DataError(f"{root}: no folder {name}; the layout needs it")
    return find_images([folder])


def _number(stem: str) -> str:
    return stem.rpartition("_")[2]


def _rows(path: Path) -> Iterable[Mapping[str, str]]:
    if not path.is_file():
        return []
    try:
        return list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (UnicodeDecodeError, csv.Error):
        raise DataError(f"{path}: not readable as CSV in UTF-8; remove it or repair it") from None


def _sample(
    root: Path, path: Path, mask: Path | None, method: str, source: str, split: str = ""
) -> Sample:
    return Sample(path, mask, method, split, source, path.relative_to(root).as_posix())


def _changed(sample: Sample, *, method: str, source: str) -> Sample:
    return Sample(sample.image, sample.mask, method, sample.split, source, sample.name)


def _authentic(root: Path, folder: Path | None, source: Callable[[Path], str]) -> list[Sample]:
    paths = find_images([folder]) if folder else []
    return [_sample(root, path, None, AUTHENTIC, source(path)) for path in paths]
