"""The documentation site: it builds without warnings, fetches nothing, has every page; translations match."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

import reslab
from reslab.study import STUDIES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TRANSLATED = sorted(path.name for path in (DOCS / "ru").glob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Addresses(HTMLParser):
    """What a page points to (`links`), and what a browser fetches to show it (`fetched`)."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.names: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        self.names.add(found.get("id", ""))
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag == "link" and found.get("rel") in ("stylesheet", "icon", "preconnect"):
            self.fetched.append(found["href"])
        elif "src" in found:
            self.fetched.append(found["src"])


def test_the_site_has_every_page_and_fetches_nothing(site: Path) -> None:
    pages = {path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md")}
    pages |= {Path("notebook.html"), Path("ru/notebook.html")}
    assert all((site / page).exists() for page in pages)
    for page in pages:
        for address in Addresses(site / page).fetched:
            if address.startswith("data:"):
                continue
            assert not re.match("(https?:)?//", address), f"{page} fetches {address}"
            assert (site / page.parent / address.partition("?")[0]).exists(), f"{page} lacks {address}"


def test_every_link_inside_the_site_leads_somewhere(site: Path) -> None:
    known = {page: Addresses(page) for page in site.rglob("*.html") if page.name != "404.html"}
    for page, found in known.items():
        for link in found.links:
            target, _, name = link.partition("#")
            if re.match("[a-z]+:", target):
                continue
            there = (page.parent / target).resolve() if target else page
            assert there.exists(), f"{page.name} links to {link}"
            if name and there.suffix == ".html":
                assert name in known[there].names, f"{page.name} links to {link}"


def test_results_and_source_are_on_the_site(site: Path) -> None:
    links = Addresses(site / "lab.html").links
    assert "repository/results/lab-resnet32-short/index.html" in links
    listed = Addresses(site / "repository/results/lab-resnet32-short/index.html").links
    assert "evaluation.json" in listed
    source = (site / "repository/results/lab-resnet32-short/evaluation.json").read_bytes()
    assert source == (ROOT / "results/lab-resnet32-short/evaluation.json").read_bytes()


def test_every_public_name_is_described(site: Path) -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    described = {line.rpartition(".")[2] for line in text.splitlines() if line.startswith("::: ")}
    assert described == set(reslab.__all__)
    page = (site / "api.html").read_text(encoding="utf-8")
    assert "Train a network from scratch" in page
    assert "<p>The run folder to make.</p>" in re.sub(r"\s*\n\s*", "", page)  # a row in a table of arguments


def test_every_study_has_its_page() -> None:
    assert {path.stem for path in (DOCS / "studies").iterdir()} == set(STUDIES)


@pytest.mark.parametrize("name", TRANSLATED)
def test_a_translation_has_the_same_commands(name: str) -> None:
    pages = [(folder / name).read_text(encoding="utf-8") for folder in (DOCS, DOCS / "ru")]
    commands = [re.findall(r"^ {4}\S.*$", page, re.MULTILINE) for page in pages]
    blocks = [re.findall(r"```.*?```", page, re.DOTALL) for page in pages]
    headings = [len(re.findall(r"^#+ ", page, re.MULTILINE)) for page in pages]
    commands[1] = [line.removesuffix(" --lang ru") for line in commands[1]]
    assert (commands[0], blocks[0], headings[0]) == (commands[1], blocks[1], headings[1])


def test_there_are_translations() -> None:
    assert TRANSLATED == ["lab.md", "quickstart.md"]


def test_the_citation_has_what_its_schema_asks_for() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert all(citation[key] for key in ("message", "title", "authors"))
    assert citation["version"] == reslab.__version__
    assert citation["license"] == "Apache-2.0"
    for reference in citation["references"]:
        assert all(reference[key] for key in ("type", "title", "authors"))
