"""For the documentation's site: what a page links to outside of docs/ is put on the site, under `repository/`.

In the repository the same links work as they stand. A folder becomes a list of its files; the notebooks become pages.
"""

import base64
import html
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = re.compile(
    r"(!?)\[([^\]]*)\]\((?:\.\./)+((?:results|benchmarks|notebooks|tests|src)\b[^)#]*|[A-Z_]+\.md|Dockerfile)\)"
)
SHOWN = {".json", ".png", ".svg", ".html", ".csv", ".txt", ".ipynb"}  # by a browser as they are; the rest as text
NOTEBOOKS = {"notebook.md": "notebooks/lab.ipynb", "ru/notebook.md": "notebooks/lab.ru.ipynb"}

_linked: set[str] = set()


def on_files(files: Files, *, config: Any, **_: Any) -> Files:
    """Called by mkdocs once: add the notebooks."""
    for name, path in NOTEBOOKS.items():
        files.append(File.generated(config, name, content=to_markdown(nbformat.read(ROOT / path, as_version=4))))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Called by mkdocs for every page."""
    up = "../" * page.url.count("/")

    def link(found: re.Match[str]) -> str:
        is_picture, text, path = found[1], found[2], found[3].rstrip("/")
        _linked.add(path)
        there = f"{up}repository/{_place(path)}"
        return f'<img src="{there}" alt="{html.escape(text)}">' if is_picture else f'<a href="{there}">{text}</a>'

    return OUTSIDE.sub(link, markdown)


def on_post_build(*, config: Any, **_: Any) -> None:
    """Called by mkdocs at the end: copy what was linked to."""
    site = Path(config["site_dir"]) / "repository"
    for path in sorted(_linked):
        source = ROOT / path
        inside = sorted(each.relative_to(ROOT) for each in source.rglob("*") if each.is_file())
        for each in map(str, inside) if inside else [path]:
            target = site / _place(each)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / each, target)
        if inside:
            (site / _place(path)).write_text(_list(path, inside), encoding="utf-8")


def _place(path: str) -> str:
    """Name the file of the site for one of the repository, or for a folder."""
    if (ROOT / path).is_dir():
        return f"{path}/index.html"
    return path if Path(path).suffix in SHOWN else f"{path}.txt"


def _list(folder: str, files: list[Path]) -> str:
    lines = [
        f'<li><a href="{_place(str(each)).removeprefix(f"{folder}/")}">{each.relative_to(folder)}</a></li>'
        for each in files
    ]
    return (
        '<!DOCTYPE html><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        '<body style="font: 16px/1.6 system-ui, sans-serif; margin: 2rem">'
        f"<title>{folder}</title><h1>{folder}</h1><ul>{''.join(lines)}</ul>"
    )


def to_markdown(notebook: Any) -> str:
    """Write an executed notebook as a page."""
    parts = []
    for cell in notebook.cells:
        parts.append(cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "text/html" in data:
                shown = re.sub(r"\s*\n\s*", " ", data["text/html"])
            elif "image/png" in data:
                shown = f'<img alt="" src="data:image/png;base64,{_one_line(data["image/png"])}">'
            else:
                shown = f"<pre>{html.escape(data['text/plain'].strip())}</pre>".replace("\n", "&#10;")
            parts.append(f'<div class="shown">{shown}</div>')
    return "\n\n".join(parts)


def _one_line(encoded: str) -> str:
    return base64.b64encode(base64.b64decode(encoded)).decode()
