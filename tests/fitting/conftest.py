from pathlib import Path

import pytest

from reslab.fitting import choice


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try two small image sizes of one network only."""
    monkeypatch.setattr(choice, "SIZES", {"efficientnet_lite0": (48, 64)})
