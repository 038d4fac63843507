from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from multi_edits.benchmark import Record, encode_mask
from multi_edits.edits import Edit
from multi_edits.metrics.aspects import (
    asked_accuracy,
    aspect_accuracy,
    kept_prompt,
    list_scores,
    reverted_prompts,
    vlm_question,
)
from multi_edits.metrics.clip import ClipEncoder, clip_similarity, directional_similarity
from multi_edits.metrics.columns import COLUMNS, NAMES
from multi_edits.metrics.measuring import MetricModels, measure_edit
from multi_edits.metrics.pixels import mse, psnr, ssim
from multi_edits.metrics.structure import self_similarity, structure_distance
from papercommons.errors import DataError
from PIL import Image

EDITS = (
    Edit("", "red", 1, "dog"),
    Edit("cat", "dog", 1, "dog"),
    Edit("wooden", "", 5, "chair"),
)


def record(size=(24, 32), mask=None, **changes):
    given = {
        "id": "1",
        "category": "0_random_140",
        "image": None,
        "source_prompt": "a cat sitting on a wooden chair",
        "target_prompt": "a [red] [dog] sitting on a chair",
        "edits": EDITS,
        "types": (6, 1, 3),
        "mask_runs": None if mask is None else tuple(encode_mask(mask)),
        "mask_size": size,
        "border": False,
    }
    return Record(**given | changes)


def picture(seed, size=(24, 32)):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def box(size=(24, 32)):
    mask = np.zeros(size, dtype=bool)
    mask[4:12, 6:20] = True
    return mask


@pytest.fixture(scope="module")
def reference(shared_files):
    with np.load(shared_files / "parity/multi-edits/editing_metrics.npz") as file:
        return {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}


@pytest.mark.parametrize("region", ["full", "unedit", "edit"])
def test_pixels_as_the_reference(reference, region):
    a, b = (reference[n].permute(2, 0, 1)[None] / 255 for n in ("img_src", "img_edit"))
    mask = reference["mask"][None, None].float()
    mask = {"full": None, "unedit": 1 - mask, "edit": mask}[region]
    for name, function in {"psnr": psnr, "mse": mse, "ssim": ssim}.items():
        wanted = float(reference[f"{name}_{region}"])
        assert float(function(a, b, mask)) == pytest.approx(wanted, abs=1e-5), name


def test_structure_as_the_reference(reference):
    a, b = reference["keys_a"], reference["keys_b"]
    torch.testing.assert_close(self_similarity(a)[None], reference["self_sim_a"], atol=1e-5, rtol=0)
    wanted = float(reference["structure_distance"])
    assert float(structure_distance(a, b)) == pytest.approx(wanted, rel=1e-4)


def plain_ssim(a, b):
    """The formula at every pixel of one channel, in float64, with the whole window."""
    at = np.arange(-5, 6)
    weights = np.exp(-(at[:, None] ** 2 + at**2) / (2 * 1.5**2))
    weights /= weights.sum()
    x, y = (
        np.lib.stride_tricks.sliding_window_view(np.pad(v, 5, mode="reflect"), (11, 11))
        for v in (a, b)
    )
    mean_x, mean_y = ((v * weights).sum((2, 3)) for v in (x, y))
    dx, dy = x - mean_x[..., None, None], y - mean_y[..., None, None]
    var_x, var_y, cov = ((v * weights).sum((2, 3)) for v in (dx * dx, dy * dy, dx * dy))
    c1, c2 = 1e-4, 9e-4
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return float((luminance * (2 * cov + c2) / (var_x + var_y + c2)).mean())


@given(st.integers(6, 20), st.integers(6, 20), st.integers(0, 99))
def test_ssim_is_the_plain_formula(height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    a = torch.rand(2, 3, height, width, generator=generator)
    b = (a + 0.3 * torch.rand(a.shape, generator=generator)).clamp(0, 1)
    a[0, 0], b[0, 0] = 0.5, 0.5  # no variance
    x, y = a.double().numpy(), b.double().numpy()
    wanted = [np.mean([plain_ssim(x[k, c], y[k, c]) for c in range(3)]) for k in range(2)]
    np.testing.assert_allclose(ssim(a, b), wanted, atol=1e-5)


@given(st.integers(0, 99))
def test_a_batch_is_its_images_and_masks_multiply(seed):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.rand(2, 4, 3, 16, 13, generator=generator)
    mask = torch.rand(4, 1, 16, 13, generator=generator) > 0.5
    for function in (mse, psnr, ssim):
        alone = [function(a[k : k + 1] * mask[k], b[k : k + 1] * mask[k]) for k in range(4)]
        torch.testing.assert_close(function(a, b, mask), torch.cat(alone))
    by_hand = ((a - b).double().numpy() * mask.numpy()) ** 2
    np.testing.assert_allclose(mse(a, b, mask), by_hand.mean((1, 2, 3)), atol=1e-7)
    torch.testing.assert_close(ssim(a, b), ssim(b, a))


def test_equal_images():
    a = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert mse(a, a).tolist() == [0, 0]
    assert psnr(a, a).tolist() == [math.inf] * 2
    torch.testing.assert_close(ssim(a, a), torch.ones(2))
    keys = torch.rand(2, 3, 5, 4)
    assert structure_distance(keys, keys).tolist() == [0, 0]
    text = torch.eye(4)
    assert directional_similarity(text, text, text, text.roll(1, 0)).tolist() == [0] * 4
    assert directional_similarity(text, text.roll(1, 0), text, text).tolist() == [0] * 4


def test_structure_distance_is_blind_to_scale_and_order_of_channels():
    keys = torch.rand(3, 7, 4, generator=torch.Generator().manual_seed(1))
    assert float(structure_distance(keys, 5 * keys.flip(0).flip(2))) < 1e-12
    assert float(structure_distance(keys, keys.flip(1))) > 1e-3


def test_clip_similarity_by_hand():
    image, text = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[2.0, 0.0], [-1.0, 0.1]])
    assert clip_similarity(image, text).tolist() == pytest.approx([60, 0])
    change = directional_similarity(image[0], image[1], text[0], text[1])
    first, second = np.array([-2.0, -4.0]), np.array([-3.0, 0.1])
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert float(change) == pytest.approx(100 * cosine, abs=1e-4)


@pytest.mark.parametrize(
    ("a", "b", "mask", "why"),
    [
        ((1, 3, 16, 16), (1, 3, 16, 17), None, "alike"),
        ((3, 16, 16), (3, 16, 16), None, "alike"),
        ((1, 3, 16, 16), (1, 3, 16, 16), (2, 1, 16, 16), "mask must be"),
        ((1, 3, 5, 16), (1, 3, 5, 16), None, "sides of at least 6"),
    ],
)
def test_bad_shapes(a, b, mask, why):
    with pytest.raises(ValueError, match=why):
        ssim(torch.zeros(a), torch.zeros(b), None if mask is None else torch.zeros(mask))


def test_prompts_of_aspects():
    whole, reverted = reverted_prompts(record())
    assert whole == "a red dog sitting on a chair"
    assert reverted == [
        "a dog sitting on a chair",
        "a red cat sitting on a chair",
        "a red dog sitting on a wooden chair",
    ]
    assert kept_prompt(record()) == "a sitting on a chair"
    with pytest.raises(DataError, match="not in the prompt"):
        reverted_prompts(record(edits=(Edit("cow", "dog", 1),)))


@pytest.mark.parametrize(
    ("reverted", "wanted"),
    [
        ([0.1, 0.1, 0.1], 1.0),
        ([0.9, 0.1, 0.1], 1 / 3),  # the dog counts only if it is red
        ([0.1, 0.9, 0.1], 2 / 3),
        ([0.5, 0.5, 0.5], 0.0),  # as good is not better
    ],
)
def test_aspect_accuracy(reverted, wanted):
    found = aspect_accuracy(EDITS, torch.tensor(0.5), torch.tensor(reverted))
    assert found == pytest.approx(wanted)


def test_edits_of_no_object_count_alone():
    edits = [Edit("a", "b", 0), Edit("c", "d", 1), Edit("e", "f", 2, ""), Edit("g", "h", 3, "")]
    found = aspect_accuracy(edits, torch.tensor(0.5), torch.tensor([0.1, 0.9, 0.1, 0.9]))
    assert found == 0.5
    with pytest.raises(ValueError, match="as many values"):
        aspect_accuracy(edits, torch.tensor(0.5), torch.zeros(3))


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [("[1, 0,1]", [1, 0, 1]), ("Sure!\nanswer = [\n0, 0, 0]\n", [0, 0, 0])],
)
def test_lists_of_scores(answer, wanted):
    assert list_scores(answer, 3) == wanted


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("yes", "0 lists"),
        ("[1, 0, 1] or [1, 1, 1]", "2 lists"),
        ("[[1, 0, 1]", "expected 2"),
        ("[1, 0]", "2 values; expected 3"),
        ("[]", "0 values"),
        ("[1, 2, 0]", "other values"),
        ("[1.0, 0, 1]", "other values"),
        ("[true, 0, 1]", "other values"),
        ("[1, 0, __import__('os')]", "other values"),
        ("[1, 0, 1" + "0" * 20_000 + "]", "0 lists"),
    ],
)
def test_bad_lists_of_scores(answer, why):
    with pytest.raises(DataError, match=why):
        list_scores(answer, 2 if why == "expected 2" else 3)


def test_asking_a_model():
    asked = []

    def scorer(image, question):
        asked.append(question)
        return "[1, 0]"

    assert asked_accuracy(scorer, picture(0), record()) == 0.5
    plain = record(target_prompt="a red dog sitting on a chair")
    assert vlm_question(plain) == (asked[0], 2)  # the same brackets, from the edits
    assert '"a [red] [dog] sitting on a chair"' in asked[0]
    deleted = record(edits=EDITS[2:], target_prompt="a cat sitting on a chair")
    assert asked_accuracy(scorer, picture(0), deleted) is None
    with pytest.raises(DataError, match="expected 1"):
        asked_accuracy(scorer, picture(0), record(target_prompt="a [red] dog"))


@pytest.fixture
def clip():
    """An encoder of texts as bags of words and of images as the words written in their corner."""
    words = ["a", "cat", "red", "dog", "sitting", "on", "wooden", "chair"]

    def texts(prompts):
        return torch.nn.functional.normalize(
            torch.tensor([[float(w in p.split()) for w in words] for p in prompts]), dim=1
        )

    def images(pictures):
        rows = torch.stack([torch.from_numpy(np.array(p)[0, :8, 0] > 127) for p in pictures])
        return torch.nn.functional.normalize(rows.float(), dim=1)

    return ClipEncoder(images, texts)


def showing(*flags):
    pixels = np.zeros((24, 32, 3), dtype=np.uint8)
    pixels[0, :8, 0] = 255 * np.array(flags, dtype=np.uint8)
    return Image.fromarray(pixels)


SOURCE = showing(1, 1, 0, 0, 1, 1, 1, 1)
EDITED = showing(1, 0, 1, 1, 1, 1, 0, 1)


def test_metrics_of_clip(clip):
    found = measure_edit(record(mask=~box()), SOURCE, EDITED, MetricModels(clip=clip))
    assert found["clip"] == pytest.approx(100)
    assert found["clip_edited"] == pytest.approx(100)  # the words lie in the mask
    assert found["d_clip"] == pytest.approx(100, abs=1e-3)
    assert found["aspect_accuracy"] == 1
    assert found["aspect_preservation"] == pytest.approx(100 * (4 / 6) ** 0.5)
    same = measure_edit(record(mask=box()), SOURCE, SOURCE, MetricModels(clip=clip))
    assert same["d_clip"] == 0
    assert same["aspect_accuracy"] == 0
    assert same["clip_edited"] == 0  # all black


def test_the_rules_of_measures():
    same = measure_edit(record(mask=box()), picture(0), picture(0))
    assert (same["background_psnr"], same["background_mse"]) == (100, 0)
    assert same["background_ssim"] == pytest.approx(1)
    assert [name for name in NAMES if same[name] is None] == list(MetricModels().unavailable)
    inside = np.array(picture(0))
    inside[box()] = 0
    kept = measure_edit(record(mask=box()), picture(0), Image.fromarray(inside))
    assert kept["background_psnr"] == 100
    whole = measure_edit(record(mask=np.ones((24, 32), bool)), picture(0), picture(1))
    assert set(whole.values()) == {None}
    assert set(measure_edit(record(), picture(0), picture(1)).values()) == {None}
    assert list(whole) == list(NAMES)


def test_edits_that_are_not_in_the_prompt_have_no_aspects(clip):
    found = measure_edit(
        record(edits=(Edit("cow", "dog", 1),)), SOURCE, EDITED, MetricModels(clip=clip)
    )
    assert found["aspect_accuracy"] is None
    assert found["aspect_preservation"] is None
    assert found["clip"] == pytest.approx(100)


def test_images_that_do_not_fit():
    with pytest.raises(DataError, match="24 x 30 pixels, the source 24 x 32"):
        measure_edit(record(), picture(0), picture(0, (24, 30)))
    with pytest.raises(DataError, match="24 x 30 pixels, its mask 24 x 32"):
        measure_edit(record(mask=box()), picture(0, (24, 30)), picture(1, (24, 30)))


def test_what_cannot_be_measured_is_none(clip):
    models = MetricModels(clip=clip)
    cases = [
        (record(mask=box()), SOURCE, EDITED),
        (record(), SOURCE, picture(1)),
        (record(mask=np.ones((24, 32), bool)), SOURCE, showing(1, 0, 1, 0, 1, 1, 0, 1)),
    ]
    values = [measure_edit(*case, models) for case in cases]
    assert all(list(value) == list(NAMES) for value in values)
    assert [value["background_psnr"] is None for value in values] == [False, True, True]
    assert all(value["clip"] is not None for value in values)
    assert set(models.unavailable) == {c.name for c in COLUMNS if c.needs not in ("", "clip")}
