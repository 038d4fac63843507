from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from vlm_hv.conversation import Message, Picture, Request
from vlm_hv.images import BAR, PictureOptions, concat, encode, fit, pictures, shuffled


def word(width: int = 40, height: int = 20) -> Image.Image:
    pixels = np.full((height, width), 255, np.uint8)
    pixels[height // 4 : height // 2, width // 4 : width // 2] = 30
    return Image.fromarray(pixels)


def decode(picture: Picture) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture.png)))


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 256), st.integers(0, 9), st.data())
def test_size_is_as_told(
    width: int, height: int, least: int, border: int, data: st.DataObject
) -> None:
    most = data.draw(st.integers(max(least, 1), 300))
    options = PictureOptions(min_side=least, max_side=most, border=border)
    found = fit(Image.new("L", (width, height), 255), options)
    longer = max(width, height)
    assert max(found.size) - 2 * border == min(max(longer, least), most)
    if longer <= most:  # proportions are kept to a pixel
        scale = (max(found.size) - 2 * border) / longer
        assert abs(min(found.size) - 2 * border - max(1, scale * min(width, height))) <= 1


def test_border_is_white_and_ink_stays() -> None:
    found = np.asarray(fit(word(), PictureOptions(min_side=80, max_side=80, border=10)))
    assert found.shape == (60, 100)
    edge = np.ones(found.shape, bool)
    edge[10:-10, 10:-10] = False
    assert (found[edge] == 255).all()
    assert (found[22:28, 32:48] < 60).all()


def test_nearest_invents_no_grey() -> None:
    options = PictureOptions(min_side=123, max_side=200, border=0, resample="nearest")
    assert set(np.unique(np.asarray(fit(word(), options)))) == {30, 255}


def test_sent_bytes_decode_to_the_fitted_image() -> None:
    options = PictureOptions(min_side=0, border=3)
    sent = pictures(word(), word(30, 30), options, names=("k.png", "q.png"))
    assert [picture.name for picture in sent] == ["k.png", "q.png"]
    assert (decode(sent[0])[3:-3, 3:-3] == np.asarray(word())).all()
    colour = pictures(word().convert("RGB"), word().convert("RGBA"), options)
    assert all(decode(picture).shape[2] == 3 for picture in colour)
    assert (decode(colour[0])[..., 0] == decode(sent[0])).all()
    assert sent[0].sha256 == hashlib.sha256(sent[0].png).hexdigest()


def test_equal_pixels_give_equal_bytes_and_nothing_else_is_sent() -> None:
    plain, noted = word().convert("RGB"), word().convert("RGB")
    noted.info = {"comment": "case 17", "dpi": (300, 300), "icc_profile": b"secret"}
    assert encode(plain, "a").png == encode(noted, "b").png
    assert b"secret" not in encode(noted, "b").png


def test_canvas_has_known_left_bar_and_questioned_right() -> None:
    known, questioned = Image.new("RGB", (10, 8), (9, 9, 9)), Image.new("RGB", (6, 4), (99, 99, 99))
    canvas = np.asarray(concat(known, questioned))
    assert canvas.shape == (8, 10 + BAR + 6, 3)
    assert (canvas[:, :10] == 9).all()
    assert (canvas[:, 10 : 10 + BAR] == 0).all()
    assert (canvas[2:6, 10 + BAR :] == 99).all()
    assert (canvas[[0, 1, 6, 7], 10 + BAR :] == 255).all()


def test_blank_pictures_have_the_same_sizes() -> None:
    options = PictureOptions()
    for layout in ("two", "concat"):
        how = PictureOptions(layout=layout)  # type: ignore[arg-type]
        shown = pictures(word(), word(20, 50), how)
        blank = pictures(word(), word(20, 50), how, blank=True)
        assert [decode(p).shape for p in shown] == [decode(p).shape for p in blank]
    assert all((decode(p) == 255).all() for p in pictures(word(), word(), options, blank=True))


@given(st.integers(2, 200), st.integers(0, 5))
def test_shuffle_gives_everyone_anothers_pictures(count: int, seed: int) -> None:
    given_to = shuffled(count, seed)
    assert sorted(given_to) == list(range(count))
    assert all(place != given for place, given in enumerate(given_to))
    assert given_to == shuffled(count, seed)


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="--min-side"):
        PictureOptions(min_side=900)
    with pytest.raises(ValueError, match="--max-side"):
        PictureOptions(min_side=0, max_side=100_000)
    with pytest.raises(ValueError, match="at least 2 pairs"):
        shuffled(1)
    with pytest.raises(ValueError, match="PNG"):
        Picture(b"\xff\xd8\xff", "photo.jpg")


def test_digest_of_a_request_follows_all_that_is_asked_but_not_names() -> None:
    def request(name: str = "a", text: str = "same?", grey: int = 0, seed: int = 0) -> Request:
        picture = encode(Image.new("RGB", (4, 4), (grey,) * 3), name)
        return Request((Message("user", (text, picture)),), 8, 0.0, seed)

    same = {request().digest(), request(name="b").digest()}
    others = {request(text="x").digest(), request(grey=1).digest(), request(seed=1).digest()}
    assert len(same) == 1
    assert len(same | others) == 4
