from __future__ import annotations

import pickle

import numpy as np
import pytest
from papercommons.errors import DataError
from papercommons.faces.boxes import Face
from PIL import Image
from semforge import crops
from semforge.crops import Cropper, check_header, read_face_image, squash


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


def test_none_presses_the_picture_into_a_square(image):
    (face,) = Cropper("none", 40).faces(image, "x")
    assert face.crop.shape == (40, 40, 3)
    assert face.box is None
    assert squash(face.crop, 40) is face.crop


def test_found_faces_come_largest_first_in_squares_of_1_3(image, monkeypatch):
    found = [Face(np.array([5.0, 5, 15, 15]), 9), Face(np.array([20.0, 10, 50, 40]), 5)]
    monkeypatch.setattr(crops, "open_detector", lambda name: lambda picture: found)
    crops._detector.cache_clear()
    cropper = Cropper("detect", 39)
    faces = cropper.faces(image, "x")
    crops._detector.cache_clear()
    assert [face.score for face in faces] == [5, 9]
    # 30 x 1.3 = 39 pixels about (35, 25): the crop is the picture itself there
    padded = np.pad(image, ((0, 0), (0, 0), (0, 0)))
    near = np.abs(faces[0].crop[:, 1:-1].astype(int) - padded[5:44, 16:53]).mean()
    far = np.abs(faces[0].crop[:, 1:-1].astype(int) - padded[8:47, 16:53]).mean()
    assert near < 0.8 * far
    assert cropper.settings == {"crop": "detect", "size": 39, "detector": "lbp", "scale": 1.3}


def test_boxes_go_by_name_or_file_and_frame(image, tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text(
        "path,left,top,right,bottom,frame\n"
        "a.png,10,10,30,30,0\nv.mp4,0,0,20,20,7\nv.mp4,0,0,20,20,3\nout.png,900,900,920,920,0\n"
    )
    cropper = Cropper("boxes", 32, boxes=str(path))
    assert cropper.largest(image, "some/a.png").box.tolist() == [10, 10, 30, 30]
    assert cropper.faces(image, "v.mp4", 7)
    assert not cropper.faces(image, "v.mp4", 5)
    assert cropper.listed_frames("v.mp4") == [3, 7]
    with pytest.raises(DataError, match=r"b.png: no box is listed"):
        cropper.largest(image, "b.png")
    with pytest.raises(DataError, match=r"out.png: .*beside the image"):
        cropper.faces(image, "out.png")
    assert pickle.loads(pickle.dumps(cropper)) == cropper


def test_no_face_names_the_file():
    pytest.importorskip("skimage")
    with pytest.raises(DataError, match=r"grey.png: no face found"):
        Cropper("detect", 64).largest(np.full((90, 90, 3), 128, np.uint8), "grey.png")


def test_arguments():
    for options, what in (
        ({"crop": "align"}, "crop must be"),
        ({"size": 16}, "size must be >= 32"),
        ({"crop": "boxes"}, "if and only if"),
        ({"boxes": "x.csv"}, "if and only if"),
        ({"crop": "detect", "detector": "haar"}, "detector must be"),
    ):
        with pytest.raises(ValueError, match=what):
            Cropper(**options)
    with pytest.raises(DataError, match="no such file"):
        Cropper("boxes", boxes="/none.csv")


@pytest.mark.parametrize(
    ("mode", "note"), [("RGB", ""), ("L", "grey"), ("RGBA", "alpha"), ("I;16", "grey")]
)
def test_other_pictures_become_rgb_with_a_note(tmp_path, mode, note):
    path = tmp_path / "x.png"
    Image.new(mode, (40, 33)).save(path)
    image, found = read_face_image(path)
    assert image.shape == (33, 40, 3)
    assert image.dtype == np.uint8
    assert found == note


def test_small_and_broken_pictures(tmp_path):
    Image.new("RGB", (31, 90)).save(tmp_path / "small.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing")
    with pytest.raises(DataError, match=r"small.png: is 31x90; both sides must be >= 32"):
        check_header(tmp_path / "small.png")
    with pytest.raises(DataError, match=r"broken.png: not a readable image"):
        read_face_image(tmp_path / "broken.png")
