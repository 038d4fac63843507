from __future__ import annotations

import logging
import pickle
import shutil

import numpy as np
import pytest
import torch
from papercommons.data.pairs import make_pairs, read_pairs, write_pairs
from papercommons.data.word_parts import default_split
from papercommons.data.words import open_words
from papercommons.errors import DataError
from ssl_hv.data import Partners, WordData


def writers_of(data, part):
    return {data.words.writers[place] for place in data.splits[part]}


def places_in(pairs):
    return {*pairs.left.tolist(), *pairs.right.tolist()}


@pytest.fixture(scope="module")
def opened(words):
    return open_words(words)


@pytest.fixture(scope="module")
def data(opened):
    return WordData(opened, batch_size=8)


def test_no_writer_is_in_two_splits(data):
    train, val, test = (writers_of(data, part) for part in ("train", "val", "test"))
    assert not train & val
    assert not (train | val) & test
    assert len(val) >= 2
    assert len(train | val | test) == 14
    assert writers_of(data, "unlabelled") == train | val
    assert data.split_by == "writers"
    for part in ("train", "val", "test"):
        assert places_in(data.pairs[part]) <= set(data.splits[part])


def test_dev_writers_come_out_of_the_labelled_ones(opened):
    whole, half = WordData(opened), WordData(opened, writer_fraction=0.5)
    labelled = writers_of(half, "train") | writers_of(half, "val")
    every = sorted(writers_of(whole, "unlabelled"))
    assert labelled == set(every[: len(every) // 2])  # the first ones, as in the paper
    assert half.splits["unlabelled"] == whole.splits["unlabelled"]
    assert half.splits["test"] == whole.splits["test"]
    assert half.writers == sorted(writers_of(half, "train"))


def test_more_dev_writers_leave_fewer_to_train_on(opened):
    more = WordData(opened, val_fraction=0.5)
    assert len(writers_of(more, "val")) == round(0.5 * len(writers_of(more, "unlabelled")))
    assert not writers_of(more, "val") & writers_of(more, "train")


@pytest.mark.parametrize("channels", [1, 3])
def test_image_batches_hold_what_their_indices_say(opened, channels):
    data = WordData(opened, batch_size=8, in_channels=channels)
    seen = []
    for images, writers, indices, partners in data.train_dataloader():
        assert partners is None
        assert (images.dtype, images.shape) == (torch.uint8, (8, channels, 64, 64))
        for image, writer, place in zip(images, writers, indices.tolist(), strict=True):
            for channel in image:
                np.testing.assert_array_equal(channel.numpy(), opened.read(place))
            name = opened.writers[place]
            assert writer == (data.writers.index(name) if name in data.writers else -1)
        seen += indices.tolist()
    assert len(set(seen)) == len(seen) == len(data.splits["unlabelled"]) // 8 * 8
    assert set(seen) <= set(data.splits["unlabelled"])


def test_batches_of_writers_hold_labelled_ones_alone(opened):
    data = WordData(opened, batches="writers", batch_size=8)
    batches = list(data.train_dataloader())
    assert {*torch.cat([b.indices for b in batches]).tolist()} <= set(data.splits["train"])
    numbers = torch.cat([batch.writers for batch in batches])
    assert numbers.min() >= 0
    assert numbers.max() < len(data.writers)
    assert data.has_val


def test_pair_batches_hold_the_pairs(opened):
    data = WordData(opened, batches="pairs", batch_size=10**6)
    (batch,) = data.test_dataloader()
    pairs = data.pairs["test"]
    assert torch.equal(batch.same, torch.as_tensor(pairs.same))
    for images, places in ((batch.left, pairs.left), (batch.right, pairs.right)):
        np.testing.assert_array_equal(images[:, 0].numpy(), opened.load(places))
    (val,) = data.val_dataloader()
    assert len(val.same) == len(data.pairs["val"])


def test_the_order_follows_seed_and_epoch(opened):
    def order(seed, epoch=0):
        data = WordData(opened, batch_size=8, seed=0)
        data.seed = seed
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        return torch.cat([batch.indices for batch in loader]).tolist()

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert order(0) != order(0, epoch=1)


def test_prediction_goes_through_everything_in_order(data):
    places = torch.cat([batch.indices for batch in data.predict_dataloader()])
    assert places.tolist() == list(range(70))


def test_pretraining_has_no_validation(data):
    assert data.val_dataloader() == []
    assert not data.has_val


def test_a_set_smaller_than_a_batch_is_one_batch(opened):
    data = WordData(opened, batch_size=500)
    (batch,) = data.train_dataloader()
    assert sorted(batch.indices.tolist()) == data.splits["unlabelled"]


def test_most_pairs_of_a_writer(opened):
    data = WordData(opened, max_per_writer=3)
    pairs = data.pairs["train"]
    writers = np.array(opened.writers)[pairs.left[pairs.same == 1]]
    assert set(np.unique(writers, return_counts=True)[1]) == {3}
    assert len(data.pairs["test"]) == len(WordData(opened).pairs["test"])


def test_pairs_outside_the_training_split_are_left_out_aloud(opened, data, tmp_path, caplog):
    everything = make_pairs(opened, range(len(opened)))
    write_pairs(tmp_path / "all.csv", everything, opened)
    with caplog.at_level(logging.WARNING, logger="papercommons"):
        given = WordData(opened, pairs=str(tmp_path / "all.csv"))
    kept = given.pairs["train"]
    train = set(data.splits["train"])
    expected = [
        bool({int(a), int(b)} <= train)
        for a, b in zip(everything.left, everything.right, strict=True)
    ]
    assert len(kept) == sum(expected) > 0
    assert places_in(kept) <= train
    outside = len(everything) - len(kept)
    assert f"{outside} of {len(everything)} pairs have an image outside" in caplog.text
    write_pairs(tmp_path / "test.csv", data.pairs["test"], opened)
    with pytest.raises(DataError, match="no pair lies in the training part of split writers"):
        WordData(opened, pairs=str(tmp_path / "test.csv"))


def test_a_folder_with_its_own_split(words, tmp_path):
    for writer in sorted(words.iterdir()):
        part = "test" if writer.name > "w08" else "train"
        shutil.copytree(writer, tmp_path / part / writer.name)
    data = WordData(str(tmp_path))
    assert data.split_by == "published"
    assert writers_of(data, "test") == {"w09", "w10", "w11", "w12", "w13"}
    shutil.copytree(words / "w00", tmp_path / "test" / "w00")
    with pytest.raises(DataError, match=r"1 writers are in both train and test \(w00\)"):
        WordData(str(tmp_path))
    data = WordData(str(tmp_path), allow_writer_overlap=True)
    assert "w00" in writers_of(data, "test") & writers_of(data, "unlabelled")


def test_the_published_list_of_test_pairs_is_used(write_pack, tmp_path):
    root = write_pack(tmp_path / "pack")
    assert default_split(open_words(root)) == "unseen"
    made = WordData(str(root))
    assert writers_of(made, "test") == {"0007", "0008"}
    (root / "pairs_unseen_val.csv").write_text(
        "left,right,label\n0007a_num2.png,0007a_num1.png,1\n0008a_num3.png,0007a_num1.png,0\n"
    )
    given = WordData(str(root))
    names = given.words.names
    pairs = given.pairs["test"]
    assert [names[k] for k in pairs.left] == ["0007a_num2.png", "0008a_num3.png"]
    assert pairs.same.tolist() == [1, 0]
    assert len(made.pairs["test"]) > 2


def test_the_real_list_of_test_pairs(shared_files):
    root = shared_files / "data" / "cedar-and"
    words = open_words(root)
    pairs = read_pairs(root / "pairs_unseen_val.csv", words)
    assert len(pairs) == 6680
    unseen = set(words.published["unseen"]["val"])
    assert places_in(pairs) <= unseen


def test_it_travels_to_workers(data):
    dataset = data.train_dataloader().dataset
    again = pickle.loads(pickle.dumps(dataset))
    own, other = (d.__getitems__([(0, 3)]) for d in (dataset, again))
    assert own.partners is other.partners is None
    assert all(torch.equal(a, b) for a, b in zip(own[:3], other[:3], strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 1}, "batch_size must be >= 2"),
        ({"writer_fraction": 0.0}, "writer_fraction must be in"),
        ({"val_fraction": 1.0}, "val_fraction in"),
        ({"in_channels": 2}, "in_channels must be 1 or 3, got 2"),
    ],
)
def test_bad_options_are_refused(opened, options, message):
    with pytest.raises(ValueError, match=message):
        WordData(opened, **options)


def test_too_few_writers_are_told(write_words, tmp_path):
    root = write_words(tmp_path / "few", writers=range(4))
    with pytest.raises(DataError, match="at least 4 are needed to hold 2 out"):
        WordData(str(root))
    with pytest.raises(DataError, match="no split 'unseen'"):
        WordData(str(root), split_by="unseen")


def test_partners_are_other_words_of_the_same_page(tmp_path, write_pack):
    write_pack(tmp_path, writers=12, unseen=3, samples=4)
    data = WordData(str(tmp_path), batch_size=8, positives="page", seed=3)
    words = data.words
    place_of = {words.read(place).tobytes(): place for place in range(len(words))}
    loader, seen = data.train_dataloader(), {}
    for epoch in range(6):
        loader.sampler.set_epoch(epoch)
        for images, _, indices, partners in loader:
            assert images.shape == partners.shape
            for place, partner in zip(indices.tolist(), partners, strict=True):
                other = place_of[partner[0].numpy().tobytes()]
                assert other != place
                page = words.writers[place], words.pages[place]
                assert (words.writers[other], words.pages[other]) == page
                seen.setdefault(place, set()).add(other)
    assert max(map(len, seen.values())) == 3  # each of the others, in some epoch
    again = next(iter(data.train_dataloader()))
    assert torch.equal(again.partners, next(iter(data.train_dataloader())).partners)


def test_partners_come_evenly_and_a_single_word_is_its_own():
    partners = Partners(["b", "a", "b", "b", "c", "a"])
    assert partners.alone == 1
    generator = np.random.default_rng(0)
    drawn = np.array([partners.draw(np.arange(6), generator) for _ in range(600)])
    assert set(drawn[:, 4]) == {4}
    assert set(drawn[:, 1]) == {5}
    counts = np.bincount(drawn[:, 0], minlength=6)
    assert counts[[0, 1, 4, 5]].sum() == 0
    assert 240 < counts[2] < 360


def test_pages_must_be_known(opened):
    data = WordData(opened, batch_size=8, positives="page")
    with pytest.raises(DataError, match="need the page of every word"):
        data.train_dataloader()
