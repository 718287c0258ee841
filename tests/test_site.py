"""The site of the documentation: it builds without a warning, loads nothing from elsewhere, and is readable
on a telephone and on a desktop.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from support.browsing import look_like

pytestmark = pytest.mark.slow

#: Tags and attributes whose URL a browser loads with a page.
LOADED = {("script", "src"), ("link", "href"), ("img", "src"), ("source", "src"), ("iframe", "src")}


class Loads(HTMLParser):
    """What a page loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.styles: list[str] = re.findall(r"<style[^>]*>(.*?)</style>", text, re.DOTALL)
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "link" and found.get("rel") in ("canonical", "next", "prev"):
            return
        self.urls += [value or "" for name, value in attrs if (tag, name) in LOADED]
        self.styles.append(found.get("style") or "")


def fetched_by_css(text: str) -> list[str]:
    urls = re.findall(r"url\(\s*[\"']?([^\"')]+)", text) + re.findall(r"@import\s+[\"']([^\"']+)", text)
    return [url for url in urls if not url.startswith(("data:", "#"))]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def pages_of(nav: Any) -> list[str]:
    """The Markdown files of the navigation."""
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [page for part in parts for page in pages_of(part)]


def navigation() -> list[str]:
    text = (ROOT / "mkdocs.yml").read_text()
    return [page.replace(".md", ".html") for page in pages_of(yaml.safe_load(text)["nav"])]


def test_every_page_of_the_navigation_is_there_and_says_something(site: Path) -> None:
    pages = navigation()
    assert len(pages) > 40
    for page in pages:
        text = (site / page).read_text()
        assert text.count("<h1") == 1, page
        assert len(re.sub(r"<[^>]+>", "", text.partition("<article")[2].partition("</article>")[0])) > 300, (
            page
        )


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    html, css = [*site.rglob("*.html")], [*site.rglob("*.css")]
    assert len(html) > 40
    assert css
    found = [(file, url) for file in css for url in fetched_by_css(file.read_text())]
    for file in html:
        loads = Loads(file.read_text())
        assert loads.urls
        found += [(file, url) for url in loads.urls]
        found += [(file, url) for style in loads.styles for url in fetched_by_css(style)]
    for file, url in found:
        assert not re.match(r"[a-z]+:|//", url), f"{file.relative_to(site)}: {url}"
        if not url.startswith("/"):  # of the page for addresses that do not exist
            assert (file.parent / re.split(r"[?#]", url)[0]).exists(), f"{file.relative_to(site)}: {url}"


def test_the_reference_describes_every_public_name(site: Path) -> None:
    import topdown_ray

    text = (site / "reference" / "python.html").read_text()
    for name in topdown_ray.__all__:
        anchor = "topdown_ray.sweeps.events" if name == "events" else f"topdown_ray.{name}"
        assert f'id="{anchor}"' in text, name


def test_every_parameter_of_the_reference_is_described(site: Path) -> None:
    """A table of parameters has a cell of text for each of them."""
    text = (site / "reference" / "python.html").read_text()
    cells = re.findall(r'<div class="doc-md-description">\s*(.*?)\s*</div>', text, re.DOTALL)
    assert len(cells) > 100
    assert all(re.sub(r"<[^>]+>", "", cell).strip() for cell in cells)
    assert (
        re.findall(r":(?:class|func|meth|mod|data):", text) == []
    )  # roles of Sphinx, which are shown as they are


def requested(chromium: Any) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


OVERFLOW = """
const most = document.documentElement.clientWidth;
return [document.documentElement.scrollWidth, document.body.scrollWidth].some(width => width > most + 1);
"""


@pytest.mark.parametrize("width", [400, 1280])
def test_no_page_is_wider_than_the_window(site: Path, chromium: Any, width: int) -> None:
    """Wide tables and long lines of code scroll by themselves."""
    look_like(chromium, width, "light")
    wide = []
    for page in navigation():
        chromium.get((site / page).as_uri())
        if chromium.execute_script(OVERFLOW):
            wide.append(page)
    assert wide == []
    assert [url for url in requested(chromium) if not url.startswith(("file:", "data:", "blob:"))] == []
    assert [entry for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_search_finds_a_word(site: Path, chromium: Any) -> None:
    """Without a server: the pages are opened from a folder."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    chromium.get((site / "index.html").as_uri())
    field = chromium.find_element(By.CSS_SELECTOR, "input.md-search__input")
    chromium.execute_script("arguments[0].focus()", field)
    field.send_keys("hypervolume")
    wait = WebDriverWait(chromium, 30)
    links = wait.until(lambda it: it.find_elements(By.CSS_SELECTOR, ".md-search-result__link"))
    assert any("glossary.html" in link.get_attribute("href") for link in links)
