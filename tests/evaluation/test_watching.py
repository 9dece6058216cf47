"""Watching: what differs is named, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from reslab.evaluation.watching import Seen, compare, measure_pictures

CLASSES = ("ant", "bee", "cat")


def draw(num: int, *, seed: int) -> tuple[Seen, np.ndarray]:
    """Draw what is seen of noise, and its images."""
    generator = np.random.default_rng(seed)
    images = generator.integers(60, 140, size=(num, 3, 8, 8)).astype(np.uint8)
    return Seen(generator.normal(size=(num, 5)), generator.normal(size=(num, 3)), measure_pictures(images)), images


def differ(before: Seen, now: Seen) -> dict[str, str]:
    return {each.name: each.sentence for each in compare(before, now, classes=CLASSES) if each.changed}


def test_only_what_has_changed_is_named() -> None:
    (before, _), (now, images) = draw(100, seed=0), draw(60, seed=1)
    assert differ(before, now) == {}
    darker = differ(before, replace(now, pictures=measure_pictures(images // 2)))
    assert darker["brightness"].startswith("They are darker: 19")
    assert set(darker) == {"brightness", "contrast"}
    wider = np.where(np.arange(60)[:, None, None, None] % 2, images - 30, images + 30)
    spread = differ(before, replace(now, pictures=measure_pictures(wider.astype(np.uint8))))
    assert spread == {"brightness": "Their brightness is spread differently around nearly the same average."}
    blurred = images.astype(float).repeat(2, axis=3)[..., 1:-7]
    blurred = np.stack([blurred] * 2, axis=3).reshape(60, 3, 16, 8)[:, :, :8]
    assert (
        "blurrier" in differ(before, replace(now, pictures=measure_pictures(blurred.astype(np.uint8))))["fine detail"]
    )
    assert set(differ(before, replace(now, features=now.features + 1))) == {"features"}
    surer = differ(before, replace(now, logits=now.logits * 5))
    assert surer["confidence"].startswith("The network is surer of them: 86")
    mixed = replace(now, logits=np.roll(np.sort(now.logits, axis=1), 2, axis=1))
    assert differ(before, mixed)["class mix"].startswith("Their classes differ: 100\u00a0% bee instead of ")


def test_properties_of_pictures_by_hand() -> None:
    black_and_white = np.zeros((1, 1, 4, 4), dtype=np.uint8)
    black_and_white[..., 2:] = 255
    found = {name: float(values[0]) for name, values in measure_pictures(black_and_white).items()}
    # The Laplacian is 0, -1, 1, 0 along each row.
    assert found == pytest.approx({"brightness": 0.5, "contrast": 0.5, "fine detail": 2**0.5}, rel=1e-3)
    assert measure_pictures(np.full((2, 3, 1, 1), 9, dtype=np.uint8))["fine detail"] == pytest.approx(1)
