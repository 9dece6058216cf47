"""A small base: the digits 1, 4 and 7, trained in a second."""

import pytest

from reslab.extension import fusion
from reslab.recipe.recipe import Recipe
from reslab.runs import Run
from reslab.training import train


@pytest.fixture(scope="session")
def base(small_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Only ever read by the tests."""
    return train(small_recipe, out=tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(autouse=True)
def small_pretrained_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the pretrained network see 32 pixels, which is fast."""
    monkeypatch.setattr(fusion, "IMAGE_SIZE", 32)
