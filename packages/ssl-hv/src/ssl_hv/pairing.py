"""`ssl-hv-pairs`: a file of pairs of one part of a split."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from papercommons.data.pairs import make_pairs, write_pairs
from papercommons.data.word_parts import resolve_split
from papercommons.data.words import first_writers, open_words, split_words
from papercommons.report import Result

from ssl_hv.options import WordOptions


def make_pair_file(
    data: str,
    out: str,
    part: str,
    writer_fraction: float,
    max_per_writer: int | None,
    seed: int,
    options: WordOptions,
) -> Result:
    """Write pairs and return the result.

    Args:
        data: folder of words.
        out: the file.
        part: train, test or all.
        writer_fraction: share of the writers of the part.
        max_per_writer: most same-writer pairs of one writer.
        seed: of the different-writer pairs.
        options: which images.

    Raises:
        DataError: see `open_words`, `split_words`, `make_pairs`, `write_pairs`.
    """
    words = open_words(
        data,
        variant=options.variant,
        verify=options.verify,
        skip_bad=options.skip_bad,
        resize=options.resize,
    )
    split = resolve_split(words, options.split)
    places = (
        list(range(len(words))) if part == "all" else split_words(words, split, seed=seed)[part]
    )
    places = first_writers(words, places, writer_fraction)
    pairs = make_pairs(words, places, seed=seed, max_per_writer=max_per_writer)
    write_pairs(out, pairs, words)
    writers = {words.writers[place] for place in places}
    settings: dict[str, Any] = {"data": data, "out": out, "part": part, "seed": seed}
    settings |= {"writer_fraction": writer_fraction, "max_per_writer": max_per_writer}
    return Result(
        package="ssl-hv",
        command="ssl-hv-pairs",
        title=f"{len(pairs):,} pairs of {len(writers):,} writers, {part} of split {split}",
        metrics={
            "pairs": len(pairs),
            "same_writer_pairs": int(pairs.same.sum()),
            "writers": len(writers),
            "images": len(places),
        },
        settings={**settings, **asdict(options), "split": split},
        limits="Writers with many words have more pairs; --max-per-writer evens that out.",
        data_hash=words.digest,
        files={"pairs": out},
    )
