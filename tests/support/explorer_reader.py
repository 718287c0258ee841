"""The explorer of a report, open in a browser: a page with it alone, and what a reader does with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

from support.reporting import context_of
from topdown_ray.report.page import Top, page
from topdown_ray.report.sections.explorer import explorer

# the canvas' place on the page, and where a cost and an accuracy lie on it
PLACE = """
const canvas = document.querySelector('.explorer canvas'), view = document.querySelector('.canvas').vegaView;
canvas.scrollIntoView({block: 'center'});
const box = canvas.getBoundingClientRect(), [left, top] = view.origin(), inside = view.padding();
return [box.left + inside.left + left + view.scale('x')(arguments[0]),
        box.top + inside.top + top + view.scale('y')(arguments[1])];
"""
ROWS = """
return [...document.querySelectorAll('.drawing tbody tr')].map(
  row => [...row.cells].map(cell => cell.textContent));
"""


def wait(condition: Callable[[], Any], what: str = "") -> Any:
    for _ in range(100):
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited ten seconds in vain {what}")


class Reader:
    """A browser with the explorer open."""

    def __init__(self, chromium: Any, path: Path) -> None:
        self.chromium = chromium
        chromium.get_log("browser")
        chromium.get_log("performance")
        chromium.get(path.as_uri())
        self.ready()

    def run(self, script: str, *values: Any) -> Any:
        return self.chromium.execute_script(script, *values)

    def ready(self, ends: str = "") -> None:
        ask = "return document.querySelector('.explorer').dataset.ready ?? ''"
        wait(lambda: (state := self.run(ask)) and state.endswith(ends))

    def one(self, selector: str) -> Any:
        return self.chromium.find_element(By.CSS_SELECTOR, f".explorer {selector}")

    def text(self, selector: str) -> str:
        return self.run("return document.querySelector(arguments[0]).textContent", f".explorer {selector}")

    def at(self, row: Any) -> ActionChains:
        """The mouse over an answer."""
        x, y = self.run(PLACE, row["cost"], 100 * row["accuracy"])
        actions = ActionChains(self.chromium)
        actions.w3c_actions.pointer_action.move_to_location(round(x), round(y))
        return actions

    def box(self, name: str) -> Any:
        return self.run(
            "return [...document.querySelectorAll('.explorer input')].find(x => x.value === arguments[0])",
            name,
        )

    def limit(self, value: float) -> str:
        self.run(
            "const field = document.querySelector('.explorer input[type=number]');"
            "field.value = arguments[0]; field.dispatchEvent(new Event('input'))",
            value,
        )
        return self.text("output")

    def copied(self, button: str) -> str:
        """What a button copies, by the event that the page's own copying raises."""
        self.run(
            "window.copied = ''; document.addEventListener('copy', event =>"
            " { window.copied = event.target.value ?? getSelection().toString(); })"
        )
        self.one(button).click()
        wait(lambda: self.text(".copied"))
        assert "Copied" in self.text(".copied")
        return self.run("return window.copied")


def paged(folder: Path, title: str = "explorer") -> Path:
    """A page with the explorer alone."""
    section = explorer(context_of(folder))
    assert section is not None
    path = folder / "explorer.html"
    path.write_text(page(Top(title, [], [], []), [section]))
    return path
