from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from papercommons.errors import DataError
from papercommons.handwriting.gsc import (
    FIXED_THRESHOLDS,
    bit_correlation,
    gsc_batch,
    gsc_bits,
    gsc_features,
)
from papercommons.metrics.roc import binary_auc

pytest.importorskip("skimage")

# Where rotation by a quarter turn against the clock takes each rule and each concavity (from 0).
TURNED_RULES = [2, 3, 1, 0, 7, 6, 4, 5, 10, 8, 11, 9]
TURNED_CONCAVITY = [0, 2, 1, 5, 6, 4, 3, 7]


def drawn(*rows):
    """A grey image of text in which # is ink."""
    ink = np.array([[letter == "#" for letter in row] for row in rows])
    return np.where(ink, 0, 255).astype(np.uint8)


def scrawl(seed, height=20, width=28, box=True):
    """Random strokes; with `box`, ink touches all four sides."""
    random = np.random.default_rng(seed)
    ink = np.zeros((height, width), bool)
    for _ in range(6):
        top, left = random.integers(0, height - 3), random.integers(0, width - 3)
        if random.random() < 0.5:
            ink[top : top + 2, left : left + random.integers(2, width)] = True
        else:
            ink[top : top + random.integers(2, height), left : left + 2] = True
    ink ^= random.random(ink.shape) < 0.03
    if box:
        ink[0, 0] = ink[-1, -1] = True
    return np.where(ink, 30, 220).astype(np.uint8)


def parts(features):
    """Gradient (4, 4, 12), structural (4, 4, 12) and concavity (4, 4, 8) of one image."""
    gradient, structural, concavity = np.split(features, [192, 384])
    return gradient.reshape(4, 4, 12), structural.reshape(4, 4, 12), concavity.reshape(4, 4, 8)


@given(seed=st.integers(0, 999))
def test_a_quarter_turn_turns_cells_bins_and_rules(seed):
    image = scrawl(seed)
    gradient, structural, concavity = parts(gsc_features(image))
    turned = parts(gsc_features(np.rot90(image)))
    np.testing.assert_array_equal(turned[0], np.roll(np.rot90(gradient), 3, axis=2))
    for rule, becomes in enumerate(TURNED_RULES):
        np.testing.assert_array_equal(turned[1][..., becomes], np.rot90(structural[..., rule]))
    for kind, becomes in enumerate(TURNED_CONCAVITY):
        np.testing.assert_array_equal(turned[2][..., becomes], np.rot90(concavity[..., kind]))


@given(seed=st.integers(0, 999))
def test_a_mirror_image_mirrors_cells_and_bins(seed):
    """Diagonal gradients are ties of two bins, so the bins beside them are taken together."""
    image = scrawl(seed)
    gradient, _, concavity = parts(gsc_features(image))
    mirrored, _, mirrored_concavity = parts(gsc_features(image[:, ::-1]))
    for bins, becomes in (([0], [6]), ([3], [3]), ([9], [9]), ([1, 2], [4, 5]), ([7, 8], [10, 11])):
        np.testing.assert_allclose(
            mirrored[..., becomes].sum(2), gradient[:, ::-1, bins].sum(2), atol=1e-6
        )
    order = [0, 1, 2, 3, 4, 6, 5, 7]  # left and right change places
    np.testing.assert_array_equal(mirrored_concavity, concavity[:, ::-1, order])


@pytest.mark.parametrize("grid", ["equal", "mass"])
def test_paper_around_the_word_changes_nothing(grid):
    image = scrawl(3)
    framed = np.pad(image, ((5, 9), (1, 17)), constant_values=255)
    np.testing.assert_array_equal(gsc_features(framed, grid=grid), gsc_features(image, grid=grid))


def test_a_batch_is_its_images(monkeypatch):
    images = np.stack([scrawl(seed, box=False) for seed in range(9)])
    alone = np.stack([gsc_features(image) for image in images])
    np.testing.assert_array_equal(gsc_batch(images), alone)
    monkeypatch.setattr("papercommons.handwriting.gsc.CHUNK", 4)
    np.testing.assert_array_equal(gsc_batch(images), alone)
    assert (alone.shape, alone.dtype) == ((9, 512), np.float32)
    assert 0 <= alone.min() <= alone.max() <= 1
    assert gsc_batch(images[:0]).shape == (0, 512)


def test_a_filled_box_is_all_ink_and_stroke():
    _, _, concavity = parts(gsc_features(np.zeros((12, 16), np.uint8)))
    assert (concavity[..., :3] == 1).all()
    assert (concavity[..., 3:] == 0).all()


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        (("#..#", "#..#", "#..#", "####"), 3),  # open up
        (("####", "#..#", "#..#", "#..#"), 4),
        (("####", "...#", "...#", "####"), 5),
        (("####", "#...", "#...", "####"), 6),
        (("####", "#..#", "#..#", "####"), 7),  # a hole, and open nowhere
    ],
)
def test_where_a_shape_is_open(rows, kind):
    image = drawn(*rows)
    _, _, concavity = parts(gsc_features(image))  # cells of one pixel
    np.testing.assert_array_equal(concavity[..., kind], image == 255)
    assert (concavity[..., [k for k in range(3, 8) if k != kind]] == 0).all()


def test_a_diagonal_gap_lets_the_outside_in_only_over_edges():
    closed = drawn("####", "#..#", "#..#", "###.")  # only a corner leads out
    assert parts(gsc_features(closed))[2][..., 7].sum() == 4


def test_stroke_runs_are_half_a_cell_and_two_pixels_long():
    image = drawn("#" * 6 + "." * 17 + "#", *["." * 24] * 6, "." * 21 + "###")
    horizontal = parts(gsc_features(image))[2][..., 1]  # cells of 2 x 6 pixels
    expected = np.zeros((4, 4))
    expected[0, 0], expected[3, 3] = 6 / 12, 3 / 12  # the lonely pixel above is no stroke
    np.testing.assert_allclose(horizontal, expected)


def test_a_vertical_edge_has_gradients_left_and_right():
    image = np.full((16, 16), 255, np.uint8)
    image[:, 4:12] = 0
    image[0, 0] = image[-1, -1] = 0  # the box is all of it
    gradient = parts(gsc_features(image))[0]
    assert gradient[1, 0, 0] == gradient[1, 1, 0] == 4 / 16  # ink begins to the right
    assert gradient[1, 2, 6] == gradient[1, 3, 6] == 4 / 16  # and ends
    assert gradient[1, :, [1, 2, 3, 4, 5, 7, 8, 9, 10, 11]].sum() == 0


def test_a_diagonal_edge_falls_in_the_middle_of_the_diagonal_rules():
    ink = np.tril(np.ones((16, 16), bool))
    for turn, expected in enumerate((8, 11, 2, 5)):
        gradient = parts(gsc_features(np.where(np.rot90(ink, turn), 0, 255).astype(np.uint8)))[0]
        inner = np.rot90(gradient, -turn)[1, 1]
        assert np.flatnonzero(inner).tolist() == [expected]


def test_one_pixel_is_no_stroke_however_small_the_cells():
    _, _, concavity = parts(gsc_features(drawn("#..#", "....", "....", "#..#")))
    assert concavity[..., 0].sum() == 4
    assert not concavity[..., 1:3].any()


def test_cells_of_equal_mass_follow_the_ink():
    image = drawn("####", "....", "....", "....", "####", "####", "####")
    density = parts(gsc_features(image, grid="mass"))[2][..., 0]
    np.testing.assert_array_equal(density, np.repeat([[1], [1 / 4], [1], [1]], 4, axis=1))
    equal = parts(gsc_features(image))[2][..., 0]  # borders at 0, 2, 4, 5, 7
    np.testing.assert_array_equal(equal, np.repeat([[1 / 2], [0], [1], [1]], 4, axis=1))


def test_evenly_spread_ink_has_equal_cells_either_way():
    rows, columns = np.mgrid[:16, :16]
    image = np.where((rows + columns) % 8 < 3, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(gsc_features(image, grid="mass"), gsc_features(image))


def test_otsu_finds_faint_ink():
    faint = np.where(scrawl(5) < 128, 190, 250).astype(np.uint8)
    with pytest.raises(DataError, match="image 0 has no ink"):
        gsc_features(faint)
    np.testing.assert_array_equal(gsc_features(faint, otsu=True), gsc_features(scrawl(5)))


def test_tiny_words_have_empty_cells_not_errors():
    features = gsc_features(np.zeros((1, 2), np.uint8))
    assert np.isfinite(features).all()
    assert parts(features)[2][..., 0].sum() == 2


def test_thresholds():
    features = np.zeros((5, 512), np.float32)
    features[:, 0] = [0.05, 0.06, 0.2, 0.3, 0.04]
    features[:, 200] = 0.03
    features[:, 384] = 0.1
    bits = gsc_bits(features, FIXED_THRESHOLDS)
    assert bits[:, 0].tolist() == [False, True, True, True, False]
    assert bits[:, 200].all()
    assert not bits[:, 384].any()  # ink needs 0.15
    median = gsc_bits(features, np.median(features, axis=0))
    assert median[:, 0].tolist() == [False, False, True, True, False]
    assert not median[:, 1:].any()


def test_correlation_of_bits():
    a, b = np.random.default_rng(0).random((2, 3, 16)) < 0.5
    found = bit_correlation(a[:, None], b)
    assert found.shape == (3, 3)
    assert found[2, 1] == pytest.approx((1 + np.corrcoef(a[2], b[1])[0, 1]) / 2)
    zeros = np.zeros(16, bool)
    assert (bit_correlation(zeros, zeros), bit_correlation(zeros, a[0])) == (1, 0.5)
    for wrong in (b[:, :8], b.astype(int)):
        with pytest.raises(ValueError, match="vectors must be bool of one length"):
            bit_correlation(a, wrong)


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (np.zeros((1, 8, 8), np.float32), {}, r"must be uint8 \(N, H, W\), got float32"),
        (np.zeros((8, 8), np.uint8), {}, r"got uint8 \(8, 8\)"),
        (np.zeros((1, 0, 8), np.uint8), {}, r"\(1, 0, 8\)"),
        (np.zeros((1, 8, 8), np.uint8), {"grid": "even"}, "grid must be equal or mass, got 'even'"),
    ],
)
def test_bad_input_is_refused(images, options, message):
    with pytest.raises(ValueError, match=message):
        gsc_batch(images, **options)


def test_hog_has_the_layout_and_the_orientations_of_the_paper():
    from papercommons.handwriting.hog import hog_features

    image = np.full((64, 64), 255, np.uint8)
    assert not hog_features(image[None]).any()
    image[:, 32:] = 0  # a vertical edge: the gradient is horizontal
    features = hog_features(np.stack([image, image.T]))
    assert (features.shape, features.dtype) == ((2, 1764), np.float32)
    blocks = features.reshape(2, 7, 7, 2, 2, 9)
    assert blocks[0, :, 3].any()
    assert not blocks[0, :, [0, 1, 5, 6]].any()
    assert not blocks[0][..., 1:].any()
    assert not blocks[1][..., [0, 1, 2, 3, 5, 6, 7, 8]].any()
    assert np.linalg.norm(blocks[0, 3, 3]) == pytest.approx(1, abs=1e-3)
    with pytest.raises(ValueError, match=r"must be uint8 \(N, 64, 64\), got uint8 \(1, 32, 64\)"):
        hog_features(image[None, :32])


def test_hog_on_the_real_images_verifies_as_well_as_was_measured(shared_files):
    from papercommons.data.pairs import read_pairs
    from papercommons.data.words import open_words
    from papercommons.handwriting.hog import hog_features

    root = shared_files / "data" / "cedar-and"
    words = open_words(root)
    pairs = read_pairs(root / "pairs_unseen_val.csv", words)
    used, place = np.unique(np.concatenate([pairs.left, pairs.right]), return_inverse=True)
    features = hog_features(words.load(used))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    left, right = place.reshape(2, -1)
    scores = (features[left] * features[right]).sum(1)
    assert binary_auc(scores, pairs.same) == pytest.approx(0.860, abs=0.003)
