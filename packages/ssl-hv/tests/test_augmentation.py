from __future__ import annotations

import pytest
import torch
from ssl_hv import augmentation
from ssl_hv.augmentation import handwriting, paper

both = pytest.mark.parametrize("change", [handwriting, paper], ids=["handwriting", "paper"])


def block(count=1, channels=1):
    """One block of ink in the upper left."""
    images = torch.zeros(count, channels, 64, 64)
    images[:, :, 8:40, 6:22] = 0.8
    return images


def centre(images):
    """Centre of mass of the ink across, in pixels, above the ground; NaN without ink."""
    ink = (images - images.amin((1, 2, 3), keepdim=True)).mean((1, 2))
    return (ink * torch.arange(ink.shape[1])).sum(1) / ink.sum(1)


@both
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [None, 32])
def test_views_are_pictures_again(change, channels, size):
    torch.manual_seed(0)
    images = torch.rand(5, channels, 64, 64)
    views = change(images, size=size)
    assert views.shape == (5, channels, size or 64, size or 64)
    assert views.dtype == torch.float32
    assert views.min() >= 0
    assert views.max() <= 1
    assert views.std() > 0.01


@both
def test_the_seed_decides(change):
    images = block(3)
    torch.manual_seed(0)
    first, other = change(images), change(images)
    torch.manual_seed(0)
    assert torch.equal(change(images), first)
    assert not torch.equal(other, first)
    assert torch.equal(images, block(3))  # what it was given stays as it is


@both
def test_images_of_a_batch_change_each_in_its_way(change):
    torch.manual_seed(0)
    views = change(block(8)).flatten(1)
    assert torch.pdist(views).min() > 0.1


@both
def test_grey_stays_grey(change):
    torch.manual_seed(0)
    views = change(block(6, 3))
    assert torch.equal(views[:, 0], views[:, 1])
    assert torch.equal(views[:, 0], views[:, 2])


def test_handwriting_is_never_mirrored():
    """Ink on the left stays on the left, and ink on top stays on top."""
    torch.manual_seed(0)
    across, down = centre(handwriting(block(300))), centre(handwriting(block(300).mT).mT)
    assert across[~across.isnan()].max() < 31
    assert down[~down.isnan()].max() < 31


def test_the_papers_views_are_mirrored_every_other_time():
    torch.manual_seed(0)
    right = centre(paper(block(400), scale=(1.0, 1.0))) > 31.5
    assert 0.4 < right.float().mean() < 0.6
    tall = block(200).mT
    assert not (centre(paper(tall, scale=(1.0, 1.0)).mT) > 31.5).any()
    assert not (centre(paper(tall, scale=(1.0, 1.0), vertical=1.0).mT) < 31.5).any()


def test_a_quarter_turn_comes_when_asked_for():
    torch.manual_seed(0)
    bars = torch.zeros(40, 1, 64, 64)
    bars[:, :, 28:36] = 1  # across the whole picture
    for rotate, across in ((0.0, True), (1.0, False)):
        views = paper(bars, scale=(1.0, 1.0), rotate=rotate)
        varies = views.mean((1, 2)).std(1) < views.mean((1, 3)).std(1)  # down more than across
        assert (varies == across).all()


def test_solarisation_inverts_the_dark_half(monkeypatch):
    """Without the other changes: all of it, or none."""
    monkeypatch.setattr(augmentation, "_warp", lambda images, *_: images)
    images = torch.linspace(0, 1, 64).expand(50, 1, 64, 64)
    torch.manual_seed(0)
    plain = paper(images)
    torch.manual_seed(0)
    inverted = paper(images, solarize=1.0)
    torch.testing.assert_close(inverted, torch.where(plain > 0.5, 1 - plain, plain))


def test_crops_of_the_paper_have_the_area_asked_for():
    """The gradient of a ramp says how much of it is seen."""
    ramp = torch.linspace(0.3, 0.7, 64).expand(300, 1, 64, 64)
    torch.manual_seed(0)
    small, whole = (paper(ramp, scale=(s, s)).std((1, 2, 3)) for s in (0.1, 1.0))
    assert small.median() < 0.5 * whole.median()


def test_a_local_crop_is_a_part_seen_larger():
    torch.manual_seed(0)
    images = torch.ones(100, 1, 64, 64)
    views = handwriting(images, size=32, share=0.5)
    assert views.shape == (100, 1, 32, 32)
    assert views.mean() > 0.75  # outside lies paper: a smaller word would leave much of it
    stripes = (torch.arange(64) // 8 % 2).float().expand(100, 1, 64, 64)
    edges = [
        (v.diff(dim=3).abs() > 0.2).float().sum((1, 2, 3)).median()
        for v in (handwriting(stripes, size=64, share=s) for s in (1.0, 0.4))
    ]
    assert edges[1] < 0.7 * edges[0]


def test_stroke_width_goes_from_erosion_to_dilation():
    image = torch.zeros(3, 1, 16, 16)
    image[:, :, 6:10, 6:10] = 1
    changed = augmentation._stroke_width(image, torch.tensor([-1.0, 0.0, 1.0]))
    assert changed.sum((1, 2, 3)).tolist() == [4, 16, 36]
    assert torch.equal(changed[1], image[1])


def test_weaker_changes_leave_more_of_the_word():
    """Apart from the erased patch, which is there or not."""
    away = []
    for strength in (0.1, 0.5, 1.0):
        torch.manual_seed(0)
        changed = handwriting(block(200), strength=strength)
        away.append((changed - block(200)).abs().mean((1, 2, 3)).median())
    assert 0 < away[0] < 0.5 * away[1] < 0.5 * away[2]


def test_a_patch_is_erased_in_every_other_image():
    torch.manual_seed(0)
    x = torch.rand(4, 400)
    erased = augmentation._erase(torch.ones(400, 1, 64, 64), *x).mean((1, 2, 3))
    assert 0.4 < (erased == 1).float().mean() < 0.65
    assert erased.min() >= 1 - 0.31**2


def test_paper_stays_paper():
    assert not handwriting(torch.zeros(20, 1, 32, 32)).any()


@both
def test_gradients_pass(change):
    images = block(2).requires_grad_()
    torch.manual_seed(0)
    change(images).sum().backward()
    assert images.grad.abs().sum() > 0
