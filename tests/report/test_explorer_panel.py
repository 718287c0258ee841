"""The panel of an architecture in the explorer: every space, and what is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys
from support import synthetic
from support.explorer_reader import ROWS, Reader, paged, wait
from support.sweeping import ALL_SPACES
from support.sweeping import run as sweep

from topdown_ray import load
from topdown_ray.networks.supernet import Supernet
from topdown_ray.spaces.registry import SPACES


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("panels") / "all"
    sweep(ALL_SPACES, folder, strategies=["top_down"], seeds=1)
    return folder


def described(space: str, arch: dict[str, Any]) -> list[tuple[int, ...]]:
    """Kernel and output channels of the layers that OFA lists, poolings left out."""
    found: list[tuple[int, ...]] = []
    for line in Supernet(SPACES[space]).describe(arch).splitlines():
        if match := re.search(r"\bO(\d+), (?:E[\d.]+, )?K(\d)", line):
            found.append((int(match[2]), int(match[1])))
        elif match := re.search(r"(\d)x\d_(?:(?:MB)?Conv.*_O|Bottleneck.*->)(\d+)", line):
            found.append((int(match[1]), int(match[2])))
    return found


def test_every_space_is_drawn_as_ofa_lists_it(chromium: Any, swept: Path) -> None:
    reader = Reader(chromium, paged(swept))
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
        rows = load(swept).searches
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
    assert (
        reader.text(".costs") == "Shares are not shown, because the report was made without the cost table."
    )
    assert not reader.one(".layers").is_displayed()
    assert len(reader.run(ROWS)) == 2 + 5 * 2 + 4
    assert not any("%" in cell for cells in reader.run(ROWS) for cell in cells)
    unknown = searches.assign(arch='{"a": ["<b>"]}', space="elsewhere")
    reader = Reader(chromium, paged(synthetic.write(tmp_path / "space", unknown, trace)))
    reader.one(".show").click()
    assert reader.text(".costs").startswith("The layers of this architecture are not shown")
    assert reader.text(".config") == '{"a": ["<b>"]}'
    assert not reader.one(".copy-export").is_enabled()
    assert reader.run(ROWS) == []


def test_layers_without_costs_of_their_own_share_that_of_their_group(chromium: Any, swept: Path) -> None:
    html = paged(swept).read_text()
    begin = html.index(">", html.index('id="explorer-data"')) + 1
    told = json.loads(html[begin : html.index("</script>", begin)])
    for subject in told["subjects"]:
        subject["costs"][0] = [sum(costs) for costs in subject["costs"][0]]
    path = swept / "groups.html"
    path.write_text(
        html[:begin] + json.dumps(told).replace("<", "\\u003c") + html[html.index("</script>", begin) :]
    )
    reader = Reader(chromium, path)
    reader.one(".show").click()
    rows = reader.run(ROWS)
    assert [cells[3] for cells in rows[:-1]].count("in group 1") == 6
    assert rows[-1][0] == "group 1: its layers together"
    costs = [float(cells[4]) for cells in rows[:-1] if cells[4]] + [float(rows[-1][2])]
    cost = re.search(r"Shares are parts of ([\d.]+) x", reader.text(".costs"))
    assert cost is not None
    assert sum(costs) == pytest.approx(float(cost[1]), rel=2e-3)
