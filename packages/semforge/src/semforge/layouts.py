"""Folders as published sets of forged faces have them, and lists of one's own (section 4).

====================  ==============================================================================
list                  a text or CSV file, see `semforge.lists`; or a folder with list.csv or
                      list.txt
folders               ROOT/real/** and ROOT/fake/** (or 0_real, 1_fake); or the same below
                      ROOT/{train,val,test}
ffsc                  ROOT/{Train,Val,Test}/METHOD/**, tests also in Test/PROTOCOL/METHOD/**
ffpp                  FaceForensics++: ROOT/{original,manipulated}_sequences/SET/c23/{videos,...}/*
                      with the splits in ROOT/{train,val,test}.json
faceshifter           the same tree, of the forgeries FaceShifter alone
cdf                   Celeb-DF v2: ROOT/{Celeb-real,YouTube-real,Celeb-synthesis}/* with
                      List_of_testing_videos.txt
deeperforensics       ROOT/manipulated_videos/end_to_end/*, ROOT/source_videos/**, splits in
                      ROOT/lists/splits/{train,val,test}.txt
dfdc                  the test set: labels.csv (filename, label) beside the videos or above videos/
====================  ==============================================================================

The archives themselves were not at hand: these layouts follow their descriptions and were not
checked against them. Labels say what a method is known to alter; the rest is unknown. They go by
the names of the nodes, so they fit any graph that has some of them. FFSC has the official strings.
The follow-up labels FaceForensics++ in two ways; here a swapped face (also of Celeb-DF and
DeeperForensics) is 1010111111 and a reenacted one 1100001100, in the order of the graph ffpp.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from papercommons.data.images import SUFFIXES
from papercommons.errors import DataError, nearest, one_line, reason

from semforge.entries import FAKE, REAL, Entry, FaceList, as_list, join
from semforge.graph import LabelGraph, as_graph
from semforge.lists import (
    SPLITS,
    VIDEO_SUFFIXES,
    known_label,
    read_list,
)

Layout = Literal[
    "auto", "list", "folders", "ffsc", "ffpp", "faceshifter", "cdf", "deeperforensics", "dfdc"
]
LAYOUTS = get_args(Layout)

# The official strings in the order of the nodes (specification section 4), 2 = unknown.
_ATTRIBUTES = {
    "age": "110000100001",
    "gender": "120110111101",
    "id": "120010111111",
    "pose": "100001111111",
    "smile": "101000001100",
    "surprise": "101000101111",
    "expr": "101000201122",  # what the two expressions share
}
_METHODS = {"blendface": "id", "simswap": "id", "fsgan": "id", "infoswap": "id"}
_SWAP, _REENACTMENT = "1010111111", "1100001100"
_FFPP_METHODS = {
    "Deepfakes": _SWAP,
    "FaceSwap": _SWAP,
    "FaceShifter": _SWAP,
    "DeepFakeDetection": _SWAP,
    "Face2Face": _REENACTMENT,
    "NeuralTextures": _REENACTMENT,
}
_REAL_CLASSES, _FAKE_CLASSES = ("real", "0_real"), ("fake", "1_fake")


def open_faces(
    places: str | Path | FaceList | Sequence[str | Path | FaceList],
    graph: LabelGraph,
    *,
    layout: Layout = "auto",
    root: str | Path | None = None,
) -> FaceList:
    """Return the entries of list files and folders, one after the other.

    Args:
        places: what is read; several are joined.
        graph: of the labels.
        layout: see the module; ``auto`` finds out.
        root: folder where the paths of list files begin.

    Raises:
        ValueError: there is no such layout.
        DataError: a place is missing, no layout fits, or what is in it is not as described.
    """
    if layout not in LAYOUTS:
        hint = nearest(str(layout), LAYOUTS) or f"; there are {', '.join(LAYOUTS)}"
        raise ValueError(f"no layout {layout!r}{hint}")
    given = [places] if isinstance(places, str | Path | FaceList) else list(places)
    found = [
        place if isinstance(place, FaceList) else _open(Path(place), graph, layout, root)
        for place in given
    ]
    return join(found)


def _open(place: Path, graph: LabelGraph, layout: Layout, root: str | Path | None) -> FaceList:
    if not place.exists():
        raise DataError(f"{place}: no such file or folder; expected a list or a data set")
    if layout == "auto":
        layout = _guess(place)
    if layout == "list":
        names = [name for name in ("list.csv", "list.txt") if (place / name).is_file()]
        return read_list(place / names[0] if names else place, graph, root)
    notes: list[str] = []
    make = _READERS[layout]
    entries = sorted(make(place, graph, notes), key=lambda entry: entry.name)
    if not entries:
        raise DataError(f"{place}: no images or videos in it for layout {layout}")
    return as_list(entries, source=str(place), notes=notes, longer=layout == "dfdc")


def _guess(place: Path) -> Layout:
    if place.is_file():
        return "list"
    if (place / "list.csv").is_file() or (place / "list.txt").is_file():
        return "list"
    if (place / "manipulated_sequences").is_dir():
        return "ffpp"
    if (place / "Celeb-synthesis").is_dir():
        return "cdf"
    if (place / "manipulated_videos").is_dir():
        return "deeperforensics"
    if (place / "labels.csv").is_file():
        return "dfdc"
    names = {folder.name.lower() for folder in _folders(place)}
    if names & {*_REAL_CLASSES, *_FAKE_CLASSES}:
        return "folders"
    splits = [folder for folder in _folders(place) if folder.name.lower() in SPLITS]
    within = {folder.name.lower() for split in splits for folder in _folders(split)}
    if splits and within:
        return "folders" if within <= {*_REAL_CLASSES, *_FAKE_CLASSES} else "ffsc"
    raise DataError(
        f"{place}: no layout fits; give a list with lines `path label`, or name it with --layout "
        f"({', '.join(LAYOUTS[1:])})"
    )


def _read_folders(root: Path, graph: LabelGraph, notes: list[str]) -> Iterator[Entry]:
    tops = [(folder, SPLITS.get(folder.name.lower(), "")) for folder in _folders(root)]
    tops = [(folder, split) for folder, split in tops if split] or [(root, "")]
    for top, split in tops:
        for folder in _folders(top):
            fake = folder.name.lower() in _FAKE_CLASSES
            if not fake and folder.name.lower() not in _REAL_CLASSES:
                raise DataError(f"{folder}: expected the folders real and fake")
            label = _label(graph, {"fake": int(fake)}, notes, folder.name)
            for file in _media(folder):
                yield _entry(root, file, label, split=split)


def _read_ffsc(root: Path, graph: LabelGraph, notes: list[str]) -> Iterator[Entry]:
    labels: dict[tuple[str, str], tuple[int, ...]] = {}  # of few methods, for many files
    for part in _folders(root):
        split = SPLITS.get(part.name.lower())
        if split is None:
            continue
        for method in _folders(part):
            inner = _folders(method) if method.name.lower().startswith("protocol") else [method]
            for folder in inner:
                name = REAL if folder.name.lower() == REAL else folder.name
                for file in _media(folder):
                    key = (name, _ffsc_attribute(name, file.relative_to(root).as_posix()))
                    if key not in labels:
                        labels[key] = _ffsc_label(graph, *key, notes)
                    yield _entry(root, file, labels[key], split=split, method=name, top=folder)


def _ffsc_attribute(method: str, words: str) -> str:
    """Return the key of `_ATTRIBUTES` that a method alters, an empty text if it is not known."""
    name = method.lower()
    attribute = _METHODS.get(name) or name.rpartition("-")[2]
    if attribute == "expr":
        shown = [word for word in ("smile", "surprise") if word in words.lower()]
        attribute = shown[0] if shown else attribute
    return attribute if attribute in _ATTRIBUTES else ""


def _ffsc_label(
    graph: LabelGraph, method: str, attribute: str, notes: list[str]
) -> tuple[int, ...]:
    if method != REAL and not attribute:
        _note(notes, f"{method}: what it alters is not known, so only the root is labelled")
    known = _named("ffsc", _ATTRIBUTES[attribute]) if attribute else {"fake": int(method != REAL)}
    return _label(graph, known, notes, method)


def _read_ffpp(
    root: Path, graph: LabelGraph, notes: list[str], only: str | None = None
) -> Iterator[Entry]:
    split = _ffpp_splits(root)
    for kind in ("original_sequences", "manipulated_sequences"):
        for folder in _folders(root / kind):
            if only and kind != "original_sequences" and folder.name != only:
                continue
            method = REAL if kind == "original_sequences" else folder.name
            if method != REAL and method not in _FFPP_METHODS:
                raise DataError(f"{folder}: no method of FaceForensics++; rename or remove it")
            known = {"fake": 0} if method == REAL else _named("ffpp", _FFPP_METHODS[method])
            label = _label(graph, known, notes, method)
            for file in _moving(_compression(folder)):
                who = tuple(file.stem.split("_")) if re.fullmatch(r"\d+(_\d+)?", file.stem) else ()
                if split and who and who[0] not in split:
                    raise DataError(f"{file}: is in none of {root}/{{train,val,test}}.json")
                part = split.get(who[0], "") if who else ""
                yield _entry(root, file, label, split=part, method=method, identity=who)


def _read_faceshifter(root: Path, graph: LabelGraph, notes: list[str]) -> Iterator[Entry]:
    return _read_ffpp(root, graph, notes, "FaceShifter")


def _ffpp_splits(root: Path) -> dict[str, str]:
    """Return the split of each original video; empty if there are no files of splits."""
    splits: dict[str, str] = {}
    for name in ("train", "val", "test"):
        path = next(
            filter(Path.is_file, (root / f"{name}.json", root / f"splits/{name}.json")), None
        )
        if path is None:
            continue
        try:
            pairs = json.loads(path.read_text(encoding="utf-8"))
            splits |= {str(video): name for pair in pairs for video in pair}
        except (ValueError, TypeError, RecursionError) as error:
            raise DataError(
                f'{path}: expected pairs of videos, [["071", "054"], ...] ({reason(error)})'
            ) from None
    return splits


def _compression(folder: Path) -> Path:
    """Return the folder of videos or frames: of c23, or of the only compression there is."""
    of = {inner.name: inner for inner in _folders(folder)}
    inner = of.get("c23") or (next(iter(of.values())) if len(of) == 1 else None)
    if inner is None:
        raise DataError(f"{folder}: expected a folder c23 in it")
    kinds = {kind.name: kind for kind in _folders(inner)}
    return next((kinds[k] for k in ("videos", "faces", "frames") if k in kinds), inner)


def _read_cdf(root: Path, graph: LabelGraph, notes: list[str]) -> Iterator[Entry]:
    path = root / "List_of_testing_videos.txt"
    tests: set[str] = set()
    if path.is_file():
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
        tests = {Path(words[-1]).with_suffix("").as_posix() for words in lines if words}
    else:
        notes.append(f"{root}: no {path.name}, so nothing says which videos are for testing")
    for folder in _folders(root):
        if folder.name not in ("Celeb-real", "YouTube-real", "Celeb-synthesis"):
            continue
        fake = folder.name == "Celeb-synthesis"
        known = _named("ffpp", _SWAP) if fake else {"fake": 0}
        label = _label(graph, known, notes, folder.name)
        for file in _moving(folder):
            name = file.relative_to(root).with_suffix("").as_posix()
            split = ("test" if name in tests else "train") if tests else ""
            who = tuple(re.findall(r"id\d+", file.stem))
            method = folder.name if fake else REAL
            yield _entry(root, file, label, split=split, method=method, identity=who)


def _read_deeperforensics(root: Path, graph: LabelGraph, notes: list[str]) -> Iterator[Entry]:
    splits: dict[str, str] = {}
    for name in ("train", "val", "test"):
        path = root / f"lists/splits/{name}.txt"
        lines = path.read_text(encoding="utf-8").split() if path.is_file() else []
        splits |= {Path(line).stem: name for line in lines}
    swap = _label(graph, _named("ffpp", _SWAP), notes, "end_to_end")
    real = _label(graph, {"fake": 0}, notes, REAL)
    fakes = root / "manipulated_videos/end_to_end"
    for file in _moving(fakes) if fakes.is_dir() else ():
        who = tuple(file.stem.split("_"))
        split = splits.get(file.stem, "")
        yield _entry(root, file, swap, split=split, method="end_to_end", identity=who)
    for file in _media(root / "source_videos") if (root / "source_videos").is_dir() else ():
        who = (file.relative_to(root / "source_videos").parts[0],)
        yield _entry(root, file, real, method=REAL, identity=who)


def _read_dfdc(root: Path, graph: LabelGraph, notes: list[str]) -> Iterator[Entry]:
    path = root / "labels.csv"
    if not path.is_file():
        raise DataError(f"{path}: no such file; layout dfdc needs it (filename, label)")
    rows = csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines())
    for row in rows:
        name, word = str(row.get("filename") or ""), str(row.get("label") or "")
        if not name or Path(name).name != name or word not in ("0", "1"):
            raise DataError(
                f"{path}, line {rows.line_num}: expected a file's name and 0 or 1, got "
                f"{one_line(str(list(row.values())))[:80]}"
            )
        file = next((p for p in (root / name, root / "videos" / name) if p.exists()), None)
        if file is None:
            raise DataError(f"{path}, line {rows.line_num}: no such file: {one_line(name)}")
        yield _entry(root, file, _label(graph, {"fake": int(word)}, notes, name))


_READERS: dict[str, Any] = {
    "folders": _read_folders,
    "ffsc": _read_ffsc,
    "ffpp": _read_ffpp,
    "faceshifter": _read_faceshifter,
    "cdf": _read_cdf,
    "deeperforensics": _read_deeperforensics,
    "dfdc": _read_dfdc,
}


@cache
def _nodes(graph: str) -> tuple[str, ...]:
    return as_graph(graph).nodes


def _named(graph: str, text: str) -> dict[str, int]:
    nodes = _nodes(graph)
    return {node: int(value) for node, value in zip(nodes, text, strict=True) if value != "2"}


def _label(
    graph: LabelGraph, known: dict[str, int], notes: list[str], what: str
) -> tuple[int, ...]:
    """Return a label for the user's graph, whose root may have its own name.

    Where the graph lacks the attribute that was altered, only the root is labelled.
    """
    root = {graph.nodes[0]: known.get("fake", 1)}
    try:
        label = known_label(graph, {k: v for k, v in known.items() if k != "fake"} | root)
    except ValueError:
        _note(
            notes,
            f"{what}: {graph.name} has no place for what it alters; only the root is labelled",
        )
        label = known_label(graph, root)
    return tuple(label.tolist())


def _note(notes: list[str], note: str) -> None:
    if note not in notes:
        notes.append(note)


def _entry(
    root: Path, file: Path, label: tuple[int, ...], *, top: Path | None = None, **about: Any
) -> Entry:
    name = file.relative_to(root).as_posix()
    video = "" if file.suffix.lower() in SUFFIXES else name
    if top is not None and not video:  # METHOD/VIDEO/FRAME.png, but for METHOD/Male/FILE.png
        folder = file.parent
        parted = folder.name.lower() in ("male", "female")
        video = "" if folder == top or parted else folder.relative_to(root).as_posix()
    about = {"method": FAKE if label[0] else REAL} | about
    return Entry(file, label, name, video=video, where=str(root), **about)


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _media(folder: Path) -> list[Path]:
    """Return images and videos at any depth, by name."""
    kinds = SUFFIXES | VIDEO_SUFFIXES
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in kinds and p.is_file())


def _moving(folder: Path) -> list[Path]:
    """Return videos and folders of frames right below a folder, by name."""
    return sorted(
        p
        for p in folder.iterdir()
        if not p.name.startswith(".") and (p.is_dir() or p.suffix.lower() in VIDEO_SUFFIXES)
    )
