"""`vlm-hv-pairs`; and the pairs of any command, from a list or from a split."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from papercommons.data.pairs import write_pairs
from papercommons.data.word_options import WordOptions, name_split
from papercommons.data.word_parts import resolve_split
from papercommons.data.words import Words, open_words
from papercommons.errors import DataError
from papercommons.report import Result

from vlm_hv.cases import CaseList, Images, from_pairs, open_images, read_cases
from vlm_hv.options import PACKAGE
from vlm_hv.pairs import Split, draw_pairs, some_writers, split_pairs, split_places


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
    data: str, pairs: str | None, split: Split, limit: int | None, seed: int, options: WordOptions
) -> Chosen:
    """Return the pairs of a list, or of a split; drawn where there is a limit.

    Args:
        data: folder of the images.
        pairs: list of pairs; None takes those of `split`.
        split: train, val, test or all.
        limit: most pairs, half of each kind.
        seed: of the division, of made pairs and of the draw.
        options: which images.

    Raises:
        DataError: see `read_cases`, `papercommons.data.words.split_words`.
    """
    images = open_images(data, **options.opening())
    if pairs is not None:
        cases, source = read_cases(pairs, images), pairs
    else:
        words = by_writer(images, **options.opening())
        cases = from_pairs(split_pairs(words, split, options.split_by, seed=seed), words)
        source = name_split(split, resolve_split(words, options.split_by))
    found = cases.drawn(limit, seed=seed)
    if len(found.cases) < len(cases.cases):
        source = f"{len(found.cases):,} of {len(cases.cases):,}, {source}, seed {seed}"
    return Chosen(found, images, source)


def make_pair_file(
    data: str,
    out: str,
    split: Split,
    writer_fraction: float,
    max_per_writer: int | None,
    limit: int | None,
    seed: int,
    options: WordOptions,
) -> Result:
    """Write pairs of a split and return the result.

    Args:
        data: folder of words.
        out: the file.
        split: train, val, test or all.
        writer_fraction: share of the writers of the split.
        max_per_writer: most same-writer pairs of one writer.
        limit: most pairs, half of each kind.
        seed: of the division, of the different-writer pairs and of the draw.
        options: which images.

    Raises:
        DataError: see `open_words`, `split_words`, `make_pairs`, `write_pairs`.
    """
    words = open_words(data, **options.opening())
    if split == "test" and writer_fraction == 1 and max_per_writer is None:
        pairs = split_pairs(words, split, options.split_by, seed=seed)
    else:
        places = split_places(words, split, options.split_by, seed=seed)
        pairs = some_writers(words, places, writer_fraction, max_per_writer, seed=seed)
    if limit is not None:
        pairs = draw_pairs(pairs, limit, seed=seed)
    if not len(pairs):
        raise DataError(f"{data}: no pairs in the {split} split; choose another")
    write_pairs(out, pairs, words)
    chosen = {*pairs.left.tolist(), *pairs.right.tolist()}
    writers = {words.writers[place] for place in chosen}
    settings: dict[str, Any] = {"data": data, "out": out, "split": split, "seed": seed}
    settings |= {"writer_fraction": writer_fraction, "max_per_writer": max_per_writer}
    split_by = resolve_split(words, options.split_by)
    return Result(
        package=PACKAGE,
        command="vlm-hv-pairs",
        title=f"{len(pairs):,} pairs of {len(writers):,} writers, {name_split(split, split_by)}",
        metrics={
            "pairs": len(pairs),
            "same_writer_pairs": int(pairs.same.sum()),
            "writers": len(writers),
            "images": len(chosen),
            "left_out": len(words.bad),
        },
        settings={**settings, "limit": limit, **asdict(options), "split_by": split_by},
        limits="Writers with many words have more pairs; --max-per-writer evens that out.",
        data_hash=words.digest,
        device="cpu",
        files={"pairs": out},
        notes=[f"left out: {name}" for name in words.bad],
    )
