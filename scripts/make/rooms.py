"""Write docs/contributing/rooms.md, the map of the package, from the package itself: its imports and its
docstrings.

python scripts/make/rooms.py [--out FILE]
"""

import argparse
import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "topdown_ray"
INTRODUCTION = """\
<!-- made by scripts/make/rooms.py -->

# The rooms of the package

The package is eight rooms over a ground floor. A room is a folder. It may import the rooms that its arrow
names, and every room may import the ground floor. `tests/test_imports.py` holds the same list and fails when
an arrow is added.

```text
"""


def first_sentence(path: Path) -> str:
    """Of a module's docstring."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0].split())
    return re.split(r"(?<=[.])\s+(?=[A-Z])", text)[0]


@functools.cache
def rooms() -> list[Path]:
    return sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))


@functools.cache
def arrows(room: Path) -> set[str]:
    """The rooms that a room imports."""
    names = {other.name for other in rooms()} - {room.name}
    texts = [path.read_text() for path in room.rglob("*.py")]
    return {
        name
        for name in names
        if any(re.search(rf"\btopdown_ray\.{name}\b", text) for text in map(code, texts))
    }


def code(text: str) -> str:
    """The import statements of a module."""
    return "\n".join(
        ast.unparse(node)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
    )


def depth(room: Path) -> int:
    return 1 + max((depth(PACKAGE / name) for name in arrows(room)), default=0)


def table(folder: Path) -> Iterator[str]:
    yield "| file | its one responsibility |"
    yield "|---|---|"
    for path in sorted(folder.rglob("*.py") if folder != PACKAGE else folder.glob("*.py")):
        if path.name not in ("__init__.py", "__main__.py"):
            sentence = first_sentence(path).replace("|", "\\|")
            yield f"| `{path.relative_to(folder).with_suffix('')}` | {sentence} |"


def page() -> Iterator[str]:
    ordered = sorted(rooms(), key=lambda room: (-depth(room), room.name))
    by_depth = [room.name for room in ordered]
    for room in ordered:
        below = sorted(arrows(room), key=by_depth.index)
        yield f"{room.name:<12}{'-> ' + ', '.join(below) if below else '   (the ground floor only)'}"
    yield "```"
    for room in ordered:
        yield from ("", f"## `{room.name}`", "", first_sentence(room / "__init__.py"), "", *table(room))
    yield from ("", "## The ground floor", "", "What every room may use.", "", *table(PACKAGE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "contributing" / "rooms.md")
    parser.parse_args().out.write_text(INTRODUCTION + "\n".join(page()) + "\n")


if __name__ == "__main__":
    main()
