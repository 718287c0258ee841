"""The explorer of a report in a real browser: what a reader points at, clicks, types and copies."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from support.explorer_reader import ROWS, Reader, paged, wait
from support.sweeping import run as sweep
from typer.testing import CliRunner

from topdown_ray import Results
from topdown_ray.cli.main import app

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


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return sweep(SMALL, tmp_path_factory.mktemp("explored") / "run")


@pytest.fixture
def reader(chromium: Any, swept: Results) -> Iterator[Reader]:
    assert swept.place is not None
    path = Path(swept.place.name) / "explorer.html"
    reader = Reader(chromium, path if path.exists() else paged(path.parent, EVIL))
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
    assert re.fullmatch(r"\d\d\.\d\d to \d\d\.\d\d % \(n = 5\)", cells["95 % interval of the IQM over seeds"])


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


def test_what_is_copied_is_what_the_panel_shows(reader: Reader, swept: Results) -> None:
    """Also after the keyboard has walked on to another answer."""
    reader.at(an_answer(swept.searches)).click().perform()
    wait(lambda: reader.one(".panel").is_displayed())
    reader.one(".chart").send_keys(Keys.HOME)
    assert reader.copied(".copy-config") == an_answer(swept.searches)["arch"]
    assert shlex.split(reader.copied(".copy-export"))[2] == an_answer(swept.searches)["arch"]
    reader.one(".close").click()


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
    assert "Nothing in the chart costs at most" in reader.limit(costs[0] / 2)
    assert not reader.one(".show").is_enabled()
    reader.limit(costs[-1] + 0.01)
    reader.one(".show").click()
    assert best(costs[-1] + 0.01) in reader.text(".panel h3")
    reader.box("independent").click()
    assert "Nothing in the chart costs at most" in reader.text("output")


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
