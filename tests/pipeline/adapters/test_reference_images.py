"""Pictures that are given to models: what is refused, and how they are brought to size."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from adapter_files import write_picture
from PIL import Image

from pipeline.adapters.reference_images import MAX_PIXELS, fitted, identify_image
from pipeline.errors import JobFailure, ModelError


def huge_png(path: Path, width: int, height: int) -> Path:
    """A PNG whose header promises this size; a few bytes long."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    return path


def fault(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        identify_image(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.png"
    text.write_text("not a picture")
    assert "image" in fault(tmp_path / "none.png") and "no such file" in fault(tmp_path / "none.png")
    assert "is a folder" in fault(tmp_path)
    assert "is no picture; expected one of PNG, JPEG" in fault(text)
    text.write_bytes(b"")
    assert "is no picture" in fault(text)


def test_only_formats_that_are_decoded_by_pillow_itself_are_opened(tmp_path: Path) -> None:
    path = tmp_path / "drawing.eps"
    Image.new("RGB", (8, 8)).save(path)
    assert "is no picture" in fault(path)


def test_huge_pictures_are_refused_by_their_header(tmp_path: Path) -> None:
    side = int(MAX_PIXELS**0.5)
    assert "8193 x 8192 pixels, more than 67 million" in fault(huge_png(tmp_path / "a.png", side + 1, side))
    assert "more than 67 million" in fault(huge_png(tmp_path / "b.png", 60_000, 60_000))


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_cut_off_pictures_are_refused(tmp_path: Path, ending: str) -> None:
    random = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"a.{ending}"
    Image.fromarray(random).save(path)
    identify_image(str(path))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert any(words in fault(path) for words in ("is damaged or cut off", "is no picture"))


def test_the_hash_is_of_the_file_and_the_name_holds_no_folder(tmp_path: Path) -> None:
    import hashlib

    path = write_picture(tmp_path / "my face.png")
    image = identify_image(str(path))
    assert image.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert image.name == "my-face" and image.source == str(path)


def test_a_picture_is_turned_upright_scaled_and_cut_around_its_middle(tmp_path: Path) -> None:
    picture = np.zeros((20, 40, 3), dtype=np.uint8)
    picture[:, :20] = 255  # white left, black right
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera turned: left is up
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    upright = np.asarray(fitted(identify_image(str(tmp_path / "a.png")), 16, 16))
    assert upright.shape == (16, 16, 3)
    assert upright[2].min() == 255 and upright[13].max() == 0


def test_grey_and_transparent_pictures_become_rgb(tmp_path: Path) -> None:
    for mode in ("L", "LA", "P", "RGBA", "1"):
        Image.new(mode, (8, 8)).save(tmp_path / f"{mode}.png")
        assert fitted(identify_image(str(tmp_path / f"{mode}.png")), 8, 8).mode == "RGB"


def test_a_picture_that_vanished_or_changed_after_planning_fails(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png")
    image = identify_image(str(path))
    write_picture(path, seed=3)
    with pytest.raises(JobFailure, match=r"image a: a\.png has changed"):
        fitted(image, 8, 8)
    path.unlink()
    with pytest.raises(JobFailure, match=r"image a: a\.png is gone"):
        fitted(image, 16, 8)
