"""The pages of the documentation and their blocks of code."""

import re
from dataclasses import dataclass
from pathlib import Path

from conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^>]*) -->\n)?^```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    mark: str | None
    language: str
    code: str
    line: int  # of its first line of code


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(found["mark"], found["language"], found["code"], text.count("\n", 0, found.start("code")) + 1)
        for found in BLOCK.finditer(text)
    ]


def label(page: Path) -> str:
    return str(page.relative_to(ROOT))
