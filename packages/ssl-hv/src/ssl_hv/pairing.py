"""`ssl-hv-pairs`: a file of pairs of one split."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from papercommons.data.pairs import make_pairs, write_pairs
from papercommons.data.word_options import WordOptions, name_split
from papercommons.data.word_parts import resolve_split
from papercommons.data.words import first_writers, open_words, split_words
from papercommons.report import Result

from ssl_hv.options import PACKAGE


def make_pair_file(
    data: str,
    out: str,
    split: str,
    writer_fraction: float,
    max_per_writer: int | None,
    seed: int,
    options: WordOptions,
) -> Result:
    """Write pairs and return the result.

    Args:
        data: folder of words.
        out: the file.
        split: train, test or all.
        writer_fraction: share of the writers of the split.
        max_per_writer: most same-writer pairs of one writer.
        seed: of the different-writer pairs.
        options: which images.

    Raises:
        DataError: see `open_words`, `split_words`, `make_pairs`, `write_pairs`.
    """
    words = open_words(data, **options.opening())
    split_by = resolve_split(words, options.split_by)
    places = list(range(len(words)))
    if split != "all":
        places = split_words(words, split_by, seed=seed)[split]
    places = first_writers(words, places, writer_fraction)
    pairs = make_pairs(words, places, seed=seed, max_per_writer=max_per_writer)
    write_pairs(out, pairs, words)
    writers = {words.writers[place] for place in places}
    settings: dict[str, Any] = {"data": data, "out": out, "split": split, "seed": seed}
    settings |= {"writer_fraction": writer_fraction, "max_per_writer": max_per_writer}
    return Result(
        package=PACKAGE,
        command="ssl-hv-pairs",
        title=f"{len(pairs):,} pairs of {len(writers):,} writers, {name_split(split, split_by)}",
        metrics={
            "pairs": len(pairs),
            "same_writer_pairs": int(pairs.same.sum()),
            "writers": len(writers),
            "images": len(places),
            "left_out": len(words.bad),
        },
        settings={**settings, **asdict(options), "split_by": split_by},
        limits="Writers with many words have more pairs; --max-per-writer evens that out.",
        data_hash=words.digest,
        device="cpu",
        files={"pairs": out},
        notes=[f"left out: {name}" for name in words.bad],
    )
