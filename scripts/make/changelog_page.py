"""Hook of mkdocs: the changelog of the repository as a page of the site, with links that fit its place."""

from pathlib import Path
from typing import Any

CHANGELOG = Path(__file__).parents[2] / "CHANGELOG.md"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    if page.file.src_uri != "changelog.md":
        return markdown
    return CHANGELOG.read_text().replace("](docs/", "](")
