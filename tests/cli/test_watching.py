"""`watch` on a folder, by files of the run alone."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reslab.data.recipe_data import read_split
from reslab.errors import UserError
from reslab.evaluation.watching import watch
from reslab.network.network import Network
from reslab.runs import Run


@pytest.fixture
def pictures(finished: Run, tmp_path: Path) -> Path:
    (tmp_path / "new").mkdir()
    for place, image in enumerate(read_split(finished.recipe, "test").images[:60]):
        Image.fromarray(image[0].numpy()).save(tmp_path / f"new/{place}.png")
    return tmp_path / "new"


def test_a_folder_is_compared_with_what_evaluation_has_kept(
    finished: Run, pictures: Path, reslab: Callable[..., Any]
) -> None:
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    outcome = reslab("watch", finished.path, pictures)
    assert (outcome.code, "broken.png" in outcome.err) == (0, True)
    assert "reslab: 1 of 61 files could not be read\n" in outcome.err
    assert re.search(r"Nothing .*, but 60 pictures and 108 test images show large changes only\.", outcome.out)
    for path in pictures.glob("[0-9]*.png"):
        Image.fromarray(np.asarray(Image.open(path)) // 3).save(path)
    outcome = reslab("watch", finished.path, pictures, "--json")
    found = json.loads(outcome.out)
    assert (outcome.code, found["changed"], found["num_compared"], found["num_reference"]) == (1, True, 60, 108)
    assert next(each for each in found["aspects"] if each["name"] == "brightness")["changed"]


def test_what_cannot_be_compared_is_refused(finished: Run, pictures: Path) -> None:
    with pytest.raises(UserError, match="9 pictures are too few"):
        watch(finished, files=sorted(pictures.iterdir())[:9])
    with pytest.raises(UserError, match="1 picture is too few"):
        watch(finished, files=sorted(pictures.iterdir())[:1])
    features = finished.path / "features-test.npz"
    np.savez(features, indices=np.arange(20), features=np.zeros((20, Network.load(finished.path).channels)))
    with pytest.raises(UserError, match="other weights"):
        watch(finished, files=[pictures])
    features.unlink()
    with pytest.raises(UserError, match="no test images to compare with: run reslab evaluate"):
        watch(finished, files=[pictures])
