"""The pairs of a command, from a list or from a split; and `vlm-hv-pairs`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from papercommons.data.pairs import write_pairs
from papercommons.data.word_parts import resolve_split
from papercommons.data.words import Words, open_words
from papercommons.errors import DataError
from papercommons.report import Result

from vlm_hv.cases import CaseList, Images, from_pairs, open_images, read_cases
from vlm_hv.choosing import (
    Part,
    draw_pairs,
    part_pairs,
    part_places,
    some_writers,
)
from vlm_hv.options import WordOptions


@dataclass(frozen=True)
class Chosen:
    """The pairs of a command.

    Attributes:
        cases: the pairs.
        images: where their images lie.
        source: what they are, in words.
    """

    cases: CaseList
    images: Images
    source: str

    @property
    def words(self) -> Words:
        """The set of words.

        Raises:
            DataError: the folder is not laid out by writer.
        """
        return by_writer(self.images)


def by_writer(images: Images, **options: Any) -> Words:
    """Return the words of a folder that is laid out by writer.

    Args:
        images: the folder.
        **options: of `papercommons.data.words.open_words`.

    Raises:
        DataError: it is not; the message says what is missing.
    """
    return open_words(images.root, **options) if images.words is None else images.words


def choose_cases(
    data: str, pairs: str | None, part: Part, limit: int | None, seed: int, options: WordOptions
) -> Chosen:
    """Return the pairs of a list, or of a part of a split; drawn where there is a limit.

    Args:
        data: folder of the images.
        pairs: list of pairs; None takes those of `part`.
        part: of the split.
        limit: most pairs, half of each kind.
        seed: of the split, of made pairs and of the draw.
        options: which images.

    Raises:
        DataError: see `read_cases`, `papercommons.data.words.split_words`.
    """
    images = open_images(data, **options.opening())
    if pairs is not None:
        cases, source = read_cases(pairs, images), pairs
    else:
        words = by_writer(images, **options.opening())
        cases = from_pairs(part_pairs(words, options.split, part, seed=seed), words)
        split = resolve_split(words, options.split)
        source = f"{part} part of split {split}" if part != "all" else "all writers"
    found = cases.drawn(limit, seed=seed)
    if len(found.cases) < len(cases.cases):
        source = f"{len(found.cases):,} of {len(cases.cases):,}, {source}, seed {seed}"
    return Chosen(found, images, source)


def make_pair_file(
    data: str,
    out: str,
    part: Part,
    writer_fraction: float,
    max_per_writer: int | None,
    limit: int | None,
    seed: int,
    options: WordOptions,
) -> Result:
    """Write pairs of a part of a split and return the result.

    Args:
        data: folder of words.
        out: the file.
        part: of the split.
        writer_fraction: share of the writers of the part.
        max_per_writer: most same-writer pairs of one writer.
        limit: most pairs, half of each kind.
        seed: of the split, of the different-writer pairs and of the draw.
        options: which images.

    Raises:
        DataError: see `open_words`, `split_words`, `make_pairs`, `write_pairs`.
    """
    words = open_words(data, **options.opening())
    if part == "test" and writer_fraction == 1 and max_per_writer is None:
        pairs = part_pairs(words, options.split, part, seed=seed)
    else:
        places = part_places(words, options.split, part, seed=seed)
        pairs = some_writers(words, places, writer_fraction, max_per_writer, seed=seed)
    if limit is not None:
        pairs = draw_pairs(pairs, limit, seed=seed)
    if not len(pairs):
        raise DataError(f"{data}: no pairs in the {part} part; choose another")
    write_pairs(out, pairs, words)
    chosen = {*pairs.left.tolist(), *pairs.right.tolist()}
    writers = {words.writers[place] for place in chosen}
    settings: dict[str, Any] = {"data": data, "out": out, "part": part, "seed": seed}
    settings |= {"writer_fraction": writer_fraction, "max_per_writer": max_per_writer}
    split = resolve_split(words, options.split)
    return Result(
        package="vlm-hv",
        command="vlm-hv-pairs",
        title=f"{len(pairs):,} pairs of {len(writers):,} writers, {part} of split {split}",
        metrics={
            "pairs": len(pairs),
            "same_writer_pairs": int(pairs.same.sum()),
            "writers": len(writers),
            "images": len(chosen),
        },
        settings={**settings, "limit": limit, **asdict(options), "split": split},
        limits="Writers with many words have more pairs; --max-per-writer evens that out.",
        data_hash=words.digest,
        files={"pairs": out},
    )
