"""A data set of forged faces with exact labels, made of real ones (section 7).

Every picture follows from (seed, split, number). Nobody is in two splits. Families of generators
that are called unseen appear in the test split alone.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from papercommons.cli import track
from papercommons.data.images import SUFFIXES, find_images, read_image
from papercommons.errors import DataError, nearest
from papercommons.files import (
    atomic_path,
    check_out,
    hash_files,
    prepare_out,
    write_csv,
    write_json,
    write_text,
)

from semforge.crops import Crop, Cropper, squash
from semforge.edits import edit_face, kinds_of
from semforge.entries import REAL, Entry, FaceList, as_text
from semforge.fingerprints import FAMILIES, TRAIN_FAMILIES, UNSEEN_FAMILIES, camera
from semforge.frames import expand
from semforge.graph import LabelGraph
from semforge.inference import UNKNOWN
from semforge.leaks import shorten
from semforge.lists import VIDEO_SUFFIXES, known_label

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Recipe:
    """How pictures are made.

    Attributes:
        graph: of the labels.
        size: side of the pictures in pixels.
        kinds: attributes that are altered, see `semforge.edits.kinds_of`.
        families: of generators, for all splits.
        unseen: of generators, for the test split alone.
        real_share: share of real pictures.
        unknown: share of the training forgeries' attributes and regions whose label is hidden.
        seed: of everything.
    """

    graph: LabelGraph
    size: int
    kinds: tuple[str, ...]
    families: tuple[str, ...]
    unseen: tuple[str, ...]
    real_share: float
    unknown: float
    seed: int


def synthesize(
    faces: str | Path | Sequence[str | Path],
    out: str | Path,
    count: int,
    *,
    graph: LabelGraph,
    size: int = 64,
    crop: Crop = "detect",
    detector: str = "lbp",
    kinds: Sequence[str] | None = None,
    families: Sequence[str] = TRAIN_FAMILIES,
    unseen: Sequence[str] = UNSEEN_FAMILIES,
    real_share: float = 0.5,
    unknown: float = 0.0,
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
    splits: Mapping[str, Sequence[str]] | None = None,
    n_frames: int = 32,
    seed: int = 0,
    skip_bad: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write pictures, their list and what was made, and return the latter.

    Args:
        faces: real ones: images, videos, or folders of them. One video is one person, and so is a
            folder of images below a folder given here; other images are a person each.
        out: folder for ``images/``, list.txt, list.csv and facts.json, which is written last.
        count: pictures, >= 1; splits get them in the shares of their people.
        graph: of the labels.
        size: side of the pictures in pixels, >= 32.
        crop: ``detect``, or ``none`` for faces that are cut out already.
        detector: see `semforge.crops.Cropper`.
        kinds: attributes that are altered; None is all of `semforge.edits.kinds_of`.
        families: of generators for all splits, see `semforge.fingerprints`.
        unseen: of generators for the test split alone.
        real_share: share of real pictures, in (0, 1).
        unknown: share of the training forgeries' attributes and regions whose label is hidden, in
            [0, 1].
        val_fraction: share of the people for validation.
        test_fraction: share for testing.
        splits: train and, if wanted, val and test -> people, instead of shares.
        n_frames: taken of each video.
        seed: of everything.
        skip_bad: leave out what cannot be used, with a count.
        overwrite: empty `out` first if it holds an earlier run.

    Raises:
        ValueError: an option out of range, or what the graph or the editor does not have.
        DataError: no faces, some that cannot be used, too few people, or `out` is not empty.
    """
    possible = kinds_of(graph)
    recipe = Recipe(
        graph,
        size,
        tuple(possible if kinds is None else kinds),
        tuple(families),
        tuple(unseen),
        real_share,
        unknown,
        seed,
    )
    _check(recipe, count, crop, val_fraction, test_fraction)
    places = [faces] if isinstance(faces, str | Path) else list(faces)
    check_out(str(out), overwrite=overwrite, keep=places)
    entries = find_people(places)
    settings = {
        "faces": list(map(str, places)),
        "count": count,
        "graph": graph.name,
        "size": size,
        "crop": crop,
        "detector": detector if crop == "detect" else None,
        "kinds": list(recipe.kinds),
        "families": list(recipe.families),
        "unseen": list(recipe.unseen),
        "real_share": real_share,
        "unknown": unknown,
        "val_fraction": val_fraction,
        "test_fraction": test_fraction,
        "splits": None if splits is None else {k: list(split) for k, split in splits.items()},
        "n_frames": n_frames,
        "seed": seed,
        "skip_bad": skip_bad,
    }
    with tempfile.TemporaryDirectory(prefix="semforge-") as cache:
        cropper = Cropper(crop, size, detector)
        found = expand(FaceList(entries), cropper, cache, n_frames=n_frames, decode=skip_bad)
        if found.faults and (not skip_bad or not found.entries):
            why = shorten(found.faults.values(), "; ")
            raise DataError(f"{len(found.faults)} of {len(entries)} cannot be used: {why}")
        people: dict[str, list[Entry]] = {}
        for entry in found.entries:
            people.setdefault(entry.identity[0], []).append(entry)
        least = 2 if "identity" in recipe.kinds else 1
        if splits is None:
            shares = {"val": val_fraction, "test": test_fraction}
            chosen = divide(people, shares, least=least, seed=seed)
        else:
            chosen = _check_splits(splits, people, least)
        folder = prepare_out(str(out), settings, overwrite=overwrite)
        rows = []
        counts = _counts({name: len(split) for name, split in chosen.items()}, count)
        for name, split in chosen.items():
            mine = {person: people[person] for person in split}
            numbers = track(range(counts[name]), f"Making {name}")
            rows += [_make(folder, recipe, name, mine, number) for number in numbers]
    return _finish(folder, rows, settings, chosen, found.notes, list(found.faults), cropper)


def _check(
    recipe: Recipe, count: int, crop: Crop, val_fraction: float, test_fraction: float
) -> None:
    if count < 1:
        raise ValueError(f"count must be >= 1, got {count}")
    if crop == "boxes":
        raise ValueError("crop must be detect or none")
    if not 0 < recipe.real_share < 1 or not 0 <= recipe.unknown <= 1:
        raise ValueError(
            "real_share must be in (0, 1) and unknown in [0, 1], got "
            f"{recipe.real_share}, {recipe.unknown}"
        )
    if min(val_fraction, test_fraction) < 0 or val_fraction + test_fraction >= 1:
        shares = f"{val_fraction}, {test_fraction}"
        raise ValueError(f"val_fraction and test_fraction must leave train some, got {shares}")
    possible = kinds_of(recipe.graph)
    if not recipe.kinds or not set(recipe.kinds) <= set(possible):
        raise ValueError(
            f"{recipe.graph.name}: kinds must be some of {', '.join(possible) or '(none)'}, got "
            f"{', '.join(recipe.kinds) or 'none'}"
        )
    both = [*recipe.families, *recipe.unseen]
    if not recipe.families or not set(both) <= set(FAMILIES) or len(set(both)) < len(both):
        raise ValueError(
            f"families must be some of {', '.join(FAMILIES)}, each once, got {', '.join(both)}"
        )


def find_people(places: Sequence[str | Path]) -> tuple[Entry, ...]:
    """Return images and videos with who is in them, see `synthesize`.

    Args:
        places: files and folders.

    Raises:
        DataError: one does not exist, or there is nothing in it.
    """
    found: dict[Path, Entry] = {}
    for place in map(Path, places):
        if place.is_dir():
            videos = (p for p in place.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
            files = sorted(videos)
            images = any(p.suffix.lower() in SUFFIXES for p in place.rglob("*"))
            files += find_images([place]) if images or not files else []
        elif place.is_file():
            files = [place]
        else:
            raise DataError(f"{place}: no such file or folder; expected images or videos of faces")
        for file in files:
            moving = file.suffix.lower() in VIDEO_SUFFIXES
            alone = moving or file.parent == place or file == place
            person = file.stem if alone else file.parent.relative_to(place).as_posix()
            name = file.name if file == place else file.relative_to(place).as_posix()
            entry = Entry(file, (0,), name, file.stem if moving else "", identity=(person,))
            found.setdefault(file.resolve(), entry)
    return tuple(found.values())


def divide(
    people: Iterable[str],
    shares: dict[str, float],
    *,
    least: int = 1,
    seed: int = 0,
) -> dict[str, list[str]]:
    """Return the people of each split, in an order that depends on seed and names alone.

    Args:
        people: names.
        shares: of val and test; a split with a share above 0 gets at least `least` people.
        least: people of each split.
        seed: another seed gives another division.

    Raises:
        DataError: fewer people than that takes.
    """
    order = sorted(people, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    counts = {k: max(least, round(share * len(order))) for k, share in shares.items() if share > 0}
    if len(order) - sum(counts.values()) < least:
        needed = least * (1 + len(counts))
        raise DataError(
            f"{len(order)} people are too few for train, {' and '.join(counts) or 'nothing else'}: "
            f"that takes {needed} or more; add faces of others, set a share to 0, or leave out the "
            "kind identity"
        )
    splits: dict[str, list[str]] = {}
    for name, count in counts.items():
        splits[name], order = sorted(order[:count]), order[count:]
    splits["train"] = sorted(order)
    return {name: splits[name] for name in SPLITS if name in splits}


def _check_splits(
    splits: Mapping[str, Sequence[str]], people: Mapping[str, Any], least: int
) -> dict[str, list[str]]:
    """Return the splits that were asked for, in their usual order, if they can be had."""
    if "train" not in splits or not set(splits) <= set(SPLITS):
        raise ValueError(f"splits must be train, and if wanted val and test, got {list(splits)}")
    for name, split in splits.items():
        for person in split:
            if person not in people:
                raise DataError(
                    f"split {name}: no {person!r} among the faces{nearest(person, people)}"
                )
        if len(split) < least:
            raise DataError(f"split {name}: has {len(split)} people, fewer than {least}")
    everyone = [person for split in splits.values() for person in split]
    if len(set(everyone)) < len(everyone):
        raise DataError("somebody is in two splits, or twice in one")
    return {name: sorted(splits[name]) for name in SPLITS if name in splits}


def _counts(people: dict[str, int], count: int) -> dict[str, int]:
    """Return how many pictures each split gets: `count` in the shares of their people."""
    edges = np.rint(np.cumsum([0, *people.values()]) / sum(people.values()) * count).astype(int)
    return dict(zip(people, np.diff(edges).tolist(), strict=True))


def _make(
    folder: Path, recipe: Recipe, split: str, people: dict[str, list[Entry]], number: int
) -> dict[str, str]:
    """Write one picture and return its row of the list."""
    from PIL import Image

    rng = np.random.default_rng((recipe.seed, SPLITS.index(split), number))
    names = list(people)
    who = [names[rng.integers(len(names))]]
    image = _draw(people[who[0]], recipe.size, rng)
    label, method = known_label(recipe.graph, {recipe.graph.nodes[0]: 0}), REAL
    if rng.random() >= recipe.real_share:
        kind = recipe.kinds[rng.integers(len(recipe.kinds))]
        families = recipe.families + (recipe.unseen if split == "test" else ())
        family, other = families[rng.integers(len(families))], None
        if kind == "identity":
            rest = [name for name in names if name != who[0]]
            who.append(rest[rng.integers(len(rest))])
            other = _draw(people[who[1]], recipe.size, rng)
        image, label = edit_face(image, rng, recipe.graph, kind=kind, family=family, other=other)
        method = f"{kind}-{family}"
        if split == "train":
            label[1:][rng.random(len(label) - 1) < recipe.unknown] = UNKNOWN
    path = f"images/{split}/{number:06d}.png"
    with atomic_path(folder / path) as temporary:
        Image.fromarray(camera(image, rng)).save(temporary)
    return {
        "path": path,
        "label": as_text(label.tolist()),
        "split": split,
        "method": method,
        "identity": "+".join(name.replace("+", "_") for name in who),
    }


def _draw(entries: Sequence[Entry], size: int, rng: np.random.Generator) -> np.ndarray:
    """Return one of a person's pictures."""
    return squash(np.asarray(read_image(entries[int(rng.integers(len(entries)))].file)), size)


def _finish(
    folder: Path,
    rows: Sequence[dict[str, str]],
    settings: dict[str, Any],
    splits: dict[str, list[str]],
    notes: Sequence[str],
    left_out: Sequence[str],
    cropper: Cropper,
) -> dict[str, Any]:
    write_csv(folder / "list.csv", rows)
    lines = [f"{row['path']} {row['split']} {row['label']}\n" for row in rows]
    write_text(folder / "list.txt", "".join(lines))
    counts = Counter((row["split"], row["method"]) for row in rows)
    facts = {
        "settings": settings,
        "people": splits,
        "methods": {
            method: {split: counts[split, method] for split in splits}
            for method in sorted({row["method"] for row in rows})
        },
        "crop": cropper.settings,
        "notes": list(notes),
        "left_out": list(left_out),
        "data_hash": hash_files([folder / "list.csv", *(folder / row["path"] for row in rows)]),
    }
    write_json(folder / "facts.json", facts)
    return facts
