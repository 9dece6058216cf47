"""For the documentation's site: a link that leaves docs/ becomes the name of the file in the repository.

On the site there is nothing behind `../results/…`; in the repository the same link works as it stands.
"""

import re
from typing import Any

OUTSIDE = re.compile(
    r"(?<!!)\[([^\]]+)\]\((?:\.\./)+((?:results|benchmarks|tests|src)\b[^)]*|[A-Z_]+\.md|Dockerfile)\)"
)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for every page."""
    return OUTSIDE.sub(lambda found: f"{found[1]} `{found[2]}`", markdown)
