"""List the licences of everything that reslab brings along, and of what its extras name.

    python tools/licences.py          writes THIRD_PARTY.md

The licence is what a package says of itself: its SPDX expression, else its classifiers, else its short licence field,
else the first line of its licence file.
"""

import re
import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
HEAD = """# Third-party licences

What reslab brings along on Linux, and under which licence, as each package says itself
(`python tools/licences.py` writes this page; a test holds it to what is installed). Nothing of it is part of reslab's
own source; the package itself brings ONNX Runtime for browsers (MIT, Microsoft Corporation), which `reslab export` puts
into web pages. PyTorch's builds for CUDA bring NVIDIA's libraries as well, under NVIDIA's terms.

| package | licence |
|---|---|
"""
EXTRAS = """
## Inside the package

`src/reslab/report/plotly/cartesian.min.js`, which draws the report's charts, is plotly.js-cartesian-dist-min 4.1.1,
under the MIT licence beside it.

## Only with an extra

What `reslab[EXTRA]` asks for besides, without what that brings along itself; `dev` is for work on reslab.

| package | licence | extras |
|---|---|---|
"""


def find_dependencies(name: str) -> dict[str, Distribution]:
    """Collect what a package needs, and what that needs, without extras and what is for other systems."""
    found: dict[str, Distribution] = {}
    waiting = [name]
    while waiting:
        for text in distribution(waiting.pop()).requires or ():
            needed = Requirement(text)
            key = canonicalize_name(needed.name)
            if key in found or (needed.marker and not needed.marker.evaluate({"extra": ""})):
                continue
            try:
                found[key] = distribution(key)
            except PackageNotFoundError:  # of an extra that is not asked for
                continue
            waiting.append(key)
    return found


def name_licence(package: Distribution) -> str:
    """Name the licence in the package's own words."""
    says = package.metadata
    expression, short = (says[field].strip() if field in says else "" for field in ("License-Expression", "License"))
    classifiers = [
        line.rpartition(" :: ")[2] for line in says.get_all("Classifier") or () if line.startswith("License ::")
    ]
    named = short.partition("\n")[0].removeprefix("UNKNOWN")  # what old tools wrote where nothing was given
    found = expression or ", ".join(classifiers) or named or read_licence(package)
    return re.sub(r"\s+", " ", found) or "not stated"


def read_licence(package: Distribution) -> str:
    """Read the first line of the licence file; nothing where there is none."""
    texts = (file.read_text() for file in package.files or () if file.name.startswith("LICEN"))
    return next((line.strip() for text in texts for line in text.splitlines() if line.strip()), "")


def find_extras() -> dict[str, list[str]]:
    """Name what the extras of pyproject.toml ask for by name, and which extras those are."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: dict[str, list[str]] = {}
    for extra, needs in project["optional-dependencies"].items():
        for name in sorted({canonicalize_name(Requirement(text).name) for text in needs} - {"reslab"}):
            found.setdefault(name, []).append(extra)
    return found


def write_page() -> str:
    """Make the page; what an extra asks for and is not installed keeps its row."""
    written = (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8")
    packages = sorted(find_dependencies("reslab").items())
    page = HEAD + "".join(f"| {name} | {name_licence(package)} |\n" for name, package in packages) + EXTRAS
    for name, extras in sorted(find_extras().items()):
        try:
            licence = name_licence(distribution(name))
        except PackageNotFoundError:
            known = re.search(rf"^\| {re.escape(name)} \| (.+?) \|", written, re.MULTILINE)
            licence = known[1] if known else "not stated"
        page += f"| {name} | {licence} | {', '.join(extras)} |\n"
    return page


if __name__ == "__main__":
    (ROOT / "THIRD_PARTY.md").write_text(write_page(), encoding="utf-8")
