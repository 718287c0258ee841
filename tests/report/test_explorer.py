"""The explorer of a report in a real browser: what a reader points at, clicks, types and copies."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from support import synthetic
from support.browsing import browser
from support.reporting import context_of
from support.sweeping import ALL_SPACES
from support.sweeping import run as sweep
from typer.testing import CliRunner

from topdown_ray import Results, load
from topdown_ray.cli.main import app
from topdown_ray.networks.supernet import Supernet
from topdown_ray.report.page import page
from topdown_ray.report.sections.explorer import explorer
from topdown_ray.spaces.registry import SPACES

EVIL = "<script>alert(1)</script>"
LABEL = "td \"<b>'&"
SMALL = {
    "name": EVIL,
    "spaces": ["mobilenet_v3"],
    "strategies": ["independent", {"name": "top_down", "label": LABEL}, "joint"],
    "cost": "epyc_1thread",
    "predictor": "embedded",
    "targets": [[40], [40, 35, 30]],
    "seeds": 5,
    "search": {"population": 20, "generations": 6, "warm_generations": 3},
}
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


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return sweep(SMALL, tmp_path_factory.mktemp("explored") / "run")


def paged(folder: Path) -> Path:
    """A page with the explorer alone."""
    section = explorer(context_of(folder))
    assert section is not None
    path = folder / "explorer.html"
    path.write_text(page(EVIL, [], [], [section]))
    return path


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    driver = browser(1280, "light")
    yield driver
    driver.quit()


@pytest.fixture
def reader(chromium: Any, swept: Results) -> Iterator[Reader]:
    assert swept.place is not None
    path = Path(swept.place.name) / "explorer.html"
    reader = Reader(chromium, path if path.exists() else paged(path.parent))
    # clipboards of headless browsers are not shared: take the way of a page that has none
    reader.run("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    yield reader
    assert chromium.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in urls if not url.startswith(("file:", "data:", "blob:"))] == []


def an_answer(rows: pd.DataFrame) -> Any:
    """An answer that lies apart from all others."""
    x, y = rows["cost"] / rows["cost"].std(), rows["accuracy"] / rows["accuracy"].std()
    apart = [((x - x[i]) ** 2 + (y - y[i]) ** 2).drop(i).min() for i in rows.index]
    return rows.loc[rows.index[pd.Series(apart).argmax()]]


# --- pointing and choosing


def test_pointing_at_an_answer_shows_its_numbers(reader: Reader, swept: Results) -> None:
    row = an_answer(swept.searches)
    reader.at(row).perform()
    rows = (
        "return [...document.querySelectorAll('#vg-tooltip-element.visible tr')].map("
        "row => [...row.cells].map(cell => cell.textContent))"
    )
    cells = dict(wait(lambda: reader.run(rows)))
    assert cells["strategy"] == row["label"]
    assert cells["target"] == f"{row['target']:g} ms"
    assert float(cells["cost"].removesuffix(" ms")) == round(row["cost"], 4)
    assert cells["top-1"] == f"{100 * row['accuracy']:.4f} %"
    assert int(cells["seed"]) == row["seed"]
    assert float(cells["MACs (1e6)"]) == pytest.approx(row["macs_m"], rel=1e-3)
    assert float(cells["parameters (1e6)"]) == pytest.approx(row["params_m"], rel=1e-3)
    assert re.fullmatch(r"\d\d\.\d\d to \d\d\.\d\d % \(n = 5\)", cells["95 % of the cell's IQM"])


def test_a_click_draws_the_architecture_and_buttons_copy_it(
    reader: Reader, swept: Results, tmp_path: Path
) -> None:
    row = an_answer(swept.searches)
    reader.at(row).click().perform()
    wait(lambda: reader.one(".panel").is_displayed())
    assert f"{100 * row['accuracy']:.2f} %" in reader.text(".panel h3")
    assert f"seed {row['seed']}" in reader.text(".panel h3")
    rows = reader.run(ROWS)
    assert sum(float(cells[4]) for cells in rows) == pytest.approx(row["cost"], rel=2e-3)
    assert sum(float(cells[3].removesuffix(" %")) for cells in rows) == pytest.approx(100, abs=1.5)
    assert reader.copied(".copy-config") == row["arch"]
    program, command, *arguments = shlex.split(reader.copied(".copy-export"))
    assert (program, command) == ("topdown-ray", "export")
    assert json.loads(arguments[0]) == json.loads(row["arch"])
    arguments[arguments.index("--out") + 1] = str(tmp_path / "out")
    random = ["--weights", "random", "--allow-random-weights"]  # the published ones may not be here
    result = CliRunner().invoke(app, [command, *arguments, *random], catch_exceptions=False)
    assert result.exit_code == 0
    assert json.loads((tmp_path / "out" / "arch.json").read_text()) == json.loads(row["arch"])
    reader.one(".close").click()
    assert not reader.one(".panel").is_displayed()


def test_the_keyboard_walks_by_cost_and_opens(reader: Reader, swept: Results) -> None:
    by_cost = swept.searches.sort_values("cost")
    chart = reader.one(".chart")
    assert chart.get_attribute("aria-label")
    assert reader.run("return document.getElementById(arguments[0]).textContent", "explorer-hint")
    chart.send_keys(Keys.HOME)
    assert reader.text(".spoken").startswith(f"Answer 1 of {len(by_cost)}: ")
    assert f"{by_cost['cost'].iloc[0]:.2f} ms" in reader.text(".spoken")
    chart.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert f"{by_cost['cost'].iloc[1]:.2f} ms" in reader.text(".spoken")
    chart.send_keys(Keys.END)
    assert f"{by_cost['cost'].iloc[-1]:.2f} ms" in reader.text(".spoken")
    chart.send_keys(Keys.ENTER)
    assert reader.one(".panel").is_displayed()
    assert reader.run("return document.activeElement.id") == "explorer-architecture"
    ActionChains(reader.chromium).send_keys(Keys.ESCAPE).perform()
    assert not reader.one(".panel").is_displayed()


def test_toggles_and_the_limit_name_what_pandas_names(reader: Reader, swept: Results) -> None:
    rows = swept.searches.assign(set=swept.searches["k"].map({1: "40", 3: "40 35 30"}))

    def best(limit: float, front: bool = False) -> str:
        parts = [rows[~rows["label"].isin(off) & ~rows["set"].isin(off)]]
        if front and not off:
            parts.append(swept.front)
        all_of_them = pd.concat(parts)
        fits = all_of_them[all_of_them["cost"] <= limit]
        row = fits.sort_values(["accuracy", "cost"], ascending=[False, True]).iloc[0]
        return f"{100 * row['accuracy']:.2f} % at {row['cost']:.2f} ms, {row['label']}, "

    off: set[str] = set()
    costs = sorted(rows["cost"])
    assert reader.one("output").get_attribute("aria-live") == "polite"
    for limit in (costs[3] + 0.01, costs[len(costs) // 2] + 0.01, costs[-1] + 0.01):
        assert best(limit, front=True) in reader.limit(limit)
    reader.box("fronts of searches").click()
    for name in ("joint", "40", LABEL):
        reader.box(name).send_keys(Keys.SPACE)
        off.add(name)
        for limit in (costs[len(costs) // 2] + 0.01, costs[-1] + 0.01):
            assert best(limit) in reader.limit(limit)
        on_chart = reader.run("return document.querySelector('.canvas').vegaView.data('answers').length")
        assert on_chart == len(rows[~rows["label"].isin(off) & ~rows["set"].isin(off)])
    assert "none of the answers" in reader.limit(costs[0] / 2)
    assert not reader.one(".show").is_enabled()
    reader.limit(costs[-1] + 0.01)
    reader.one(".show").click()
    assert best(costs[-1] + 0.01) in reader.text(".panel h3")
    reader.box("independent").click()
    assert "none of the answers" in reader.text("output")


def test_the_slider_and_its_number_agree(reader: Reader) -> None:
    slider = reader.one("input[type=range]")
    slider.send_keys(Keys.END)
    assert reader.one("input[type=number]").get_property("value") == slider.get_property("value")
    shown = float(slider.get_property("value"))
    rule = reader.run("return document.querySelector('.canvas').vegaView.data('limit')[0].cost")
    assert rule == shown
    assert f"At most {shown:.2f} ms: " in reader.text("output")


# --- the page around it


def test_every_control_has_a_name(reader: Reader) -> None:
    nameless = reader.run("""
return [...document.querySelectorAll('.explorer :is(input, select, button)')].filter(element =>
  !(element.labels?.length || element.getAttribute('aria-label') || element.textContent.trim())
).map(element => element.outerHTML);""")
    assert nameless == []
    legends = reader.run(
        "return [...document.querySelectorAll('.explorer fieldset legend')].map(x => x.innerText)"
    )
    assert legends == ["Strategies", "Target sets", "Show"]


def test_names_of_users_are_text(reader: Reader) -> None:
    assert LABEL in reader.text(".strategies")
    assert reader.run("return document.querySelectorAll('.explorer b').length") == 0
    assert reader.chromium.title == EVIL


def test_paper_has_no_explorer(reader: Reader) -> None:
    def displayed() -> str:
        return reader.run("return getComputedStyle(document.querySelector('#explorer')).display")

    assert displayed() == "block"
    reader.chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert displayed() == "none"
    reader.chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_dark_and_light_follow_the_browser(reader: Reader) -> None:
    def ink(scheme: str) -> Any:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        reader.chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        reader.ready(scheme)
        return reader.run("""
const canvas = document.querySelector('.explorer canvas');
const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
let sum = 0, n = 0;
for (let i = 0; i < pixels.length; i += 4)
  if (pixels[i + 3] > 200 && Math.abs(pixels[i] - pixels[i + 2]) < 30) { sum += pixels[i]; n += 1; }
return sum / n;""")

    light, dark = ink("light"), ink("dark")
    assert ink("light") == light
    assert light != dark


@pytest.mark.parametrize("width", [400, 1280, 1920])
def test_no_width_scrolls_sideways(reader: Reader, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    reader.chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    reader.one(".show").click()
    box = "return document.querySelector('.explorer {}').getBoundingClientRect().right"
    wait(lambda: reader.run(box.format("canvas")) <= width)
    assert reader.run("return document.documentElement.scrollWidth") <= width
    assert reader.run(box.format(".panel")) <= width
    metrics.update(width=1280, mobile=False)
    reader.chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


# --- every space


def described(space: str, arch: dict[str, Any]) -> list[tuple[int, ...]]:
    """Kernel and output channels of the layers that OFA lists, poolings left out."""
    found: list[tuple[int, ...]] = []
    for line in Supernet(SPACES[space]).describe(arch).splitlines():
        if match := re.search(r"\bO(\d+), (?:E[\d.]+, )?K(\d)", line):
            found.append((int(match[2]), int(match[1])))
        elif match := re.search(r"(\d)x\d_(?:(?:MB)?Conv.*_O|Bottleneck.*->)(\d+)", line):
            found.append((int(match[1]), int(match[2])))
    return found


def test_every_space_is_drawn_as_ofa_lists_it(chromium: Any, tmp_path: Path) -> None:
    results = sweep(ALL_SPACES, tmp_path / "all", strategies=["top_down"], seeds=1)
    reader = Reader(chromium, paged(tmp_path / "all"))
    names = reader.run("return [...document.querySelector('.explorer select').options].map(x => x.value)")
    assert len(names) == 3
    for name in names:
        reader.run(
            "const select = document.querySelector('.explorer select'); select.value = arguments[0];"
            "select.dispatchEvent(new Event('change'))",
            name,
        )
        wait(
            lambda name=name: (
                reader.run("return document.querySelector('.explorer').dataset.ready") == f"{name} light"
            )
        )
        space = name.split("*")[0].split(" ")[0]
        rows = load(results.place.name).searches  # type: ignore[union-attr]
        cheapest = rows[rows["space"] == space].sort_values("cost").iloc[0]
        reader.one(".chart").send_keys(Keys.HOME, Keys.ENTER)
        drawn = [cells for cells in reader.run(ROWS) if "pooling" not in cells[2]]
        shapes = [(int(cells[5][0]), int(cells[7].split(" ")[-1])) for cells in drawn if cells[5]]
        assert shapes == described(space, json.loads(cheapest["arch"]))
        assert drawn[-1][2] == "classifier"
        assert sum(float(cells[4]) for cells in reader.run(ROWS)) == pytest.approx(cheapest["cost"], rel=2e-3)
    assert chromium.get_log("browser") == []


def test_what_is_missing_is_said(chromium: Any, tmp_path: Path) -> None:
    searches, trace = synthetic.frames({"top_down": 0.0}, seeds=2)
    arch = json.dumps(SPACES["mobilenet_v3"].to_config([0] * SPACES["mobilenet_v3"].G))
    reader = Reader(chromium, paged(synthetic.write(tmp_path / "table", searches.assign(arch=arch), trace)))
    reader.one(".show").click()
    assert reader.text(".costs") == "The cost table is not available here, so shares are left out."
    assert not reader.one(".layers").is_displayed()
    assert len(reader.run(ROWS)) == 2 + 5 * 2 + 4
    assert not any("%" in cell for cells in reader.run(ROWS) for cell in cells)
    unknown = searches.assign(arch='{"a": ["<b>"]}', space="elsewhere")
    reader = Reader(chromium, paged(synthetic.write(tmp_path / "space", unknown, trace)))
    reader.one(".show").click()
    assert reader.text(".costs").startswith("The layers of this architecture are not known here")
    assert reader.text(".config") == '{"a": ["<b>"]}'
    assert not reader.one(".copy-export").is_enabled()
    assert reader.run(ROWS) == []


def test_layers_without_costs_of_their_own_share_that_of_their_group(chromium: Any, swept: Results) -> None:
    assert swept.place is not None
    html = paged(Path(swept.place.name)).read_text()
    begin = html.index(">", html.index('id="explorer-data"')) + 1
    told = json.loads(html[begin : html.index("</script>", begin)])
    for subject in told["subjects"]:
        subject["costs"][0] = [sum(costs) for costs in subject["costs"][0]]
    path = Path(swept.place.name) / "groups.html"
    path.write_text(
        html[:begin] + json.dumps(told).replace("<", "\\u003c") + html[html.index("</script>", begin) :]
    )
    reader = Reader(chromium, path)
    reader.one(".show").click()
    rows = reader.run(ROWS)
    assert [cells[3] for cells in rows[:-1]].count("in group 1") == 6
    assert rows[-1][0] == "group 1: its layers together"
    costs = [float(cells[4]) for cells in rows[:-1] if cells[4]] + [float(rows[-1][2])]
    cost = re.search(r"the shares are of ([\d.]+) ms", reader.text(".costs"))
    assert cost is not None
    assert sum(costs) == pytest.approx(float(cost[1]), rel=2e-3)
