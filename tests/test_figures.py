"""The results pages: their tables, sentences and pictures are those of the stored tables.

If it fails: python scripts/make/figures.py --stored
"""

import json
import re
import sys
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts" / "make"))

from results_pages import pages, pictures, stored
from results_pages.markdown import MARKED, marked
from results_pages.measurements import FROM_FILES
from results_pages.quotes import QUOTES
from results_pages.sweeps import FROM_SWEEPS, SPENT, SWEEPS

from topdown_ray.files import data
from topdown_ray.hardware.whole_subnets import sum_errors
from topdown_ray.spaces import latency_table
from topdown_ray.spaces.cost import load_cost
from topdown_ray.spaces.mobilenet_v3 import MOBILENET_V3

RESULTS = [name for name in QUOTES if name.startswith("docs/results/")]
TABLES = stored.Tables()


def test_the_pages_are_those_of_the_stored_tables() -> None:
    """Tables between markers and quoted sentences, letter by letter."""
    for page, text in pages.written(TABLES).items():
        assert page.read_text() == text, page.name


@pytest.mark.parametrize("name", RESULTS)
def test_every_number_of_a_results_page_has_a_source(name: str) -> None:
    assert pages.unexplained(name, (ROOT / name).read_text()) == []


def test_every_table_of_the_results_pages_is_made() -> None:
    """All of them but the table of optimisations, which is a record of decisions."""
    found = [table for name in RESULTS for table in pages.MARKED.findall((ROOT / name).read_text())]
    assert sorted(table for table, _ in found) == sorted(MARKED)
    for name in RESULTS:
        by_hand = re.findall(r"(?m)^\| -{3}", pages.MARKED.sub("", (ROOT / name).read_text()))
        assert len(by_hand) == name.endswith("performance.md"), name


def test_another_number_in_a_stored_table_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a sentence and in a table."""
    changed = {name: TABLES[name] for name in TABLES}
    rows = [{**row, "mean": row["mean"] + 0.01} for row in changed["strategies"].rows]
    changed["strategies"] = stored.Stored("command", rows)
    page = ROOT / "docs" / "results" / "strategies.md"
    text = pages.written(changed)[page]
    before, after = (
        float(found[1])
        for each in (page.read_text(), text)
        if (found := re.search(r"reaches ([\d.]+) %", each))
    )
    assert after == pytest.approx(before + 1)
    assert marked("strategies", changed) not in page.read_text()
    assert marked("strategies", changed) in text


def test_another_number_in_a_page_is_noticed() -> None:
    name = "docs/results/strategies.md"
    text = (ROOT / name).read_text()
    assert pages.unexplained(name, text + "\nIt gains 0.7 points.\n") == ["0.7"]


def test_each_sentence_is_found_with_any_numbers() -> None:
    template = "gains {joint_mean:.2f} % [{joint_low:.1f}]"
    found = "gains 1,234.5\n% [-3]"
    assert pages.pattern(template).fullmatch(found)
    assert (
        pages.filled(template, found, {"joint_mean": 83.119, "joint_low": -0.25}) == "gains 83.12\n% [-0.2]"
    )


@pytest.mark.parametrize("name", list(TABLES))
def test_a_stored_table_names_its_origin(name: str) -> None:
    """The command, and one machine where the numbers depend on a clock; the file has no dates."""
    path = stored.FOLDER / f"{name}.json"
    table = TABLES[name]
    assert table.command.startswith(("python scripts/", "topdown-ray "))
    assert table.rows
    assert not re.search(r"\b20\d\d-\d\d", path.read_text())
    timed = {"cpu", "cpu_ms", "cpu_s", "exponent", "gradient_rows", "share", "time", "wall_s"}
    shown = {key for row in table.rows for key, value in row.items() if value is not None}
    if shown & timed or any(key.startswith("seconds") for key in shown) or name.startswith("strategies"):
        assert table.machine, "its numbers depend on a clock"
    assert stored.text_of(table) == path.read_text()


def test_every_stored_table_can_be_made_again() -> None:
    commands = {source.command for source in FROM_FILES.values()} | {
        "python scripts/benchmarks/measure_picks.py"
    }
    commands |= {f"python scripts/make/figures.py --only {name}" for name in FROM_SWEEPS}
    assert {TABLES[name].command for name in TABLES} <= commands
    assert all((SWEEPS / file).is_file() for file in SPENT.values())


@pytest.mark.parametrize("name", list(pictures.PICTURES))
def test_a_picture_is_that_of_its_stored_table(name: str) -> None:
    assert pictures.drawn(name, TABLES) == (pictures.FOLDER / f"{name}.svg").read_text()


@pytest.mark.parametrize("space", ["mobilenet_v3", "proxyless", "resnet50d"])
def test_the_checks_of_latency_tables_are_those_that_come_with_them(space: str) -> None:
    """Those in the table of the page about devices of one's own."""
    found = latency_table.read(Path(str(data(f"latency_epyc_1thread.{space}.parquet")))).check
    errors = [f"{100 * found[name]:.1f} %" for name in ("mae", "rmse", "corrected_mae")]
    row = f"| {100 * found['bias']:+.1f} % | {errors[0]} | {errors[1]} | {found['tau']:.3f} | {errors[2]} |"
    assert row in (ROOT / "docs" / "tutorials" / "your-device.md").read_text()


def test_figures_of_stand_ins_are_those_of_their_cards_and_tables() -> None:
    """On the pages about artefacts and limitations."""
    cards = [
        json.loads(data(f"embedded_{space}.json").read_text()) for space in ("mobilenet_v3", "resnet50d")
    ]
    best = [card["uniform_best_1_percent"] for card in cards]
    loss = [
        f"{abs(round(each['mean_points'], digits)):.{digits}f} ± "
        f"{each['standard_error_points'] + 1e-9:.{digits}f}"  # halves up
        for each, digits in zip([card["search_regret"] for card in cards], (2, 3), strict=True)
    ]
    rms = [card["uniform"]["rms_error_points"] for card in cards]
    tau = [f"{card['uniform']['kendall_tau']:.3f}" for card in cards]
    rows = (
        [f"{card['bytes'] / 1000:.0f} kB" for card in cards],
        [f"{rms[0]:.3f}", f"{rms[1]:.4f}"],
        tau,
        [f"{each['kendall_tau']:.2f}" for each in best],
        [f"{best[0]['range_points']:.2f}", f"{best[1]['range_points']:.4f}"],
        loss,
    )
    artefacts = (ROOT / "docs" / "guides" / "artefacts.md").read_text()
    for row in rows:
        assert f" | {' | '.join(row)} |\n" in artefacts
    limitations = " ".join((ROOT / "docs" / "limitations.md").read_text().split())
    assert f"is {tau[0]} on random architectures, but only {rows[3][0]} among the best 1 %" in limitations
    assert f"loses {loss[0]} percentage points" in limitations
    assert f"tau is {tau[1]} and the loss is {loss[1]} percentage points" in limitations
    checks = [
        latency_table.read(Path(str(data(f"latency_epyc_1thread.{space}.parquet")))).check["mae"]
        for space in ("mobilenet_v3", "proxyless", "resnet50d")
    ]
    errors = [f"{100 * error:.1f} %" for error in checks]
    assert f"{errors[0]} on MobileNetV3, {errors[1]} on ProxylessNAS and {errors[2]} on" in limitations


def test_the_times_of_whole_subnets_are_those_of_the_check() -> None:
    """The stored times give the figures that the latency table contains, and the sums are its own."""
    path = Path(str(data("latency_epyc_1thread.mobilenet_v3.parquet")))
    check, times = latency_table.read(path).check, TABLES["latency_check"].frame()
    figures = sum_errors(times["sum_ms"].to_numpy(), times["whole_ms"].to_numpy())
    assert figures == pytest.approx({name: check[name] for name in figures}, abs=1e-4)
    genes = MOBILENET_V3.canonical(MOBILENET_V3.random(check["subnets"], check["seed"]))
    sums = load_cost("epyc_1thread", MOBILENET_V3)(genes)
    assert times["sum_ms"].to_numpy() == pytest.approx(sums.numpy(), rel=1e-6)


def test_measurements_are_read_from_what_the_benchmarks_write(tmp_path: Path) -> None:
    """The rows of the stored tables, written as the benchmark writes them, are read back."""
    profile = tmp_path / "profile.txt"
    lines = [f"{row['step']:45} {row['share']:6.1%}" for row in TABLES["profile"].rows]
    profile.write_text("\n".join(["32 searches in lock step: 0.5 s a search", *lines]))
    assert FROM_FILES["profile"].read([profile]) == TABLES["profile"].rows
    floor = tmp_path / "floor.parquet"
    TABLES["floor"].frame().to_parquet(floor)
    assert FROM_FILES["floor"].read([floor]) == TABLES["floor"].rows
