from __future__ import annotations

import doctest
import sys
import types

import numpy as np
import pytest
from papercommons.errors import DataError
from papercommons.faces import boxes as boxes_module
from papercommons.faces.boxes import Face, overlap, read_boxes, square_box
from papercommons.faces.crops import crop_box
from papercommons.faces.detection import MtcnnDetector, gather, open_detector


@pytest.fixture(scope="module")
def detector():
    pytest.importorskip("skimage", reason="needs scikit-image")
    return open_detector()


@pytest.fixture(scope="module")
def astronaut():
    return pytest.importorskip("skimage.data", reason="needs scikit-image").astronaut()


def ramp(height=40, width=60):
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns * 4, rows * 6, columns + rows], axis=2).astype(np.uint8)


def test_one_face_is_found_where_it_is(detector, astronaut):
    (face,) = detector(astronaut)
    assert overlap(face.box[None], np.array([[170.0, 63, 277, 170]]))[0, 0] > 0.8
    assert face.score >= 5
    (gray,) = detector(astronaut[:, :, 1].copy())
    assert overlap(face.box[None], gray.box[None])[0, 0] > 0.8


def test_several_faces_the_largest_first(detector, astronaut):
    face = astronaut[:256, 100:356]
    small = np.asarray(face[::2, ::2])
    canvas = np.full((256, 420, 3), 200, np.uint8)
    canvas[:, :256] = face
    canvas[60:188, 280:408] = small
    found = detector(canvas)
    assert len(found) == 2
    assert found[0].area > 2 * found[1].area
    assert found[0].box[0] < 256 < found[1].box[0]


def test_boxes_scale_with_the_image(detector, astronaut):
    double = np.repeat(np.repeat(astronaut, 2, 0), 2, 1)
    one, other = detector(astronaut)[0].box, detector(double)[0].box
    assert overlap(one[None] * 2, other[None])[0, 0] > 0.8


@pytest.mark.parametrize("image", [np.zeros((64, 64), np.uint8), np.zeros((2, 900), np.uint8)])
def test_no_face(detector, image):
    assert detector(image) == []
    noise = np.random.default_rng(0).integers(0, 255, (240, 320), np.uint8)
    assert detector(noise) == []


@pytest.mark.parametrize(
    "image",
    [np.zeros((8, 8), np.float32), np.zeros((8, 8, 4), np.uint8), np.zeros((0, 8), np.uint8)],
)
def test_what_is_no_image(detector, image):
    with pytest.raises(ValueError, match="image must"):
        detector(image)


def test_every_speaker_is_found(detector, shared_files):
    pytest.importorskip("av", reason="needs av")
    from papercommons.video.frames import read_spaced_frames

    for path in sorted((shared_files / "data/av").glob("*.mpg")):
        (frame,), _ = read_spaced_frames(path, 1)
        (face,) = detector(frame)
        assert 60 < face.box[0] < 140
        assert 50 < face.box[1] < 140
        assert 110 < face.box[2] - face.box[0] < 190


def test_windows_are_gathered():
    windows = np.array([(0, 0, 10, 10)] * 6 + [(1, 1, 11, 11)] * 3 + [(50, 50, 60, 60)] * 2)
    faces = gather(windows.astype(float), 3)
    assert len(faces) == 1
    assert faces[0].score == 9
    np.testing.assert_allclose(faces[0].box, [1 / 3, 1 / 3, 31 / 3, 31 / 3])
    assert gather(np.empty((0, 4)), 3) == []


def test_detectors_are_named(monkeypatch):
    with pytest.raises(ValueError, match="detector must be lbp or mtcnn, got 'dlib'"):
        open_detector("dlib")
    monkeypatch.setitem(sys.modules, "facenet_pytorch", None)
    with pytest.raises(DataError, match="facenet-pytorch"):
        open_detector("mtcnn")
    monkeypatch.setitem(sys.modules, "skimage.feature", None)
    with pytest.raises(DataError, match=r"papercommons\[faces\]"):
        open_detector("lbp")


def test_mtcnn_is_asked_for_boxes(monkeypatch):
    """A stand-in with facenet_pytorch's interface; the package itself is no dependency."""

    class Network:
        def __init__(self, **settings):
            assert settings == {"keep_all": True, "post_process": False, "device": "cpu"}

        def detect(self, image):
            assert image.shape == (20, 30, 3)
            if not image.any():
                return None, [None]
            boxes = np.array([(0, 0, 5, 5), (5, 5, 15, 15), (0, 0, 9, 9)], np.float32)
            return boxes, np.array([0.99, 0.9, 0.5], np.float32)

    monkeypatch.setitem(sys.modules, "facenet_pytorch", types.SimpleNamespace(MTCNN=Network))
    detect = MtcnnDetector()
    faces = detect(np.ones((20, 30), np.uint8))
    assert [face.area for face in faces] == [100, 25]
    assert detect(np.zeros((20, 30, 3), np.uint8)) == []


def test_squares():
    assert doctest.testmod(boxes_module).failed == 0
    square = square_box(np.array([[10.0, 20, 30, 80], [0, 0, 2, 1]]))
    np.testing.assert_allclose(square[0], [20 - 39, 50 - 39, 20 + 39, 50 + 39])
    np.testing.assert_allclose(square[1], [-0.3, -0.8, 2.3, 1.8])
    with pytest.raises(ValueError, match="scale must be > 0"):
        square_box(square, 0)


def test_overlap():
    one = np.array([(0.0, 0, 2, 2)])
    other = np.array([(0.0, 0, 2, 2), (1, 0, 3, 2), (2, 2, 3, 3)])
    np.testing.assert_allclose(overlap(one, other), [[1, 1 / 3, 0]])


def test_a_crop_inside_is_the_image():
    image = ramp()
    np.testing.assert_array_equal(
        crop_box(image, np.array([5.0, 7, 25, 27]), 20), image[7:27, 5:25]
    )
    gray = crop_box(image[:, :, 0].copy(), np.array([5.0, 7, 25, 27]), 20)
    np.testing.assert_array_equal(gray, image[7:27, 5:25, 0])


def test_beyond_the_border_the_border_is_repeated():
    image = ramp()
    crop = crop_box(image, np.array([-10.0, -10, 10, 10]), 20)
    np.testing.assert_array_equal(crop[10:, 10:], image[:10, :10])
    assert (crop[:10, :10] == image[0, 0]).all()
    np.testing.assert_array_equal(crop[3, 10:], image[0, :10])
    crop = crop_box(image, np.array([50.0, 30, 70, 50]), 20)
    np.testing.assert_array_equal(crop[:10, :10], image[30:, 50:])
    assert (crop[11:, 11:] == image[-1, -1]).all()


def test_making_smaller_averages():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 200
    crop = crop_box(stripes, np.array([0.0, 0, 64, 64]), 16)
    np.testing.assert_allclose(crop[:, 2:-2], 100, atol=8)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([60, 0, 80, 20], "beside the image"),
        ([0, -30, 20, 0], "beside the image"),
        ([0, 0, 600, 10], "too large"),
        ([10, 0, 10, 20], "left < right"),
        ([0, 0, np.nan, 20], "left < right"),
        ([0, 0, np.inf, 20], "left < right"),
    ],
)
def test_boxes_that_cannot_be_cropped(box, message):
    with pytest.raises(ValueError, match=message):
        crop_box(ramp(), np.array(box, float), 8)


def test_a_crop_has_pixels():
    with pytest.raises(ValueError, match="size must be >= 1, got 0"):
        crop_box(ramp(), np.array([0.0, 0, 20, 20]), 0)


def test_boxes_from_a_file(tmp_path):
    path = tmp_path / "b.csv"
    path.write_text(
        "\ufeffpath,left,top,right,bottom,frame,score\n"
        'a.png,1,2,3,4,,\n"b, c.mp4",0,0,5.5,5,8,0.7\n"b, c.mp4",1,1,6,6,16,\na.png,5,5,9,9,0,1\n',
        encoding="utf-8",
    )
    found = read_boxes(path)
    assert list(found) == ["a.png", "b, c.mp4"]
    assert [face.box.tolist() for face in found["a.png"][0]] == [[1, 2, 3, 4], [5, 5, 9, 9]]
    assert sorted(found["b, c.mp4"]) == [8, 16]
    assert found["b, c.mp4"][8][0].score == 0.7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,left,top\n", "no column right and bottom"),
        ("", "no column path"),
        ("path,left,top,right,bottom\na,1,2,x,4\n", "line 2: box, frame and score must be numbers"),
        ("path,left,top,right,bottom\na,1,2,3\n", "line 2: box, frame and score must be numbers"),
        ("path,left,top,right,bottom\na,3,2,3,4\n", "line 2: needs left < right"),
        ("path,left,top,right,bottom\na,1,2,inf,4\n", "line 2: needs left < right"),
        ("path,left,top,right,bottom,frame\na,1,2,3,4,-1\n", "line 2: needs a path, and a frame"),
        ("path,left,top,right,bottom\n,1,2,3,4\n", "line 2: needs a path"),
    ],
)
def test_box_files_that_are_wrong(tmp_path, text, message):
    path = tmp_path / "b.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_boxes(path)


def test_box_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_boxes(tmp_path / "b.csv")
    (tmp_path / "b.csv").write_bytes(b"path\xff\xfe")
    with pytest.raises(DataError, match="not a readable CSV"):
        read_boxes(tmp_path / "b.csv")
    with pytest.raises(DataError, match="not a readable CSV"):
        read_boxes(tmp_path)


def test_a_face_knows_its_area():
    assert Face(np.array([1.0, 2, 4, 4]), 1.0).area == 6
