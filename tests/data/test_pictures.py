"""Pictures of every kind that people have become the same pixels, or one sentence."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reslab.data.pictures import decode
from reslab.errors import UserError

RED, BLUE = (255, 0, 0), (0, 0, 255)


def pixels_of(image: Image.Image, kind: str, **options: Any) -> Any:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return decode(buffer, image_size=4, name="it").astype(int)


def filled(colour: tuple[int, ...], mode: str = "RGB", size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.new(mode, size, colour)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_a_moving_picture_the_first_frame_is_taken(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    pixels = pixels_of(filled(RED), kind, save_all=True, append_images=[filled(BLUE)], **options)
    assert (pixels == np.array(RED)[:, None, None]).all()


@pytest.mark.parametrize(("kind", "tolerance"), [("TIFF", 0), ("JPEG", 3)])
def test_printers_inks_become_light(kind: str, tolerance: int) -> None:
    pixels = pixels_of(filled((0, 255, 255, 0), "CMYK"), kind)  # no cyan, all magenta and yellow
    assert abs(pixels - np.array(RED)[:, None, None]).max() <= tolerance


def test_sixteen_bits_of_grey_lose_their_lower_half() -> None:
    deep = Image.fromarray(np.full((8, 8), 0x7FFF, np.uint16))
    assert (pixels_of(deep, "PNG") == 0x7F).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "L", "P", "1", "CMYK", "I;16"])
def test_a_picture_in_bands_is_as_it_is_in_one_piece(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0)
    if mode == "I;16":
        image = Image.fromarray(noise.integers(0, 2**16, (31, 40), np.uint16))
    else:
        image = Image.fromarray(noise.integers(0, 256, (31, 40, 4), np.uint8)).convert("RGBA").convert(mode)
    options = {"transparency": 3} if mode == "P" else {}
    kind = "TIFF" if mode == "CMYK" else "PNG"
    whole = pixels_of(image, kind, **options)
    monkeypatch.setattr("reslab.data.pictures.BAND_PIXELS", 100)
    assert (pixels_of(image, kind, **options) == whole).all()


def test_a_picture_that_is_sixty_thousand_pixels_wide_is_shrunk() -> None:
    halves = Image.new("RGB", (60_000, 4), RED)
    halves.paste(BLUE, (30_000, 0, 60_000, 4))
    pixels = pixels_of(halves, "PNG")
    assert pixels[:, 0, 0].tolist() == list(RED)
    assert pixels[:, 0, 3].tolist() == list(BLUE)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_a_picture_that_was_cut_off_is_named(tmp_path: Path, kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    buffer = io.BytesIO()
    noise.save(buffer, kind)
    (tmp_path / "cut").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(UserError, match=r"cut cannot be read as a picture \(.*\): replace it or remove it"):
        decode(tmp_path / "cut", image_size=4)
