from __future__ import annotations

import numpy as np
import pytest
from papercommons.faces.boxes import Face
from papercommons.faces.tracks import link_faces, smooth_between, track_faces


def face(x, side=40.0):
    return Face(np.array([x, 0.0, x + side, side]), 1.0)


def test_every_eighth_frame_is_looked_at_and_a_late_last():
    seen = []

    def detector(frame):
        seen.append(int(frame))
        return [face(float(frame))]

    (track,), count = track_faces(np.arange(30), detector)
    assert seen == [0, 8, 16, 24, 29]
    assert count == 30
    assert track.numbers.tolist() == seen
    assert (track.share, track.looked) == (1.0, 5)
    np.testing.assert_allclose(track.boxes[:, 0], seen)
    seen.clear()
    _, count = track_faces(iter(np.arange(12)), detector)
    assert (seen, count) == ([0, 8], 12)
    assert track_faces([], detector) == ([], 0)
    with pytest.raises(ValueError, match="every must be >= 1"):
        track_faces([], detector, every=0)


def test_between_finds_lines_are_drawn():
    numbers = np.array([2, 10, 18])
    boxes = smooth_between(numbers, np.array([[0.0, 1], [8, 3], [16, 5]]), 22, width=1)
    assert boxes.shape == (22, 2)
    np.testing.assert_allclose(boxes[2:19, 0], np.arange(17))
    np.testing.assert_allclose(boxes[:3, 1], 1)
    np.testing.assert_allclose(boxes[18:, 1], 5)


def test_one_wrong_find_moves_nothing():
    numbers = np.arange(0, 80, 8)
    values = np.tile([10.0, 20, 50, 60], (10, 1))
    values[4] += 300
    np.testing.assert_allclose(smooth_between(numbers, values, 80), np.tile(values[0], (80, 1)))


def test_a_steady_motion_is_kept():
    numbers = np.arange(0, 80, 8)
    np.testing.assert_allclose(
        smooth_between(numbers, numbers[:, None] * 1.0, 73)[:, 0], np.arange(73)
    )


@pytest.mark.parametrize("width", [0, 2])
def test_the_median_has_a_middle(width):
    with pytest.raises(ValueError, match="width must be odd"):
        smooth_between(np.array([0]), np.zeros((1, 4)), 3, width=width)


def test_two_faces_that_move_are_two_tracks_the_larger_first():
    found = [
        (n, [face(200.0 - n, 30), face(float(n), 40)][:: 1 if n % 16 else -1])
        for n in range(0, 64, 8)
    ]
    one, other = link_faces(found)
    np.testing.assert_allclose(one.boxes[:, 0], np.arange(0, 64, 8))
    np.testing.assert_allclose(other.boxes[:, 0], 200 - np.arange(0, 64, 8))
    assert one.size == pytest.approx(8 * 1600)


def test_a_track_goes_on_over_a_gap_but_not_over_a_long_one():
    places = [0, 1, 4, 9]
    found = [(8 * n, [face(5.0)] if n in places else []) for n in range(10)]
    tracks = link_faces(found, gap=2)
    assert [track.numbers.tolist() for track in tracks] == [[0, 8, 32], [72]]
    assert tracks[0].share == 0.3


def test_a_false_face_for_a_moment_is_a_small_track():
    found = [(n, [face(10.0)] + [face(300.0, 20)] * (n == 8)) for n in range(0, 64, 8)]
    large, small = link_faces(found)
    assert (len(large.numbers), len(small.numbers)) == (8, 1)
    assert large.size > 10 * small.size
    assert large.boxes_at(60).shape == (60, 4)


def test_a_speaker_is_followed_through_a_clip(shared_files):
    pytest.importorskip("av", reason="needs av")
    pytest.importorskip("skimage", reason="needs scikit-image")
    from papercommons.faces.detection import open_detector
    from papercommons.video.frames import iter_frames

    path = shared_files / "data/av/bbaf2n.mpg"
    frames = (frame for _, frame in iter_frames(path, fps=25.0))
    tracks, count = track_faces(frames, open_detector(), every=16)
    boxes = tracks[0].boxes_at(count)
    assert boxes.shape == (75, 4)
    assert tracks[0].share == 1
    assert np.abs(np.diff(boxes, axis=0)).max() < 3  # the head hardly moves
    np.testing.assert_allclose(boxes.mean(0), [88, 103, 226, 242], atol=8)
