"""The pages with their numbers: tables between markers, and sentences that quote stored tables.

A marked table is the text between ``<!-- table: NAME -->`` and ``<!-- end -->``. A sentence is found by the
words of a template (:mod:`results_pages.quotes`), whose fields match any number."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from results_pages.markdown import marked
from results_pages.quotes import QUOTES, values
from results_pages.stored import ROOT, Stored

MARKED = re.compile(r"(?<=<!-- table: )(\w+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)
_FIELD = re.compile(r"\{[^}]+\}")
_NUMBER = r"-?\d[\d,]*(?:\.\d+)?"


def pattern(template: str) -> re.Pattern[str]:
    """What finds the sentence of a template: any numbers, any line breaks."""
    words = [r"\s+".join(map(re.escape, part.split(" "))) for part in _FIELD.split(template)]
    return re.compile(_NUMBER.join(words))


def filled(template: str, found: str, numbers: Mapping[str, float]) -> str:
    """The sentence as it was found, with the numbers of the stored tables."""
    fields = iter([field.format(**numbers) for field in _FIELD.findall(template)])
    words = [r"(\s+)".join(map(re.escape, part.split(" "))) for part in _FIELD.split(template)]
    pieces = re.fullmatch(f"({_NUMBER})".join(words), found)
    assert pieces
    text, end = "", 0
    for i in range(1, len(pieces.groups()) + 1):
        group = pieces[i]
        text += found[end : pieces.start(i)] + (group if group.isspace() else next(fields))
        end = pieces.end(i)
    return text + found[end:]


def written(tables: Mapping[str, Stored]) -> dict[Path, str]:
    """All pages with the numbers of these tables.

    Raises SystemExit where a page does not have a sentence exactly once."""
    found: dict[Path, str] = {}
    numbers = values(tables)
    for name, templates in QUOTES.items():
        page = ROOT / name
        text = MARKED.sub(
            lambda match: f"{match[1]}{match[2]}\n{marked(match[1], tables)}\n\n", page.read_text()
        )
        for template in templates:
            matches = pattern(template).findall(text)
            if len(matches) != 1:
                raise SystemExit(f"{name}: expected once, found {len(matches)} times: {template}")
            text = pattern(template).sub(lambda match: filled(template, match[0], numbers), text)  # noqa: B023
        found[page] = text
    return found


def unexplained(name: str, text: str) -> list[str]:
    """The numbers of a page that neither a marked table nor a template accounts for."""
    text = re.sub(r"(?m)^\|.*$", "", MARKED.sub("", text))
    text = re.sub(r"```.*?```|<!--.*?-->|(?<=\]\()[^)]*|https?://\S+", " ", text, flags=re.DOTALL)
    for template in QUOTES[name]:
        text = pattern(template).sub(" ", text)
    return re.findall(r"(?<![\w.])\d[\d.,]*", text)
