"""Nothing is chosen by the pictures of the test split."""

from pathlib import Path

import pytest
from PIL import Image

from reslab.data.framing import Form
from reslab.data.sizes import are_squares, find_image_size, measure_reading
from reslab.data.sources.decoded import WORKERS


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    """Squares of 24 pixels to train on, and three times as many wide pictures to test with."""
    for split, num, size in (("train", 4, (24, 24)), ("test", 12, (200, 100))):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(num):
                Image.new("RGB", size, (number, 0, 0)).save(tmp_path / split / name / f"{number}.png")
    return f"folder:{tmp_path}"


def test_only_training_pictures_decide(pictures: str, opened: list[str]) -> None:
    assert find_image_size(pictures, largest=192) == 24
    assert are_squares(pictures)
    measure_reading(pictures, Form(image_size=24))
    read = {Path(path).parts[-3] for path in opened if path.endswith(".png")}
    assert read == {"train"}


def test_all_training_pictures_count_for_the_time(pictures: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 8.0])
    monkeypatch.setattr("reslab.data.sizes.time.perf_counter", lambda: next(seconds))
    assert measure_reading(pictures, Form(image_size=24)) == 8.0 / WORKERS
