from __future__ import annotations

import inspect

import pytest
from papercommons.data.word_options import LabelOptions, WordOptions, check_pairs
from papercommons.data.words import open_words
from papercommons.errors import DataError


def test_every_option_of_opening_is_an_argument_of_open_words():
    options = WordOptions(variant="all", resize=64, verify=True, skip_bad=True).opening()
    assert options == {"variant": "all", "resize": 64, "verify": True, "skip_bad": True}
    assert options.keys() <= inspect.signature(open_words).parameters.keys()


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: WordOptions(resize=8), "--resize must be >= 16, got 8"),
        (lambda: LabelOptions(writer_fraction=0), "--writer-fraction must be in"),
        (lambda: LabelOptions(val_fraction=1), "--val-fraction must be in"),
        (lambda: LabelOptions(max_per_writer=0), "--max-per-writer must be >= 1, got 0"),
    ],
)
def test_a_number_out_of_range_names_its_option(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()


def test_a_list_of_pairs_must_be_there(tmp_path):
    with pytest.raises(DataError, match="no such file; --pairs takes a list of pairs"):
        LabelOptions(pairs=str(tmp_path / "absent.csv"))
    (tmp_path / "pairs.csv").write_text("left,right,label\n")
    check_pairs(str(tmp_path / "pairs.csv"))
    check_pairs(None)
