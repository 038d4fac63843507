from __future__ import annotations

import numpy as np
import pytest
import torch
from papercommons.data.pairs import Pairs, make_pairs, write_pairs
from papercommons.data.word_parts import default_split, pairs_to_judge
from papercommons.data.words import open_words
from papercommons.errors import DataError
from vlm_hv.data import PairData, PairDataset, ablate_pairs
from vlm_hv.pairs import draw_pairs
from vlm_hv.prompting import PairPrompt
from vlm_hv.tiny import tiny_paligemma

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


@pytest.fixture(scope="module")
def prompt():
    return PairPrompt(tiny_paligemma(size=32, width=16, layers=1)[1], "paligemma")


@pytest.fixture(scope="module")
def data(words, prompt):
    return PairData(str(words), prompt, batch_size=6)


def writers(data, part):
    return {data.words.writers[place] for place in data.splits[part]}


def test_no_writer_is_in_two_splits(data):
    parts = [writers(data, part) for part in ("train", "val", "test")]
    assert all(parts)
    assert sum(map(len, parts)) == len(set().union(*parts)) == len(set(data.words.writers))
    for part, pairs in data.pairs.items():
        inside = set(data.splits[part])
        assert inside.issuperset(pairs.left.tolist() + pairs.right.tolist())
        assert 0 < pairs.same.mean() < 1


def test_training_batches_hold_prompt_answer_and_labels(data, prompt):
    batch = next(iter(data.train_dataloader()))
    tokenizer = prompt.processor.tokenizer
    said = [tokenizer.decode(row[:1]) for row in batch.labels]
    assert said == ["yes" if one else "no" for one in batch.same.tolist()]
    assert torch.equal(batch.inputs["input_ids"][:, -batch.labels.shape[1] :], batch.labels)
    assert batch.inputs["pixel_values"].shape == (12, 3, 32, 32)


def test_validation_and_test_batches_hold_no_answer(data):
    for loader, part in ((data.val_dataloader(), "val"), (data.test_dataloader(), "test")):
        batches = list(loader)
        assert all(batch.labels.shape[1] == 0 for batch in batches)
        assert (
            torch.cat([batch.same for batch in batches]).tolist() == data.pairs[part].same.tolist()
        )
    yes = data.prompt.processor.tokenizer("yes")["input_ids"][0]
    assert not (batches[0].inputs["input_ids"] == yes).any()


def test_half_of_the_training_pairs_are_swapped_anew_in_each_epoch(data, prompt):
    pairs = data.pairs["train"]
    dataset = PairDataset(data.images, pairs, prompt, answered=True, seed=3)
    plain = PairDataset(data.images, pairs, prompt)
    count = min(len(pairs), 24)

    def swapped(epoch):
        items = [(epoch, number) for number in range(count)]
        shown = dataset.__getitems__(items).inputs["pixel_values"].unflatten(0, (count, 2))
        straight = plain.__getitems__(items).inputs["pixel_values"].unflatten(0, (count, 2))
        flags = []
        for one, other in zip(shown, straight, strict=True):
            assert torch.equal(one, other) or torch.equal(one, other.flip(0))
            flags.append(not torch.equal(one, other))
        return flags

    first = swapped(0)
    assert 0.2 < np.mean(first) < 0.8
    assert swapped(0) == first
    assert swapped(1) != first


def test_the_order_depends_on_seed_and_epoch(words, prompt):
    def order(seed, epoch):
        loader = PairData(str(words), prompt, seed=seed, batch_size=4).train_dataloader()
        loader.sampler.set_epoch(epoch)
        return list(loader.sampler)

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_a_file_of_pairs_is_kept_to_the_training_split(words, prompt, data, tmp_path, caplog):
    everything = make_pairs(data.words, range(len(data.words)))
    write_pairs(tmp_path / "pairs.csv", everything, data.words)
    own = PairData(str(words), prompt, pairs=str(tmp_path / "pairs.csv"))
    pairs = own.pairs["train"]
    assert set(own.splits["train"]).issuperset(pairs.left.tolist() + pairs.right.tolist())
    assert "have an image outside the labelled training part" in caplog.text
    outside = make_pairs(data.words, data.splits["test"])
    write_pairs(tmp_path / "test.csv", outside, data.words)
    with pytest.raises(DataError, match="no pair lies in the training part"):
        PairData(str(words), prompt, pairs=str(tmp_path / "test.csv"))


def test_drawn_pairs_are_half_of_each_kind(data):
    def pairs_of(ones, zeros):
        same = np.array([1] * ones + [0] * zeros)
        return Pairs(np.arange(len(same)), np.arange(len(same)), same)

    for ones, zeros, most, expected in (
        (10, 10, 6, (3, 3)),
        (2, 10, 6, (2, 4)),
        (10, 2, 6, (4, 2)),
        (10, 0, 6, (6, 0)),
        (3, 3, 10, (3, 3)),
        (10, 10, 7, (3, 4)),
    ):
        found = draw_pairs(pairs_of(ones, zeros), most)
        assert (int(found.same.sum()), int((found.same == 0).sum())) == expected
        assert len(set(found.left.tolist())) == len(found)
        assert (np.diff(found.left) > 0).all()
    whole = data.pairs["train"]
    assert draw_pairs(whole, 4, seed=0).left.tolist() != draw_pairs(whole, 4, seed=1).left.tolist()


def test_ablated_pairs_say_nothing_about_the_labels(data):
    images, pairs = data.images, data.pairs["train"]
    blank, same_pairs = ablate_pairs(images, pairs, "blank")
    assert (blank == 255).all()
    assert blank.shape == images.shape
    assert same_pairs is pairs
    kept, torn = ablate_pairs(images, pairs, "shuffle", seed=1)
    assert kept is images
    before, after = (
        list(zip(p.left.tolist(), p.right.tolist(), strict=True)) for p in (pairs, torn)
    )
    assert sorted(after) == sorted(before)
    assert after != before
    assert torn.same.tolist() == pairs.same.tolist()
    with pytest.raises(ValueError, match="kind must be blank or shuffle, got 'text-only'"):
        ablate_pairs(images, pairs, "text-only")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be >= 1"),
        ({"max_pairs": 1}, "max_pairs >= 2"),
        ({"writer_fraction": 0.0}, r"writer_fraction must be in \(0, 1\]"),
        ({"val_fraction": 1.0}, r"val_fraction in \(0, 1\)"),
        ({"split_by": "unseen"}, "no split 'unseen'"),
    ],
)
def test_bad_options_are_refused(options, message, words, prompt):
    with pytest.raises(ValueError, match=message):
        PairData(str(words), prompt, **options)


def test_published_pairs_are_the_test_pairs(shared_files):
    words = open_words(shared_files / "data/cedar-and")
    assert default_split(words) == "unseen"
    pairs = pairs_to_judge(words, "unseen", [])
    assert (len(pairs), int(pairs.same.sum())) == (6680, 3302)
