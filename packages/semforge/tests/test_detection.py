from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from semforge.crops import Cropper, FoundFace
from semforge.detection import find_files, see

WHOLE = Cropper("none", 32)


class TwoPeople(Cropper):
    """Finds one person in all frames, one from the third on, and once something wrong."""

    def faces(self, image, name, frame=0):
        boxes = [(10 + frame, 10, 40 + frame, 40)]
        boxes += [(80, 10, 100, 30)] * (frame >= 2)
        boxes += [(60, 60, 70, 70)] * (frame == 3)
        crop = np.full((32, 32, 3), frame, np.uint8)
        return [FoundFace(crop + np.uint8(b[0]), np.array(b, float)) for b in boxes]


@pytest.fixture
def clip(tmp_path):
    pytest.importorskip("av")
    from papercommons.video.writing import write_clip

    frames = [np.full((96, 128, 3), 20 * k, np.uint8) for k in range(8)]
    write_clip(tmp_path / "clip.mp4", frames, fps=4.0)
    return tmp_path / "clip.mp4"


def test_faces_are_followed_through_a_video(clip):
    seen = see(clip, TwoPeople("none", 32), 8)
    assert [face.pictures for face in seen.faces] == [list(range(8)), list(range(2, 8))]
    np.testing.assert_allclose(seen.faces[1].seconds, np.arange(2, 8) / 4, atol=1e-6)
    first = seen.faces[0]
    assert [box.tolist() for box in first.boxes] == [[10.0 + k, 10, 40 + k, 40] for k in range(8)]
    assert first.crops[:, 0, 0, 0].tolist() == [10 + 2 * k for k in range(8)]
    assert len(seen.frames) == 8


def test_a_video_taken_whole_is_one_face(clip):
    seen = see(clip, WHOLE, 4)
    (face,) = seen.faces
    assert face.crops.shape == (4, 32, 32, 3)
    assert face.boxes == [None] * 4
    np.testing.assert_allclose(face.crops.mean((1, 2, 3)), [0, 40, 80, 140], atol=4)


def test_boxes_choose_the_frames(clip, tmp_path):
    boxes = tmp_path / "boxes.csv"
    boxes.write_text(
        "path,frame,left,top,right,bottom\nclip.mp4,5,9,9,60,60\nclip.mp4,2,9,9,60,60\n"
    )
    seen = see(clip, Cropper("boxes", 32, boxes=str(boxes)), 8)
    (face,) = seen.faces
    np.testing.assert_allclose(face.seconds, [0.5, 1.25])
    np.testing.assert_allclose(face.crops.mean((1, 2, 3)), [40, 100], atol=4)
    boxes.write_text("path,frame,left,top,right,bottom\nclip.mp4,50,9,9,60,60\n")
    late = tmp_path / "late.csv"
    late.write_text(boxes.read_text())
    with pytest.raises(ValueError, match="lists frames 50 and up, which it has not"):
        see(clip, Cropper("boxes", 32, boxes=str(late)), 8)


def test_files_are_found_at_any_depth_in_order(tmp_path):
    (tmp_path / "a/.hidden").mkdir(parents=True)
    for name in ("b.png", "a/z.JPG", "a/c.mp4", "a/notes.txt", "a/.hidden/d.png", ".e.png"):
        (tmp_path / name).write_bytes(b"")
    found = find_files([str(tmp_path / "b.png"), str(tmp_path)])
    assert [p.relative_to(tmp_path).as_posix() for p in found] == ["b.png", "a/c.mp4", "a/z.JPG"]
    for place, message in (("no", "no such file or folder"), ("a/.hidden/e", "no such file")):
        with pytest.raises(ValueError, match=message):
            find_files([str(tmp_path / place)])


def test_a_picture_gives_its_note(tmp_path):
    Image.new("L", (40, 50), 99).save(tmp_path / "grey.png")
    seen = see(tmp_path / "grey.png", WHOLE, 8)
    assert (seen.note, len(seen.faces), seen.faces[0].pictures) == ("grey", 1, [0])
    assert (seen.faces[0].crops == 99).all()
