from __future__ import annotations

from collections import Counter

import pytest
from cmdfd.sampling import FrameBudgetSampler, frame_budget_batches
from hypothesis import given
from hypothesis import strategies as st

lengths_of_clips = st.lists(st.integers(5, 60), min_size=4, max_size=40)


def test_batches_are_the_references(parity):
    example = parity("batching_metrics")
    lengths = example["sorted_lengths"].tolist()
    batches = frame_budget_batches(lengths, int(example["frame_budget"]))
    found = [[batch[0], batch[-1] + 1, lengths[batch[-1]]] for batch in batches]
    assert found == example["batches_start_end_frames"].tolist()
    assert [clip for batch in batches for clip in batch] == list(range(len(lengths)))


@given(lengths=lengths_of_clips, budget=st.integers(1, 200))
def test_every_clip_is_in_one_batch_within_the_budget(lengths, budget):
    for cut in (True, False):
        batches = frame_budget_batches(lengths, budget, cut=cut)
        assert sorted(clip for batch in batches for clip in batch) == list(range(len(lengths)))
        for batch in batches:
            longest = max(lengths[clip] for clip in batch)
            assert len(batch) == 1 or len(batch) * longest <= budget
            assert cut or len({lengths[clip] for clip in batch}) == 1


@given(lengths=lengths_of_clips, world=st.integers(1, 3), epoch=st.integers(0, 3))
def test_processes_share_the_batches(lengths, world, epoch):
    budget = 60
    for shuffle in (True, False):
        shares = []
        for rank in range(world):
            one = FrameBudgetSampler(lengths, budget, shuffle=shuffle, rank=rank, world_size=world)
            one.set_epoch(epoch)
            if len(frame_budget_batches(lengths, budget, cut=shuffle)) < world:
                with pytest.raises(ValueError, match="cannot be shared"):
                    len(one)
                return
            shares.append(list(one))
            assert len(shares[-1]) == len(one)
        given_ = Counter(clip for share in shares for batch in share for _, clip in batch)
        assert set(given_) == set(range(len(lengths)))
        assert {e for share in shares for batch in share for e, _ in batch} == {epoch}
        if shuffle:
            assert len({len(share) for share in shares}) == 1
        else:
            assert set(given_.values()) == {1}


def test_each_epoch_has_its_own_order_and_repeats_it():
    sampler = FrameBudgetSampler([20] * 30, 80, shuffle=True, seed=3)
    first = list(sampler)
    assert first == list(sampler)
    sampler.set_epoch(1)
    other = [[clip for _, clip in batch] for batch in sampler]
    assert {frozenset(batch) for batch in other} != {
        frozenset(clip for _, clip in batch) for batch in first
    }
    assert [e for batch in sampler for e, _ in batch] == [1] * 30


def test_lightning_reaches_the_epoch():
    from lightning.fabric.utilities.data import _set_sampler_epoch
    from torch.utils.data import DataLoader

    sampler = FrameBudgetSampler([20] * 6, 40, shuffle=True)
    loader = DataLoader(range(6), batch_size=None, sampler=sampler)
    _set_sampler_epoch(loader, 5)
    assert {epoch for batch in sampler for epoch, _ in batch} == {5}


def test_wrong_numbers_are_told():
    with pytest.raises(ValueError, match="must be >= 1, got 0"):
        frame_budget_batches([5], 0)
    with pytest.raises(ValueError, match="must be >= 1"):
        frame_budget_batches([5, 0], 9)
    assert frame_budget_batches([], 9) == []
