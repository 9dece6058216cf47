"""Pictures of every kind that people have become the same pixels, or one sentence."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from reslab.data.load import load
from reslab.data.notes import _say
from reslab.data.pictures import (
    SPARE,
    Said,
    Wanted,
    advice_for,
    decode,
    is_answered,
    is_picture,
    losses_of,
    name_best,
    opening,
    readable_endings,
    shrink,
    to_rgb,
    with_channels,
)
from reslab.data.storage.blocks import resize as resize_images
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
    why = "its data are damaged" if kind == "WEBP" else "it is cut short"  # whose decoder does not say more
    with pytest.raises(UserError, match=rf"cut cannot be read as a picture \({why}\): replace it or remove it"):
        decode(tmp_path / "cut", image_size=4)


GRADIENT = np.linspace(0, 1, 16 * 16, dtype=np.float64).reshape(16, 16)


def deep_tiff(values: Any) -> io.BytesIO:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "TIFF")
    return buffer


@pytest.mark.parametrize(
    ("values", "wanted", "loss"),
    [
        ((GRADIENT * 65535).astype(np.uint16), GRADIENT * 255, "grey values from 0 (black) to 65,535 (white)"),
        ((GRADIENT * 16383).astype(np.uint16), GRADIENT * 255, "grey values from 0 (black) to 16,383 (white)"),
        ((GRADIENT * 4095).astype(np.uint16), GRADIENT * 255, "grey values from 0 (black) to 4,095 (white)"),
        ((GRADIENT * 1023).astype(np.uint16), GRADIENT * 255, "grey values from 0 (black) to 1,023 (white)"),
        ((GRADIENT * 255).astype(np.uint16), GRADIENT * 255, None),
        ((GRADIENT * 255).astype(np.int32), GRADIENT * 255, None),
        ((GRADIENT * 65535).astype(np.int32), GRADIENT * 255, "grey values from 0 (black) to 65,535 (white)"),
        (GRADIENT.astype(np.float32), GRADIENT * 255, "grey values from 0 (black) to 1 (white)"),
        ((GRADIENT * 255).astype(np.float32), GRADIENT * 255, None),
        ((GRADIENT * 4000).astype(np.float32), GRADIENT * 4000 / 4095 * 255, "from 0 (black) to 4,095 (white)"),
    ],
)
def test_deep_grey_values_run_from_black_to_white(values: Any, wanted: Any, loss: str | None) -> None:
    pixels = decode(deep_tiff(values), image_size=16, name="it").astype(float)
    assert abs(pixels - wanted).max() <= 1
    found = find_losses(deep_tiff(values))
    assert [words in said for words, said in zip([loss] if loss else [], found, strict=True)] == [True] * len(found)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((GRADIENT * 70_000).astype(np.int32), "from 0 to 70000, but grey values run from 0 to at most 65535"),
        ((GRADIENT * 9 - 4).astype(np.int32), "from -4 to 5"),
        ((GRADIENT * 2 - 1).astype(np.float32), "from -1 to 1, but grey values run from 0 to at most 65535"),
        (np.full((16, 16), np.nan, np.float32), "from nan to nan"),
    ],
)
def test_values_without_a_white_are_refused(values: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        decode(deep_tiff(values), image_size=4, name="it")


@pytest.fixture
def exposures(tmp_path: Path) -> Path:
    """One scene at several exposures: most stay within 12 bits, one uses 14, and a test picture uses 16."""
    for number in range(24):
        highest = {2: 16_000, 20: 60_000}.get(number, 3000 if number % 4 else 1000)
        path = make_folder(tmp_path / ("train" if number < 20 else "test") / "ab"[number % 2]) / f"{number}.png"
        Image.fromarray((GRADIENT * highest + number).astype(np.uint16)).save(path)
    return tmp_path


def test_one_white_for_all_is_found_from_training_pictures(exposures: Path) -> None:
    train, test = (load(f"folder:{exposures}", split, image_size=16) for split in ("train", "test"))
    assert (train.white, test.white) == (16_383, 16_383)
    for images in (train, test):
        assert images.names is not None
        for name, image in zip(images.names, images.images[:], strict=True):
            with Image.open(exposures / images.split / name.removeprefix(f"{images.split}/")) as stored:
                values = np.asarray(stored).clip(0, 16_383)
            assert abs(image.numpy() - values * (255 / 16_383)).max() <= 0.51


def test_two_exposures_of_a_scene_stay_different(exposures: Path) -> None:
    images = load(f"folder:{exposures}", "train", image_size=16)
    assert images.names is not None
    by_name = {Path(name).stem: image for name, image in zip(images.names, images.images[:].float(), strict=True)}
    assert by_name["1"].mean() / by_name["4"].mean() == pytest.approx(3, rel=0.05)  # 3,000 and 1,000


def test_a_given_white_is_used_and_belongs_to_the_cache_key(exposures: Path) -> None:
    found, given = (load(f"folder:{exposures}", "train", image_size=16, white=each) for each in (None, 4095))
    assert given.white == 4095
    assert given.images.float().mean() > 2 * found.images.float().mean()
    assert (load(f"folder:{exposures}", "train", image_size=16).images[:] == found.images[:]).all()


def test_new_training_pictures_may_move_white(exposures: Path) -> None:
    assert load(f"folder:{exposures}", "train", image_size=16).white == 16_383
    (exposures / "test" / "a" / "20.png").rename(exposures / "train" / "a" / "20.png")
    assert load(f"folder:{exposures}", "train", image_size=16).white == 65_535


def test_pictures_far_below_white_and_above_it_are_counted(exposures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for size in (4, 4, 8):  # also from the cache
        _say.cache_clear()
        load(f"folder:{exposures}", "train", image_size=size)
        said = capsys.readouterr().err
        assert "19 of 20 grey pictures stay within 4,095 while white is 16,383: --set white=4095 shows more" in said
    load(f"folder:{exposures}", "train", image_size=4, white=4095)
    assert "1 grey picture of 20 are clipped, since white is 4,095" in capsys.readouterr().err
    load(f"folder:{exposures}", "test", image_size=4)
    assert capsys.readouterr().err == ""


def test_what_is_brighter_than_white_is_clipped_not_rescaled() -> None:
    values = (GRADIENT * 8000).astype(np.uint16)
    pixels = decode(deep_tiff(values), image_size=16, white=4095, name="it")
    np.testing.assert_array_equal(pixels[0], np.rint(values.clip(0, 4095) * (255 / 4095)))
    assert (pixels == 255).mean() > 0.4
    with opening(deep_tiff(values), name="it") as image:
        assert list(losses_of(image, white=4095)) == ["grey values above 4,095 (white), clipped"]


def test_pictures_of_8_bits_have_no_white(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "test/a", "test/b"):
        Image.fromarray((GRADIENT * 200).astype(np.uint8)).save(make_folder(tmp_path / name) / "it.png")
    plain = load(f"folder:{tmp_path}", "train", image_size=16)
    assert plain.white is None
    assert (load(f"folder:{tmp_path}", "train", image_size=16, white=4095).images[:] == plain.images[:]).all()


def make_folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def test_damaged_metadata_is_no_warning(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description that is cut off"
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.jpg", exif=exif.tobytes()[:-20])
    code = "import sys; from pathlib import Path; from reslab.data.pictures import decode; decode(Path(sys.argv[1])"
    command = [sys.executable, "-c", f"{code}, image_size=4)", tmp_path / "photo.jpg"]
    found = subprocess.run(command, capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize("orientation", range(10))
def test_pictures_are_turned_upright_as_pillow_turns_them(orientation: int) -> None:
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray((255 * np.random.default_rng(0).random((16, 24, 3))).astype(np.uint8)).save(file, "PNG", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(file)).resize((8, 8), Image.Resampling.BILINEAR))
    assert (decode(file, image_size=8) == upright.transpose(2, 0, 1)).all()


def test_odd_metadata_of_a_sound_photo_are_ignored(tmp_path: Path) -> None:
    """The resolution is text, where a fraction belongs."""
    orientation = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    resolution = struct.pack("<HHI", 0x011A, 2, 4) + b"72\0\0"
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + orientation + resolution + b"\0" * 40
    wide = np.zeros((16, 32, 3), np.uint8)
    wide[:, :16] = 255
    Image.fromarray(wide).save(tmp_path / "photo.jpg", exif=exif)
    turned = decode(tmp_path / "photo.jpg", image_size=8)
    assert turned[:, :3].min() > 200  # what was left is above
    assert turned[:, 5:].max() < 50
    Image.fromarray(wide).save(tmp_path / "photo.png", exif=b"no exif at all")
    assert decode(tmp_path / "photo.png", image_size=8)[:, :, :3].min() > 200


def test_a_missing_decoder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reslab.data.pictures.readable_endings", lambda: frozenset({".png"}))
    (tmp_path / "photo.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(UserError, match=r"unknown format\): pip install 'reslab\[heic\]'"):
        decode(tmp_path / "photo.HEIC", image_size=8)
    assert not is_picture(tmp_path / "photo.HEIC")
    Image.new("RGB", (8, 8)).save(tmp_path / "renamed.HEIC", format="JPEG")
    assert is_picture(tmp_path / "renamed.HEIC")


def png_of_16_bits(values: Any) -> io.BytesIO:
    """Write RGB values (H, W, 3) of 16 bits, which Pillow cannot."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def test_sixteen_bits_of_colour_keep_their_upper_half_and_twelve_are_refused() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype(np.uint16)
    pixels = decode(png_of_16_bits(colours * 257), image_size=4, name="it")
    np.testing.assert_array_equal(pixels.transpose(1, 2, 0), colours)
    assert find_losses(png_of_16_bits(colours * 257)) == ("only the upper 8 of 16 bits",)
    with pytest.raises(UserError, match="the upper four are never used: save it with 8"):
        decode(png_of_16_bits(colours * 16), image_size=4, name="it")


def find_losses(picture: io.BytesIO) -> tuple[str, ...]:
    with opening(picture, name="it") as image:
        return tuple(losses_of(image))


def test_what_follows_the_first_frame_is_counted() -> None:
    buffer = io.BytesIO()
    filled(RED).save(buffer, "GIF", save_all=True, append_images=[filled(BLUE)])
    assert find_losses(buffer) == ("only the first of several pages or frames",)
    clear = io.BytesIO()
    filled((255, 0, 0, 128), "RGBA").save(clear, "PNG")
    assert find_losses(clear) == ("transparency, laid on white",)


def test_a_tiff_of_many_channels_is_refused_as_such() -> None:
    tags = [(256, 3, 4), (257, 3, 4), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 13), (279, 4, 208)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    content = b"II*\0" + struct.pack("<I", 8 + 208) + bytes(208) + struct.pack("<H", len(tags)) + entries + bytes(4)
    with pytest.raises(UserError, match="an unsupported kind of TIFF, such as one with more than four channels"):
        decode(io.BytesIO(content), image_size=4, name="it")


@pytest.mark.parametrize(("kind", "ending"), [("AVIF", ".avif"), ("HEIF", ".heic")])
def test_modern_formats_are_read_where_their_decoders_are(kind: str, ending: str) -> None:
    assert ending in readable_endings()
    assert advice_for(ending) is None
    assert abs(pixels_of(filled(RED), kind, quality=100) - np.array(RED)[:, None, None]).max() <= 4


def test_without_its_decoder_an_ending_has_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reslab.data.pictures.readable_endings", lambda: frozenset({".png"}))
    assert advice_for(".HEIC") == "pip install 'reslab[heic]' to read them"
    assert advice_for(".psd") is None


def test_formats_that_start_programs_are_not_read() -> None:
    assert not readable_endings() & {".eps", ".ps", ".pdf", ".wmf", ".psd", ".ico"}


@pytest.mark.parametrize("resize", ["squeeze", "pad", "crop"])
def test_wide_pictures_become_squares(resize: Any) -> None:
    """16x8: a white edge of 4 on both sides, then red and blue."""
    wide = Image.new("RGB", (16, 8), "white")
    wide.paste(RED, (4, 0, 8, 8))
    wide.paste(BLUE, (8, 0, 12, 8))
    buffer = io.BytesIO()
    wide.save(buffer, "PNG")
    pixels = decode(buffer, image_size=4, resize=resize, name="it").transpose(1, 2, 0)
    as_array = resize_images(np.asarray(wide).transpose(2, 0, 1)[None].copy(), 4, resize)[0].transpose(1, 2, 0)
    # Pillow's filter looks a little beyond what it takes.
    assert abs(pixels.astype(int) - as_array)[:, 1:3].max() <= 1
    is_white = pixels[1].min(axis=1) > 150
    assert is_white.any() == (resize != "crop")  # which leaves out the edges
    assert (pixels[[0, 3]].max() == 0) == (resize == "pad")  # black above and below


def photograph(height: int, width: int) -> Image.Image:
    """Noise whose strength falls with its frequency, as in photographs."""
    noise = np.random.default_rng(0).normal(size=(3, height, width))
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    spectrum = np.fft.rfft2(noise) / np.maximum(np.hypot(rows, columns), 1 / width)
    channels = np.fft.irfft2(spectrum, (height, width))
    scaled = 128 + 30 * (channels + channels[:1]) / channels.std()
    return Image.fromarray(scaled.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


@pytest.mark.parametrize("resize", ["squeeze", "pad", "crop"])
def test_a_large_jpeg_is_decoded_small_and_looks_the_same(resize: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    photograph(375, 500).resize((4000, 3000), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    with Image.open(buffer) as image:
        shrink(image, image_size=32, resize=resize)
        assert image.size == (500, 375)
    drafted = decode(buffer, image_size=32, resize=resize, name="it").astype(int)
    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.draft", lambda *_: None)
    whole = decode(buffer, image_size=32, resize=resize, name="it").astype(int)
    assert abs(drafted - whole).mean() <= 0.09


def test_a_jpeg_is_never_decoded_to_less_than_it_may() -> None:
    buffer = io.BytesIO()
    photograph(300, 400).save(buffer, "JPEG")
    for image_size in (8, 19, 37, 38, 75, 76, 200):
        for resize in ("squeeze", "pad", "crop"):
            with Image.open(buffer) as image:
                shrink(image, image_size=image_size, resize=resize)
                shown = max(image.size) if resize == "pad" else min(image.size)
                assert shown >= min(SPARE * image_size, 300)


@pytest.mark.parametrize(("own", "wanted"), [(1, 3), (3, 1), (3, 3)])
def test_channels_are_converted_as_pillow_does(own: int, wanted: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, own, 5, 4), np.uint8)
    converted = with_channels(images, wanted)
    assert converted.shape == (2, wanted, 5, 4)
    mode = {1: "L", 3: "RGB"}
    one = Image.fromarray(images[1, 0] if own == 1 else images[1].transpose(1, 2, 0)).convert(mode[wanted])
    found = converted[1].transpose(1, 2, 0) if wanted == 3 else converted[1, 0]
    assert abs(np.asarray(one).astype(int) - found).max() <= 1
    with pytest.raises(UserError, match="only grey"):
        with_channels(images, 4)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_images_are_shown_in_rgb(channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, channels, 5, 4), np.uint8)
    shown = to_rgb(images)
    assert (shown.shape, shown.dtype) == ((2, 5, 4, 3), np.uint8)
    for place in range(3):
        expected = images[:, place] if channels == 3 else np.rint(images.astype(float).mean(axis=1))
        np.testing.assert_array_equal(shown[..., place], expected)
    np.testing.assert_array_equal(to_rgb(images[0]), shown[0])


@pytest.mark.parametrize("kind", [float, np.float32, np.float64])
@pytest.mark.parametrize(("share", "least"), [(0.95, 0.05), (0.9, 0.1), (0.8, 0.2), (1.0, 0.0)])
def test_a_familiarity_just_at_the_threshold_is_not_answered_in_any_precision(
    kind: type, share: float, least: float
) -> None:
    for stored in (kind(least), float(np.float32(least))):
        assert not is_answered(stored, share=share)
    assert is_answered(kind(least + 0.001), share=share)
    assert is_answered(None, share=share)


def test_a_picture_that_is_not_answered_has_no_set_of_classes() -> None:
    said = Said(np.array([[0.9, 0.1], [0.9, 0.1]]), np.array([0.04, 0.06]))
    files, wanted = [Path("stranger.png"), Path("cat.png")], Wanted(top=1, threshold=0.95)
    refused, answered = name_best(files, said, classes=("cat", "dog"), wanted=wanted)
    assert (refused.answered, refused.class_set) == (False, None)
    assert (answered.answered, answered.class_set) == (True, ("cat", "dog"))
