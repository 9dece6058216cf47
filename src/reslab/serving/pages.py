"""The pages: each is rendered once into a self-contained file with its style and script."""

import base64
import hashlib
import re
from typing import Literal, NamedTuple

import jinja2

Page = Literal["predict", "dashboard", "docs"]


class Rendered(NamedTuple):
    """A page, and the Content-Security-Policy that allows no script but its own."""

    html: str
    policy: str


def render(page: Page) -> Rendered:
    """Render a page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("reslab.serving", "pages"), autoescape=False
    )  # templates hold nothing from outside
    html = environment.get_template(f"{page}.html.jinja").render()
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    hashes = " ".join(map(_hash, scripts))
    policy = f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
    return Rendered(html, policy + "connect-src 'self'; media-src blob:; base-uri 'none'; frame-ancestors 'none'")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
