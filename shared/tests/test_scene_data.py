from __future__ import annotations

import pytest
import torch
from papercommons.data.scene_data import SceneData, as_images, draw_scenes
from papercommons.data.scenes import CROWDED, SIMPLE


def batches(data, epoch=0):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def test_batches_are_pictures_with_their_captions():
    data = SceneData("simple", train=10, val=3, batch_size=4, seed=1)
    found = batches(data)
    assert [len(batch.captions) for batch in found] == [4, 4]
    by_caption = {}
    for scene, picture in zip(data.train.scenes, data.train.pictures, strict=True):
        by_caption.setdefault(scene.caption(), []).append(as_images(picture))
    for batch in found:
        assert batch.images.dtype == torch.float32
        assert batch.images.shape == (4, 3, 32, 32)
        for image, caption in zip(batch.images, batch.captions, strict=True):
            assert any(torch.equal(image, own) for own in by_caption[caption])
    assert [len(batch.captions) for batch in data.val_dataloader()] == [3]
    extremes = as_images(torch.tensor([0, 255], dtype=torch.uint8))
    assert extremes.tolist() == [-1, 1]


def test_captions_follow_from_seed_epoch_and_scene():
    data = SceneData("crowded", train=40, val=1, batch_size=40)
    again = SceneData("crowded", train=40, val=1, batch_size=40)
    (first,), (later,) = batches(data, 0), batches(data, 1)
    assert (batches(again, 1)[0].captions, batches(again, 0)[0].captions) == (
        later.captions,
        first.captions,
    )
    assert torch.equal(batches(again, 1)[0].images, later.images)
    assert set(first.captions) != set(later.captions)
    other = SceneData("crowded", train=40, val=1, batch_size=40, seed=1)
    assert set(batches(other)[0].captions) != set(first.captions)


def test_scenes_are_the_same_whatever_their_number():
    few, many = (draw_scenes(CROWDED, count, seed=4) for count in (3, 8))
    assert few == many[:3]
    assert draw_scenes(SIMPLE, 3, seed=5) != draw_scenes(SIMPLE, 3, seed=4)
    data = SceneData("simple", train=5, val=3, seed=4)
    assert [*data.train.scenes, *data.val.scenes] == draw_scenes(SIMPLE, 8, seed=4)


@pytest.mark.parametrize("wrong", [{"train": 0}, {"val": 0}, {"size": 8}, {"batch_size": 0}])
def test_numbers_out_of_range_are_told(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} must be >="):
        SceneData("simple", **wrong)
