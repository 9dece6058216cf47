from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reslab.data.load import load
from reslab.runs import Run
from reslab.training.begin import Begun
from reslab.training.distributed import Team
from reslab.training.findings import tell_findings


@pytest.mark.parametrize("silent", [False, True])
def test_a_training_says_what_is_wrong_with_its_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], silent: bool
) -> None:
    for name in ("cat", "dog"):
        for number in range(12):
            path = tmp_path / f"{'test' if number > 9 else 'train'}/{name}/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number % 10).integers(256, size=(8, 8, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    (tmp_path / "train/cat/notes.doc").touch()
    train = load(f"folder:{tmp_path}", "train")
    for test in (tmp_path / "test").rglob("*.png"):
        test.write_bytes(b"nobody opens it")
    begun = Begun(Run(tmp_path / "run"), (train,), 0, Team(torch.device("cpu")))
    tell_findings(begun, data_dir=None, silent=silent)
    said = capsys.readouterr().err
    assert ("10 pairs of copies with different labels" in said) is not silent
    assert ("1 not used, .doc files: train/cat/notes.doc" in said) is not silent
