"""Images of handwritten words by writer: CEDAR "AND", CVL, IAM, or any folder; needs no torch.

Layouts (see the documentation's page on data)::

    FOLDER/{index.csv,images.tar}            CEDAR "AND", packed
    FOLDER/{seen,unseen,shuffled}-dataset/   CEDAR "AND", as published
    FOLDER/**/WWWW-T-L-W-TEXT.tif            CVL
    FOLDER/{forms.txt,words/a01/a01-000u/}   IAM
    FOLDER/WRITER/**/*.png                   any words; with outer folders train, val, test or not
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from papercommons.data.cedar import is_original, is_packed, list_original, list_packed
from papercommons.data.word_layouts import Listing, WordFile, list_folder, read_word
from papercommons.errors import DataError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable

log = logging.getLogger("papercommons")

VARIANTS = ("clean", "all")


@dataclass(frozen=True, eq=False)
class Words:
    """Word images and whose they are. Nothing is held open: it goes into data-loader workers.

    Attributes:
        root: the folder.
        files: one per image, sorted by name.
        published: splits that come with the data: name -> part (train, val, test) -> indices.
        size: height and width that every image must have, None if any will do.
        resize: side of the square that images are fitted into, None leaves them.
        bad: names of the images that were skipped.
    """

    root: Path
    files: Sequence[WordFile]
    published: Mapping[str, Mapping[str, list[int]]]
    size: int | None = None
    resize: int | None = None
    bad: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.files)

    @cached_property
    def names(self) -> list[str]:
        """Name of each image; unique."""
        return [file.name for file in self.files]

    @cached_property
    def writers(self) -> list[str]:
        """Writer of each image."""
        return [file.writer for file in self.files]

    @cached_property
    def pages(self) -> list[str]:
        """Page each image was cut from, empty where unknown."""
        return [file.page for file in self.files]

    @cached_property
    def samples(self) -> list[int]:
        """Running number of each image on its page."""
        return [file.sample for file in self.files]

    @cached_property
    def status(self) -> list[str]:
        """Of each image: clean, or (CEDAR, variant all) junk or extra."""
        return [file.status for file in self.files]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        """Index of each name, and of each bare file name that is unique."""
        bare = [name.rpartition("/")[2] for name in self.names]
        counts: dict[str, int] = {}
        for name in bare:
            counts[name] = counts.get(name, 0) + 1
        unique = {name: index for index, name in enumerate(bare) if counts[name] == 1}
        return unique | {name: index for index, name in enumerate(self.names)}

    def index(self, name: str) -> int:
        """Return the index of the image called `name`: its name, or its file name if unique.

        Raises:
            DataError: there is none.
        """
        try:
            return self._numbers[name]
        except KeyError:
            raise DataError(
                f"{self.root}: no image {name!r}{nearest(name, self.names[:2000])}"
            ) from None

    def read(self, index: int) -> np.ndarray:
        """Return one image as uint8, shape (H, W), dark ink on white.

        Args:
            index: in [0, N).

        Raises:
            DataError: missing, broken, changed since its hash was noted, of a wrong size, no ink.
        """
        return read_word(self.files[index], self.size, self.resize)

    def load(self, indices: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Return images as uint8, shape (N, H, W), dark ink on white.

        Args:
            indices: which; None is all.

        Raises:
            DataError: none are asked for, one cannot be read, or they differ in size.
        """
        chosen = range(len(self)) if indices is None else [int(index) for index in indices]
        if not chosen:
            raise DataError(f"{self.root}: no images are chosen; choose at least one")
        first = self.read(chosen[0])
        images = np.empty((len(chosen), *first.shape), np.uint8)
        for place, index in enumerate(chosen):
            image = self.read(index)
            if image.shape != first.shape:
                raise DataError(
                    f"{self.root}: {self.names[index]} is {_size(image)} pixels and "
                    f"{self.names[chosen[0]]} {_size(first)}; pass --resize 64"
                )
            images[place] = image
        return images

    @cached_property
    def _hashes(self) -> list[str]:
        return [f.sha256 or hashlib.sha256(f.read_bytes()).hexdigest() for f in self.files]

    @cached_property
    def digest(self) -> str:
        """Short hash of names, writers and contents, for reports."""
        rows = zip(self.names, self.writers, self._hashes, strict=True)
        text = "\n".join(":".join(row) for row in rows)
        return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]

    def duplicates(self) -> list[int]:
        """Return the indices of images that a pair should not hold, as their content is not alone.

        Of equal files of one writer all but the first; of equal files of several writers all,
        since whose they are is not known.
        """
        copies: dict[str, list[int]] = {}
        for index, digest in enumerate(self._hashes):
            copies.setdefault(digest, []).append(index)
        one_writer = [len({self.writers[i] for i in same}) == 1 for same in copies.values()]
        return sorted(
            index
            for alone, same in zip(one_writer, copies.values(), strict=True)
            for index in same[1 if alone else 0 :]
            if len(same) > 1
        )


def open_words(
    root: str | Path,
    *,
    variant: str = "clean",
    verify: bool = False,
    skip_bad: bool = False,
    resize: int | None = None,
) -> Words:
    """Open a folder of word images; its layout is recognised by what lies in it.

    Args:
        root: the folder, see the head of this module.
        variant: ``clean``, or ``all``: CEDAR with the crops that are not the word "and".
        verify: read every image now, and check its hash where the set notes one.
        skip_bad: do that, and leave out what is broken or has no ink (`Words.bad`, logged).
        resize: cut each word to its ink and fit it into a white square of this side, keeping its
            proportions.

    Raises:
        DataError: no such folder, not as documented, or with `verify` the first bad image.
        ValueError: another variant, or resize < 1.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be clean or all, got {variant!r}")
    if resize is not None and resize < 1:
        raise ValueError(f"resize must be >= 1, got {resize}")
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give a folder of word images")
    listing = _list(root, everything=variant == "all")
    files: list[WordFile] = listing.files
    bad: list[str] = []
    if verify or skip_bad:
        files, bad = _readable(listing, resize, skip_bad=skip_bad)
    if not files:
        raise DataError(f"{root}: no readable images in it; see the messages above")
    number = {file.name: index for index, file in enumerate(files)}
    published = {
        split: {part: sorted(number[n] for n in names if n in number) for part, names in of.items()}
        for split, of in listing.published.items()
    }
    return Words(root, files, published, listing.size, resize, bad)


def _list(root: Path, *, everything: bool) -> Listing:
    if is_packed(root):
        return list_packed(root, everything=everything)
    if is_original(root):
        return list_original(root, everything=everything)
    return list_folder(root)


def _readable(
    listing: Listing, resize: int | None, *, skip_bad: bool
) -> tuple[list[WordFile], list[str]]:
    good, bad = [], []
    for file in listing.files:
        try:
            read_word(file, listing.size, resize)
        except DataError as error:
            if not skip_bad:
                raise
            log.warning("skipped: %s", error)
            bad.append(file.name)
        else:
            good.append(file)
    return good, bad


def _size(image: np.ndarray) -> str:
    return " x ".join(map(str, image.shape))


def split_words(
    words: Words, split: str = "unseen", *, seed: int = 0, share: float = 0.2
) -> dict[str, list[int]]:
    """Return the indices of train and test (and of val, where a published split has all three).

    Args:
        words: the images.
        split: one that comes with the data (`Words.published`: unseen, seen, shuffled of CEDAR, or
            published), paper (writers in order, the last 368/1551 are test), or writers (drawn).
        seed: of the split ``writers``.
        share: of the writers in test, for the split ``writers``, in (0, 1).

    Raises:
        DataError: the data have no such split, or a part is empty.
    """
    valid = [*words.published, "paper", "writers"]
    if split not in valid:
        raise DataError(
            f"{words.root}: no split {split!r}, it has {', '.join(valid)}{nearest(split, valid)}"
        )
    if split == "writers":
        train, test = hold_out_writers(words, range(len(words)), share=share, seed=seed)
        return {"train": train, "test": test}
    if split == "paper":
        names = sorted(set(words.writers))
        tested = set(names[len(names) - 368 * len(names) // 1551 :])
        parts = {
            "train": [i for i, writer in enumerate(words.writers) if writer not in tested],
            "test": [i for i, writer in enumerate(words.writers) if writer in tested],
        }
    else:
        parts = {part: list(indices) for part, indices in words.published[split].items()}
        parts["test"] = parts.pop("test", []) or parts.pop("val", [])
        judged = {index for part in parts if part != "train" for index in parts[part]}
        parts["train"] = [index for index in parts.get("train", []) if index not in judged]
    if empty := [part for part, indices in parts.items() if not indices]:
        raise DataError(f"{words.root}: {empty[0]} of split {split} is empty; choose another split")
    return parts


def check_disjoint(
    words: Words, train: Iterable[int], test: Iterable[int], *, allow: bool = False
) -> list[str]:
    """Return the writers that are in both parts: none, unless `allow`.

    Args:
        words: the images.
        train: indices of one part.
        test: indices of the other.
        allow: only log a warning.

    Raises:
        DataError: a writer is in both, and `allow` is not given.
    """
    both = sorted({words.writers[i] for i in train} & {words.writers[i] for i in test})
    if both:
        shown = ", ".join(both[:5]) + (", ..." if len(both) > 5 else "")
        found = f"{words.root}: {len(both)} writers are in both train and test ({shown})"
        if not allow:
            raise DataError(
                f"{found}; a test on them says nothing about new writers: choose another --split, "
                "or pass --allow-writer-overlap"
            )
        log.warning("%s: the result says nothing about new writers", found)
    return both


def hold_out_writers(
    words: Words, indices: Sequence[int], *, share: float = 0.1, seed: int = 0
) -> tuple[list[int], list[int]]:
    """Return the indices of most writers, and of a drawn share of the writers, at least two.

    Writers come in the order of a hash of seed and name, so more writers move few others.

    Args:
        words: the images.
        indices: which to divide.
        share: of the writers, in (0, 1).
        seed: another seed draws others.

    Raises:
        ValueError: share out of range.
        DataError: fewer than four writers.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must be in (0, 1), got {share}")
    writers = {words.writers[i] for i in indices}
    if len(writers) < 4:
        raise DataError(
            f"{words.root}: writers: {len(writers)}; at least 4 are needed to hold 2 out"
        )

    def place(writer: str) -> bytes:
        return hashlib.sha256(f"{seed}:{writer}".encode(errors="surrogateescape")).digest()

    count = min(max(2, round(share * len(writers))), len(writers) - 2)
    held = set(sorted(writers, key=place)[:count])
    return _divide(words, indices, lambda writer: writer in held)


def first_writers(words: Words, indices: Sequence[int], fraction: float) -> list[int]:
    """Return the indices of the first ``int(writers * fraction)`` writers by id, at least two.

    That is the paper's way to train with 10 % of the labels.

    Args:
        words: the images.
        indices: which to choose from.
        fraction: of the writers, in (0, 1].

    Raises:
        ValueError: fraction out of range.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1], got {fraction}")
    writers = sorted({words.writers[i] for i in indices})
    first = set(writers[: max(2, int(len(writers) * fraction))])
    return _divide(words, indices, lambda writer: writer in first)[1]


def _divide(
    words: Words, indices: Sequence[int], chosen: Callable[[str], bool]
) -> tuple[list[int], list[int]]:
    """Return the indices of the writers not chosen, and of those chosen."""
    parts: tuple[list[int], list[int]] = ([], [])
    for index in indices:
        parts[chosen(words.writers[index])].append(int(index))
    return parts
