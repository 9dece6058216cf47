"""The list of licences names everything that an installation brings along; none asks for more than credit."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
COPYLEFT = ("GPL", "General Public", "AGPL", "SSPL", "not stated", "Proprietary")


@pytest.fixture
def licences() -> ModuleType:
    spec = importlib.util.spec_from_file_location("licences", ROOT / "tools/licences.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(page: str) -> dict[str, str]:
    """Read the table of what is always there."""
    return {name: licence for name, licence, *_ in table(page.partition("## Only with an extra")[0])}


def table(page: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")][1:]


def test_the_page_names_what_is_installed(licences: ModuleType) -> None:
    """A newer version of a package may state its licence in other words, so names alone are compared."""
    kept, now = rows((ROOT / "THIRD_PARTY.md").read_text()), rows(licences.write_page())
    assert {"torch", "numpy", "pydantic", "safetensors", "typer"} <= kept.keys()
    assert "pytest" not in kept
    if sys.platform == "linux":
        assert {name for name in now if not name.startswith(("nvidia-", "triton", "cuda-"))} <= kept.keys()


def test_the_page_names_what_the_extras_ask_for(licences: ModuleType) -> None:
    written = table((ROOT / "THIRD_PARTY.md").read_text().partition("## Only with an extra")[2])
    assert {name: extras.split(", ") for name, _, extras in written} == licences.find_extras()
    assert [row for row in written if row[1] == "not stated"] == []


def test_no_licence_asks_for_more_than_credit(licences: ModuleType) -> None:
    assert [line for line in rows(licences.write_page()).items() if any(word in line[1] for word in COPYLEFT)] == []
