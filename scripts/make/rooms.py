"""Write the map of the package from its imports and docstrings: docs/contributing/rooms.md and
docs/figures/rooms.svg.

python scripts/make/rooms.py [--out FILE] [--picture FILE]
"""

import argparse
import ast
import functools
import itertools
import re
import textwrap
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "topdown_ray"
PAGE = ROOT / "docs" / "contributing" / "rooms.md"
PICTURE = ROOT / "docs" / "figures" / "rooms.svg"
INTRODUCTION = """\
<!-- made by scripts/make/rooms.py -->

# The eight rooms

This page shows where each part of the code is. `topdown_ray` has eight folders, which the project calls
*rooms*, and some modules next to them, the *ground floor*. A room imports only the rooms that its arrows
point to. Every room can import the ground floor. `tests/test_imports.py` contains the same list of arrows and
fails if you add one.

![The eight rooms of the package and the arrows between them](../figures/rooms.svg)
"""


# --- the package --------------------------------------------------------------------------------------------


def first_sentence(path: Path) -> str:
    """Of a module's docstring, with code as Markdown has it."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0].split())
    sentence = re.split(r"(?<=[.])\s+(?=[A-Z])", text)[0]
    return re.sub(r"(?::\w+:)?(`+)~?(.+?)\1", r"`\2`", sentence)


@functools.cache
def rooms() -> list[Path]:
    return sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))


@functools.cache
def arrows(room: Path) -> set[str]:
    """The rooms that a room imports."""
    names = {other.name for other in rooms()} - {room.name}
    found = {name.split(".")[1] for path in room.rglob("*.py") for name in imported(path)}
    return names & found


def imported(path: Path) -> Iterator[str]:
    """The names within the package that a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            origin = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            names = (f"{origin}{alias.name}" for alias in node.names)
            yield from (name for name in names if name.startswith("topdown_ray."))


def depth(room: Path) -> int:
    return 1 + max((depth(PACKAGE / name) for name in arrows(room)), default=0)


def modules(folder: Path) -> list[Path]:
    paths = sorted(folder.rglob("*.py") if folder != PACKAGE else folder.glob("*.py"))
    return [path for path in paths if path.name not in ("__init__.py", "__main__.py")]


# --- the page -----------------------------------------------------------------------------------------------


def table(folder: Path) -> Iterator[str]:
    yield "| module | what it does |"
    yield "|---|---|"
    for path in modules(folder):
        sentence = first_sentence(path).replace("|", "\\|")
        yield f"| `{path.relative_to(folder).with_suffix('')}` | {sentence} |"


def imports(room: Path, order: list[str]) -> str:
    below = [f"`{name}`" for name in sorted(arrows(room), key=order.index)]
    if not below:
        return f"`{room.name}` imports no other room."
    *others, last = below
    return f"`{room.name}` imports {', '.join(others)}{' and ' if others else ''}{last}."


def page() -> Iterator[str]:
    ordered = sorted(rooms(), key=lambda room: (-depth(room), room.name))
    names = [room.name for room in ordered]
    for room in ordered:
        yield from ("", f"## `{room.name}`", "", first_sentence(room / "__init__.py"))
        yield from ("", imports(room, names), "", *table(room))
    yield from ("", "## The ground floor", "", "Every room can import these modules.", "", *table(PACKAGE))


# --- the picture --------------------------------------------------------------------------------------------

WIDTH, MARGIN = 800, 16
BOX, LANE, GAP = 182, 12, 14  # widths of a room, of an arrow that passes a row, and of the space between them
LINE, BETWEEN = 16, 84  # heights of a line of text, and of the space between two rows
COLOURS = ("#4b5563", "#0072b2", "#d55e00", "#009e73", "#8e44ad", "#b8860b", "#2c3e50", "#7f1d1d")


class Item(NamedTuple):
    """What occupies a place in a row: a room, or an arrow on its way from a room above to one below."""

    source: str
    target: str = ""  # "": the room ``source`` itself

    @property
    def width(self) -> int:
        return LANE if self.target else BOX


def layout() -> list[list[Item]]:
    """The rows of the picture from the top, each from left to right, with as few crossings as possible."""
    level = {room.name: depth(room) for room in rooms()}
    top = max(level.values())
    below = {room.name: sorted(arrows(room)) for room in rooms()}
    rows = []
    for height in range(top, 0, -1):
        passing = [
            Item(source, target)
            for source in sorted(level)
            for target in below[source]
            if level[source] > height > level[target]
        ]
        rows.append([Item(name) for name in sorted(level) if level[name] == height] + passing)
    starts = itertools.product(
        *(itertools.permutations(item for item in row if not item.target) for row in rows)
    )
    found = [
        improved(
            [[*order, *(item for item in row if item.target)] for order, row in zip(start, rows, strict=True)]
        )
        for start in starts
    ]
    return min(found, key=lambda rows: (crossings(rows), bends(rows)))


def links(upper: list[Item], lower: list[Item]) -> list[tuple[int, int]]:
    """The pieces of arrows between two rows: places in the upper and in the lower one."""
    return [(i, j) for i, item in enumerate(upper) for j, other in enumerate(lower) if joined(item, other)]


@functools.cache
def joined(item: Item, other: Item) -> bool:
    """Whether an arrow leads from an item to one in the row below."""
    if item.target:
        return other in (item, Item(item.target))
    if other.target:
        return other.source == item.source
    return other.source in arrows(PACKAGE / item.source)


def crossings(rows: list[list[Item]]) -> int:
    total = 0
    for upper, lower in itertools.pairwise(rows):
        pieces = links(upper, lower)
        total += sum((a - c) * (b - d) < 0 for (a, b), (c, d) in itertools.combinations(pieces, 2))
    return total


def bends(rows: list[list[Item]]) -> float:
    """How far arrows go sideways, as shares of the rows' lengths."""
    return sum(
        abs((i + 0.5) / len(upper) - (j + 0.5) / len(lower))
        for upper, lower in itertools.pairwise(rows)
        for i, j in links(upper, lower)
    )


def improved(rows: list[list[Item]]) -> list[list[Item]]:
    """The rows with items moved one after another while that helps."""
    best = (crossings(rows), bends(rows))
    changed = True
    while changed:
        changed = False
        for number in range(len(rows)):
            for i, j in itertools.permutations(range(len(rows[number])), 2):
                row = rows[number]
                moved = row[:i] + row[i + 1 :]
                moved.insert(j, row[i])
                tried = [*rows[:number], moved, *rows[number + 1 :]]
                if (cost := (crossings(tried), bends(tried))) < best:
                    rows, best, changed = tried, cost, True
    return rows


def centres(rows: list[list[Item]]) -> list[list[float]]:
    """The middle of each item: near the middles of what it is joined to, without touching its neighbours."""
    at = []
    for row in rows:
        free = WIDTH - 2 * MARGIN - sum(item.width for item in row)
        space, x, places = free / (len(row) + 1), MARGIN, []
        for item in row:
            x += space
            places.append(x + item.width / 2)
            x += item.width
        at.append(places)
    for _ in range(60):
        for number, row in enumerate(rows):
            wanted: list[list[float]] = [[] for _ in row]
            if number:
                for i, j in links(rows[number - 1], row):
                    wanted[j].append(at[number - 1][i])
            if number + 1 < len(rows):
                for i, j in links(row, rows[number + 1]):
                    wanted[i].append(at[number + 1][j])
            middles = [
                sum(values) / len(values) if values else x
                for values, x in zip(wanted, at[number], strict=True)
            ]
            at[number] = apart(row, [(x + middle) / 2 for x, middle in zip(at[number], middles, strict=True)])
    left = min(places[0] - row[0].width / 2 for row, places in zip(rows, at, strict=True))
    right = max(places[-1] + row[-1].width / 2 for row, places in zip(rows, at, strict=True))
    return [[x + (WIDTH - left - right) / 2 for x in places] for places in at]


def apart(row: list[Item], places: list[float]) -> list[float]:
    """Places moved as far as needed: to the right of what is left of them, and within the picture."""
    found, edge = [], float(MARGIN)
    for item, x in zip(row, places, strict=True):
        found.append(max(x, edge + item.width / 2))
        edge = found[-1] + item.width / 2 + GAP
    edge = float(WIDTH - MARGIN)
    for i in range(len(row) - 1, -1, -1):
        found[i] = min(found[i], edge - row[i].width / 2)
        edge = found[i] - row[i].width / 2 - GAP
    return found


def picture() -> Iterator[str]:
    rows = layout()
    at = centres(rows)
    texts = {
        room.name: textwrap.wrap(first_sentence(room / "__init__.py").replace("`", ""), 28)
        for room in rooms()
    }
    heights = [34 + LINE * max(len(texts[item.source]) for item in row if not item.target) for row in rows]
    tops = [MARGIN + sum(heights[:i]) + i * BETWEEN for i in range(len(rows))]
    ground = textwrap.wrap(", ".join(path.stem for path in modules(PACKAGE)), 120)
    floor = tops[-1] + heights[-1] + 28
    height = floor + 34 + LINE * len(ground) + MARGIN
    ordered = [item.source for row in rows for item in row if not item.target]
    colour = dict(zip(ordered, itertools.cycle(COLOURS), strict=False))
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    yield f'<svg xmlns="http://www.w3.org/2000/svg" {size}'
    yield '  font-family="Helvetica, Arial, sans-serif" font-size="12" role="img" aria-labelledby="title">'
    yield '<title id="title">The eight rooms of topdown_ray. Each arrow is an import.</title>'
    yield "<!-- made by scripts/make/rooms.py -->"
    yield f'<rect width="{WIDTH}" height="{height}" rx="10" fill="#ffffff" stroke="#d1d5db"/>'
    for name, path, (x, y) in paths(rows, at, tops, heights):
        source, _, target = name.partition(" ")
        tip = f"M{x - 4:.0f} {y - 8:.0f}L{x:.0f} {y:.0f}L{x + 4:.0f} {y - 8:.0f}Z"
        yield f'<g fill="none" stroke="{colour[source]}" stroke-width="1.6">'
        yield f"<title>{source} imports {target}</title>"
        yield f'<path d="{path}"/><path d="{tip}" fill="{colour[source]}"/></g>'
    for row, places, top, tall in zip(rows, at, tops, heights, strict=True):
        for item, x in zip(row, places, strict=True):
            if not item.target:
                yield from box(
                    x - BOX / 2, top, BOX, tall, item.source, texts[item.source], colour[item.source]
                )
    name, tall = "the ground floor, which every room can import", 34 + LINE * len(ground)
    yield from box(MARGIN, floor, WIDTH - 2 * MARGIN, tall, name, ground, "#6b7280")
    yield "</svg>"


def box(
    x: float, y: float, width: float, height: float, name: str, lines: list[str], colour: str
) -> Iterator[str]:
    yield f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" rx="6" fill="#f9fafb"'
    yield f'  stroke="{colour}" stroke-width="1.6"/>'
    yield f'<text x="{x + 12:.0f}" y="{y + 21:.0f}" font-size="14" font-weight="bold"'
    yield f'  fill="{colour}">{name}</text>'
    for number, line in enumerate(lines):
        at = f'x="{x + 12:.0f}" y="{y + 39 + LINE * number:.0f}"'
        yield f'<text {at} fill="#111827">{escape(line, quote=False)}</text>'


def paths(
    rows: list[list[Item]], at: list[list[float]], tops: list[int], heights: list[int]
) -> Iterator[tuple[str, str, tuple[float, float]]]:
    """Each arrow: the names of its rooms, its path, and its tip."""
    where = {
        item: (number, at[number][i])
        for number, row in enumerate(rows)
        for i, item in enumerate(row)
        if not item.target
    }
    lanes = {
        (item.source, item.target, number): at[number][i]
        for number, row in enumerate(rows)
        for i, item in enumerate(row)
        if item.target
    }
    every = [(item.source, target) for item in where for target in sorted(arrows(PACKAGE / item.source))]
    leaving: dict[str, list[tuple[float, tuple[str, str]]]] = {}
    coming: dict[str, list[tuple[float, tuple[str, str]]]] = {}
    for source, target in every:
        first, last = where[Item(source)][0], where[Item(target)][0]
        after = lanes.get((source, target, first + 1), where[Item(target)][1])
        before = lanes.get((source, target, last - 1), where[Item(source)][1])
        leaving.setdefault(source, []).append((after, (source, target)))
        coming.setdefault(target, []).append((before, (source, target)))
    begin = ports(leaving, where)
    end = ports(coming, where)
    for source, target in every:
        first, last = where[Item(source)][0], where[Item(target)][0]
        points = [(begin[source, target], tops[first] + heights[first])]
        for number in range(first + 1, last):
            x = lanes[source, target, number]
            points += [(x, tops[number]), (x, tops[number] + heights[number])]
        x, y = end[source, target], tops[last] - 1
        points.append((x, y))
        path = f"M{points[0][0]:.0f} {points[0][1]:.0f}"
        for number, ((x0, y0), (x1, y1)) in enumerate(itertools.pairwise(points)):
            if number % 2:
                path += f"L{x1:.0f} {y1:.0f}"
            else:
                reach = (y1 - y0) / 2
                path += f"C{x0:.0f} {y0 + reach:.0f} {x1:.0f} {y1 - reach:.0f} {x1:.0f} {y1:.0f}"
        yield f"{source} {target}", path, (x, y)


def ports(
    sides: dict[str, list[tuple[float, tuple[str, str]]]], where: dict[Item, tuple[int, float]]
) -> dict[tuple[str, str], float]:
    """Where arrows meet the edge of their room: evenly spread, in the order of where they come from."""
    found = {}
    for room, joined in sides.items():
        left = where[Item(room)][1] - BOX / 2
        for number, (_, arrow) in enumerate(sorted(joined)):
            found[arrow] = left + BOX * (number + 1) / (len(joined) + 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="Write the page to this file, and nothing else.")
    parser.add_argument("--picture", type=Path, help="Write the picture to this file, and nothing else.")
    arguments = parser.parse_args()
    both = arguments.out is None and arguments.picture is None
    if both or arguments.out:
        (arguments.out or PAGE).write_text(INTRODUCTION + "\n".join(page()) + "\n")
    if both or arguments.picture:
        (arguments.picture or PICTURE).write_text("\n".join(picture()) + "\n")


if __name__ == "__main__":
    main()
