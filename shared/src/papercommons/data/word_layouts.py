"""Files of word images: how they lie in a folder, and what is in one; needs no torch.

CEDAR's own layouts are in `papercommons.data.cedar`; `papercommons.data.words` brings all together.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from papercommons.data.images import find_images, read_image
from papercommons.errors import DataError, reason

INK = 128  # grey values below are ink

CEDAR_NAME = re.compile(r"(?P<writer>\d{4})(?P<page>[a-z]{1,2})_num(?P<sample>\d{1,6})\.png")
_CVL_NAME = re.compile(
    r"(?P<writer>\d{4})-(?P<page>\d+)-(?P<line>\d+)-(?P<sample>\d+)(-.*)?\.(tiff?|png|jpe?g)"
)
_IAM_NAME = re.compile(r"(?P<page>[a-z]\d{2}-\d{3}[a-z]?)-(?P<line>\d{2})-(?P<sample>\d{2})\.png")
_PARTS = {
    **dict.fromkeys(("train", "training", "trainset", "trainingset"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validationset"), "val"),
    **dict.fromkeys(("test", "testing", "testset"), "test"),
}


@dataclass(frozen=True)
class WordFile:
    """One word image: whose it is, and where its bytes lie.

    Attributes:
        name: unique in its set.
        writer: who wrote it, as text.
        path: the image file, or the tar that holds it.
        page: the page it was cut from, empty if unknown.
        sample: running number on that page, >= 0.
        status: clean, junk (another word) or extra (of the uncleaned release).
        offset: of its first byte in `path`.
        size: bytes; None is all of `path`.
        sha256: of its bytes, empty if the set does not say.
    """

    name: str
    writer: str
    path: Path
    page: str = ""
    sample: int = 0
    status: str = "clean"
    offset: int = 0
    size: int | None = None
    sha256: str = ""

    def read_bytes(self) -> bytes:
        """Return the bytes of the image file."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(-1 if self.size is None else self.size)


@dataclass(frozen=True)
class Listing:
    """What a reader found.

    Attributes:
        files: sorted by name.
        published: name of a split -> name of a part -> names of its images.
        size: height and width that every image must have, None if any will do.
    """

    files: list[WordFile]
    published: Mapping[str, Mapping[str, list[str]]] = field(default_factory=dict)
    size: int | None = None


def list_folder(root: Path) -> Listing:
    """List images whose writer is told by their name (CEDAR, CVL, IAM) or else by their folder.

    The image's name is its path below `root`. If the outermost folders are all called train, val
    or test (or like that), they are the published split.

    Args:
        root: a folder.

    Raises:
        DataError: no images, a flat file of an unknown writer, or IAM without forms.txt.
    """
    paths = [path.relative_to(root) for path in find_images([root])]
    tops = {path.parts[0].lower() for path in paths if len(path.parts) > 1}
    split = all(len(path.parts) > 1 for path in paths) and tops <= _PARTS.keys()
    files: list[WordFile] = []
    published: dict[str, list[str]] = {}
    describe = _describer(root, paths)
    for path in sorted(paths, key=lambda path: path.as_posix()):
        name = path.as_posix()
        inner = Path(*path.parts[1:]) if split else path
        writer, page, sample = describe(inner)
        files.append(WordFile(name, writer, root / path, page, sample))
        if split:
            published.setdefault(_PARTS[path.parts[0].lower()], []).append(name)
    return Listing(files, {"published": published} if split else {})


_Describe = Callable[[Path], tuple[str, str, int]]


def _describer(root: Path, paths: list[Path]) -> _Describe:
    """Return the function from a path to writer, page and sample that fits all of `paths`."""

    def fits(pattern: re.Pattern[str]) -> bool:
        return all(pattern.fullmatch(path.name) for path in paths)

    if fits(_IAM_NAME):
        return _by_form(_read_forms(root))
    for pattern in (CEDAR_NAME, _CVL_NAME):
        if fits(pattern):
            return partial(by_name, pattern)
    return _by_folder(root)


def by_name(pattern: re.Pattern[str], path: Path) -> tuple[str, str, int]:
    """Return writer, page and sample, told by the name of the file, which fits `pattern`."""
    found = pattern.fullmatch(path.name)
    assert found is not None
    return found["writer"], found["page"], int(found["sample"])


def _by_folder(root: Path) -> _Describe:
    seen: Counter[str] = Counter()

    def describe(path: Path) -> tuple[str, str, int]:
        if len(path.parts) < 2:
            raise DataError(
                f"{root / path}: whose writing it is cannot be told; expected {root}/WRITER/*.png, "
                "or names like 0001a_num1.png (CEDAR) or 0052-1-0-0-word.tif (CVL)"
            )
        writer = path.parts[0]
        seen[writer] += 1
        return writer, "", seen[writer]

    return describe


def _by_form(writers: Mapping[str, str]) -> _Describe:
    def describe(path: Path) -> tuple[str, str, int]:
        found = _IAM_NAME.fullmatch(path.name)
        assert found is not None
        if found["page"] not in writers:
            raise DataError(f"{path}: its form {found['page']} is not in forms.txt; complete it")
        return (
            writers[found["page"]],
            found["page"],
            100 * int(found["line"]) + int(found["sample"]),
        )

    return describe


def _read_forms(root: Path) -> dict[str, str]:
    """Return the writer of each form of the IAM database."""
    places = [root / "forms.txt", root / "ascii" / "forms.txt", root.parent / "forms.txt"]
    place = next((place for place in places if place.is_file()), None)
    if place is None:
        raise DataError(
            f"{root}: words of the IAM database without {places[0].name}, which names the writers; "
            f"copy it to {places[0]}"
        )
    lines = place.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    if odd := [row for row in rows if len(row) < 2]:
        raise DataError(f"{place}: line {odd[0]} has no writer; expected FORM WRITER ...")
    return {form: writer for form, writer, *_ in rows}


def read_word(file: WordFile, size: int | None, resize: int | None) -> np.ndarray:
    """Return one image as uint8, shape (H, W), dark ink on white.

    Args:
        file: which.
        size: height and width that it must have; None if any will do.
        resize: side of the white square that it is fitted into, whatever its size; None leaves it.

    Raises:
        DataError: missing, broken, changed since its hash was noted, of a wrong size, no ink.
    """
    picture = (_decode_member(file) if file.sha256 else read_image(file.path)).convert("L")
    where = file.path if file.size is None else f"{file.path}: {file.name}"
    if resize is not None:
        picture = _fit(picture, resize)
    elif size is not None and picture.size != (size, size):
        raise DataError(
            f"{where}: {picture.height} x {picture.width} pixels, expected {size} x {size}; "
            f"pass --resize {size}, or --skip-bad"
        )
    image = np.asarray(picture)
    if image.min() >= INK:
        raise DataError(
            f"{where}: no ink (no pixel darker than {INK}); remove it, darken it or pass --skip-bad"
        )
    return image


def _decode_member(file: WordFile) -> Any:
    """Return a member of a pack as a PIL image, after its content was checked."""
    from PIL import Image

    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise DataError(
            f"{file.path}: {file.name} differs from its sha256 in the index: the pack is damaged; "
            "copy it anew or pass --skip-bad"
        )
    try:
        return Image.open(io.BytesIO(content), formats=["PNG"]).convert("RGB")
    except Exception as error:  # decoders fail in many ways on what is broken
        raise DataError(
            f"{file.path}: {file.name}: not a readable PNG ({reason(error)}); pass --skip-bad"
        ) from None


def _fit(picture: Any, side: int) -> Any:
    """Return the word, cut to its ink, inside a white square, as large as it fits, in the middle.

    So are the words of CEDAR: they fill the width. A picture of that size stays as it is.
    """
    from PIL import Image

    if picture.size == (side, side):
        return picture
    picture = picture.crop(picture.point(lambda grey: 255 * (grey < INK)).getbbox())
    scale = side / max(picture.size)
    width, height = (max(1, round(length * scale)) for length in picture.size)
    square = Image.new("L", (side, side), 255)
    small = picture.resize((width, height), Image.Resampling.LANCZOS)
    square.paste(small, ((side - width) // 2, (side - height) // 2))
    return square
