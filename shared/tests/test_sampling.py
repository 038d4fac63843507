from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from papercommons.data.sampling import EpochSampler, batch_loader, mix_seeds

sizes, worlds = st.integers(1, 50), st.integers(1, 5)


def indices(sampler):
    return [index for _, index in sampler]


@given(sizes, st.integers(0, 9), st.integers(0, 9))
def test_an_epoch_is_a_permutation_that_follows_from_seed_and_epoch(size, seed, epoch):
    sampler = EpochSampler(size, shuffle=True, seed=seed)
    sampler.set_epoch(epoch)
    pairs = list(sampler)
    assert sorted(index for _, index in pairs) == list(range(size))
    assert {number for number, _ in pairs} == {epoch}
    torch.manual_seed(123)
    again = EpochSampler(size, shuffle=True, seed=seed)
    again.set_epoch(epoch)
    assert list(again) == pairs
    assert len(again) == size


def test_orders_differ_between_epochs_and_seeds():
    orders = set()
    for seed in range(3):
        sampler = EpochSampler(20, shuffle=True, seed=seed)
        for epoch in range(3):
            sampler.set_epoch(epoch)
            orders.add(tuple(indices(sampler)))
    assert len(orders) == 9


def test_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    list(EpochSampler(20, shuffle=True))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_resumed_run_repeats_none():
    whole = EpochSampler(10, shuffle=True, seed=4)
    seen = []
    for epoch in range(4):
        whole.set_epoch(epoch)
        seen.append(list(whole))
    resumed = EpochSampler(10, shuffle=True, seed=4)
    resumed.set_epoch(3)
    assert list(resumed) == seen[3]


def test_setting_the_epoch_leaves_a_begun_iteration_alone():
    sampler = EpochSampler(5, shuffle=True)
    begun = iter(sampler)
    next(begun)
    sampler.set_epoch(7)
    assert {epoch for epoch, _ in begun} == {0}


@given(sizes, worlds, st.booleans())
def test_shares_of_the_processes(size, world, shuffle):
    if size < world:
        return
    samplers = [
        EpochSampler(size, shuffle=shuffle, seed=1, rank=rank, world_size=world)
        for rank in range(world)
    ]
    shares = [indices(sampler) for sampler in samplers]
    assert [len(share) for share in shares] == [len(sampler) for sampler in samplers]
    drawn = [index for share in shares for index in share]
    assert set(drawn) == set(range(size))
    if shuffle:
        assert {len(share) for share in shares} == {-(-size // world)}
        assert len(drawn) - size < world
    else:
        assert sorted(drawn) == list(range(size))


def test_one_process_sees_what_many_share():
    whole = indices(EpochSampler(12, shuffle=True, seed=2))
    shares = [
        indices(EpochSampler(12, shuffle=True, seed=2, rank=r, world_size=3)) for r in range(3)
    ]
    assert [index for step in zip(*shares, strict=True) for index in step] == whole


@pytest.mark.parametrize("size", [0, 1])
def test_too_few_items(size):
    sampler = EpochSampler(size, shuffle=False, rank=0, world_size=2)
    with pytest.raises(ValueError, match=f"{size} items cannot be shared by 2 processes"):
        list(sampler)


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=4), st.integers(0, 3))
def test_mixed_seeds_suit_torch_and_follow_every_part(parts, place):
    seed = mix_seeds(*parts)
    assert 0 <= seed < 2**63
    torch.Generator().manual_seed(seed)
    changed = list(parts)
    changed[place % len(parts)] += 1
    assert mix_seeds(*changed) != seed
    assert mix_seeds(*parts) == seed


def test_mixed_seeds_are_the_same_everywhere_and_keep_the_order():
    assert mix_seeds(0, 1) != mix_seeds(1, 0)
    assert mix_seeds(0) != mix_seeds(0, 0)
    assert mix_seeds(1, 2, 3) == 6399530672570040056
    assert len({mix_seeds(a, b) for a in range(100) for b in range(100)}) == 10_000


def test_mixed_seeds_change_half_of_their_bits():
    flips = [(mix_seeds(7, i) ^ mix_seeds(7, i + 1)).bit_count() for i in range(500)]
    assert 30 < sum(flips) / len(flips) < 33


class Numbers:
    """Gives the indices of a batch."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitems__(self, items):
        return [index for _, index in items]


@pytest.mark.parametrize(("size", "whole", "batches"), [(7, False, 4), (7, True, 3), (1, True, 1)])
def test_a_loader_gives_the_batches_that_the_dataset_makes(size, whole, batches):
    loader = batch_loader(Numbers(size), batch_size=2, seed=0, shuffle=True, whole=whole)
    found = list(loader)
    assert len(found) == batches
    seen = [index for batch in found for index in batch]
    assert len(set(seen)) == len(seen) == min(size, 2 * batches)
    assert all(type(batch) is list for batch in found)


def test_in_order_no_item_is_left_out():
    loader = batch_loader(Numbers(7), batch_size=2, seed=0, whole=True)
    assert list(loader) == [[0, 1], [2, 3], [4, 5], [6]]
