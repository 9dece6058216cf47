from pathlib import Path

import pytest
import torch

from reslab import pretrained
from reslab.fitting import choice
from reslab.models import build, efficientnet_lite
from reslab.models.efficientnet_lite import STAGES
from reslab.models.layers import ImageClassifier
from reslab.pretrained import weights
from reslab.recipe.networks import MODELS


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try two small image sizes of one network only."""
    monkeypatch.setattr(choice, "SIZES", {"efficientnet_lite0": (48, 64)})


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a network of two stages with fresh weights, which nobody has to install, in place of the pretrained one."""

    def load(name: str) -> ImageClassifier:
        torch.manual_seed(0)
        return build(MODELS[name], num_classes=1000).eval()

    monkeypatch.setattr(efficientnet_lite, "STAGES", STAGES[:2])
    monkeypatch.setattr(efficientnet_lite, "LAST", 32)
    monkeypatch.setattr(pretrained, "load_pretrained", load)
    monkeypatch.setattr(weights, "load_pretrained", load)
    monkeypatch.setattr(choice, "is_installed", lambda name: True)
    monkeypatch.setattr(choice, "SIZES", {"efficientnet_lite0": (24,)})
