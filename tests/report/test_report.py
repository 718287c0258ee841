"""The report: from result folders to a page that a browser opens without errors and without the network."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from markupsafe import Markup
from matplotlib.figure import Figure
from support import synthetic
from support.browsing import look_like
from support.sweeping import in_process
from typer.testing import CliRunner

import topdown_ray
from topdown_ray import load
from topdown_ray.cli.main import app
from topdown_ray.errors import UserError
from topdown_ray.figures import Picture
from topdown_ray.report import comparisons, pen, plots, tables
from topdown_ray.report.build import write_report
from topdown_ray.report.context import Options
from topdown_ray.store.folder import ResultFolder
from topdown_ray.store.schema import SCHEMA_VERSION, SEARCHES
from topdown_ray.strategy_styles import style_of
from topdown_ray.sweeps import driver
from topdown_ray.sweeps.spec import make_spec

SECTIONS = (
    "overview",
    "explorer",
    "architectures",
    "accuracy",
    "differences",
    "baselines",
    "time",
    "anytime",
    "fronts",
    "provenance",
)
HIDDEN = {"whole_sets", "anytime", "gain_over_random", "gene_agreement"}
STRATEGIES = ["independent", "bottom_up", "top_down", "prune", "random"]
EFFECTS = {"random": -0.01, "independent": 0.0, "bottom_up": 0.0, "top_down": 0.001}


def run_sweep(path: Path, batch: int) -> Path:
    spec = {
        "name": f"small-{batch}",
        "spaces": ["mobilenet_v3"],
        "strategies": STRATEGIES,
        "cost": "macs",
        "predictor": "embedded",
        "targets": [[400], [400, 300], [400, 300, 200]],
        "seeds": 5,
        "search": {"population": 20, "generations": 6, "warm_generations": 3},
        "batch": batch,
    }
    plan = driver.make_plan(make_spec(spec, "test"))
    folder = ResultFolder(path)
    folder.open(plan.manifest(), resume=True)
    driver.run(plan, folder, in_process(plan))
    return path


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same true searches, one by one and in batches."""
    folder = tmp_path_factory.mktemp("results")
    return run_sweep(folder / "lone", 1), run_sweep(folder / "batched", 5)


@pytest.fixture(scope="module")
def reported(swept: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    write_report(list(swept), out)
    return out


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic folder that compares with the notebook."""
    return synthetic.write(tmp_path_factory.mktemp("made_up") / "paper", *synthetic.frames(EFFECTS))


@pytest.fixture
def blank(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures, for speed, where a test is not about them."""
    monkeypatch.setattr(
        pen, "draw", lambda folder, name, caption, *drawing: Picture(name, caption, lambda: Markup("<svg/>"))
    )


def text_of(page: Path) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.read_text()))


def test_the_page_holds_every_section_and_every_figure_and_table_is_a_file(reported: Path) -> None:
    page = (reported / "report.html").read_text()
    for section in SECTIONS:
        assert f'<section id="{section}">' in page
    svgs, pdfs = ({path.stem for path in (reported / "figures").glob(f"*.{kind}")} for kind in ("svg", "pdf"))
    csvs, texts = ({path.stem for path in (reported / "tables").glob(f"*.{kind}")} for kind in ("csv", "md"))
    assert svgs == pdfs
    assert len(svgs) == page.count("<figure>") == 16
    assert csvs - texts == HIDDEN, "the data of pictures"
    assert texts < csvs
    assert {
        "overview",
        "whole_sets",
        "anytime",
        "accuracy",
        "time_by_k",
        "growth",
        "single_target",
        "differences",
        "reach",
        "fronts",
        "gain_over_random",
    } <= csvs
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids)), "two figures share an id"
    assert "#010203" not in page, "a colour that a dark page would hide"


def test_the_page_needs_nothing_else(reported: Path) -> None:
    # what scripts do is for the browser's log of requests to say
    page = re.sub(r"<script>.*?</script>", "", (reported / "report.html").read_text(), flags=re.DOTALL)
    links = set(re.findall(r"""(?:src|href)\s*=\s*["']([^"'#]+)""", page)) | set(
        re.findall(r"url\(([^#)][^)]*)\)", page)
    )
    known = ("data:,", "data:image/png;base64,", "tables/")
    assert all(link.startswith(known) for link in links)
    assert "@import" not in page


def test_tables_hold_what_the_rows_say(reported: Path, swept: tuple[Path, Path]) -> None:
    rows = load(swept[0]).searches
    frame = pd.read_csv(reported / "tables" / "accuracy.csv")
    row = frame[(frame["strategy"] == "top_down") & (frame["k"] == 3) & (frame["target"] == 200)].iloc[0]
    cell = rows[(rows["strategy"] == "top_down") & (rows["k"] == 3) & (rows["target"] == 200)]["accuracy"]
    assert row["n"] == 5
    assert (row["mean"], row["sd"], row["median"]) == pytest.approx((cell.mean(), cell.std(), cell.median()))
    time = pd.read_csv(reported / "tables" / "time_by_k.csv")
    assert set(zip(time["clock"], time["batch_size"], time["n"], strict=True)) == {
        (tables.LONE, 1, 5),
        (tables.AMORTISED, 5, 1),
    }
    same = pd.read_csv(reported / "tables" / "differences.csv")
    first = same[
        (same["strategy"] == "top_down") & (same["against"] == "independent") & (same["target"] == 400)
    ]
    assert (first["ties"] == first["n"]).all(), "both begin with the same full search for the loosest target"
    assert (first["p"] == 1).all()


@pytest.mark.slow
def test_the_same_folders_give_the_same_files(
    reported: Path, swept: tuple[Path, Path], tmp_path: Path
) -> None:
    write_report(list(swept), tmp_path)
    for path in reported.rglob("*.*"):
        assert path.read_bytes() == (tmp_path / path.relative_to(reported)).read_bytes(), path.name


@pytest.mark.slow
def test_published_figures_lie_beside_ours(made_up: Path, swept: tuple[Path, Path], tmp_path: Path) -> None:
    written = write_report([made_up], tmp_path, Options(published=True))
    assert (tmp_path / "figures" / "time_by_k_mobilenet_v3_on_note10_published.svg").exists()
    frame = pd.read_csv(tmp_path / "tables" / "accuracy_published.csv")
    assert len(frame) == 30
    row = frame[(frame["strategy"] == "top_down") & (frame["target"] == 15)].iloc[0]
    assert row["published"] == 0.7838
    assert "another machine" in text_of(written.path)
    with pytest.raises(UserError, match="--published"):
        write_report([swept[0]], tmp_path, Options(published=True))


@pytest.mark.usefixtures("blank")
def test_reference_front_and_levels(made_up: Path, tmp_path: Path) -> None:
    path = tmp_path / "front.csv"
    path.write_text("# from somewhere\ncost,accuracy\n20,0.78\n40,0.80\n")
    write_report([made_up], tmp_path / "out", Options(reference=path, levels=(0.77,), floor=0.7))
    frame = pd.read_csv(tmp_path / "out" / "tables" / "fronts.csv")
    assert (frame["reference_accuracy"] == 0.7).all()
    assert (frame["distance"] > 0).all()
    assert set(pd.read_csv(tmp_path / "out" / "tables" / "reach.csv")["level"]) == {0.77}
    with pytest.raises(UserError, match="--reach: expected a fraction between 0 and 1, found 77"):
        write_report([made_up], tmp_path / "out", Options(levels=(77.0,)))


# --- folders that are not as they should be


@pytest.mark.usefixtures("blank")
def test_half_a_sweep_is_reported_as_such(swept: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "half"
    shutil.copytree(swept[1], folder)
    gone = next(
        path
        for path in sorted((folder / "searches").iterdir())
        if pq.read_table(path, columns=["strategy"])["strategy"][0].as_py() == "prune"
    )
    gone.unlink()
    manifest = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**manifest, "status": "incomplete", "given_up": ["abc"]}))
    written = write_report([folder], tmp_path / "out")
    assert written.missing == 5
    words = text_of(written.path)
    assert "half does not have 5 of its 75 searches (status: incomplete)" in words
    assert "failed shards abc" in words
    assert "prune" in (tmp_path / "out" / "tables" / "missing.md").read_text()


@pytest.mark.usefixtures("blank")
def test_one_seed_has_no_interval_and_says_why(tmp_path: Path) -> None:
    folder = synthetic.write(tmp_path / "one", *synthetic.frames(EFFECTS, seeds=1))
    written = write_report([folder], tmp_path / "out")
    assert "because the results have only one seed" in text_of(written.path)
    frame = pd.read_csv(tmp_path / "out" / "tables" / "accuracy.csv")
    assert frame[["low", "high", "sd"]].isna().all(axis=None)
    folder = synthetic.write(tmp_path / "four", *synthetic.frames(EFFECTS, seeds=4))
    assert "A 95 % interval needs at least 5 seeds; these results have 4." in text_of(
        write_report([folder], tmp_path / "out").path
    )


@pytest.mark.usefixtures("blank")
def test_one_strategy_and_one_target(tmp_path: Path) -> None:
    folder = synthetic.write(tmp_path / "one", *synthetic.frames({"top_down": 0.0}, sets=[(35.0,)]))
    page = write_report([folder], tmp_path / "out").path.read_text()
    assert "top_down reaches" in text_of(tmp_path / "out" / "report.html")
    for empty in ("differences", "baselines", "fronts"):
        assert f'id="{empty}"' not in page
    files = {path.stem for path in (tmp_path / "out").rglob("*.csv")}
    assert not files & {"growth", "differences", "accuracy_published"}
    assert not list((tmp_path / "out" / "figures").glob("time_by_k*")), "one bar is no picture"


def test_a_strategy_of_your_own_has_its_own_colour(tmp_path: Path) -> None:
    folder = synthetic.write(
        tmp_path / "own", *synthetic.frames({"mine": 0.0, "yours": 0.0, "independent": 0.0})
    )
    write_report([folder], tmp_path / "out")
    assert style_of("mine", ["mine", "yours"]).colour != style_of("yours", ["mine", "yours"]).colour


@pytest.mark.usefixtures("blank")
def test_a_front_that_does_not_compare_is_told(tmp_path: Path) -> None:
    folder = synthetic.write(tmp_path / "run", *synthetic.frames({"top_down": 0.0}, seeds=2))
    front = tmp_path / "front.csv"
    front.write_text("# predictor_sha256 another\ncost,accuracy\n20,0.8\n")
    page = write_report([folder], tmp_path / "out", Options(reference=front)).path.read_text()
    assert "The reference front belongs to another space, cost table or predictor" in page


@pytest.mark.usefixtures("blank")
def test_without_anytime_curves(tmp_path: Path) -> None:
    searches, trace = synthetic.frames(EFFECTS)
    folder = synthetic.write(tmp_path / "curveless", searches, trace.iloc[:0])
    written = write_report([folder], tmp_path / "out")
    page = written.path.read_text()
    assert 'id="time"' in page
    assert "best accuracy so far" not in page  # no picture of what is not there


@pytest.mark.usefixtures("blank")
def test_an_older_schema_works_or_says_what_it_lacks(tmp_path: Path) -> None:
    searches, trace = synthetic.frames(EFFECTS)
    old = synthetic.write(tmp_path / "old", searches, trace, schema=1)
    part = old / "searches" / "all.parquet"
    table = pq.read_table(part)
    pq.write_table(table.drop_columns(["device", "threads", "host", "params_m"]), part)
    words = text_of(write_report([old], tmp_path / "out").path)
    assert "not recorded" in words
    pq.write_table(table.drop_columns(["evaluations"]), part)
    with pytest.raises(UserError, match=r"column evaluations .* \(schema version 1\)"):
        write_report([old], tmp_path / "out")


@pytest.mark.parametrize("schema", [SCHEMA_VERSION + 1, 0, "1", None])
def test_an_unknown_schema_is_refused(tmp_path: Path, schema: Any) -> None:
    folder = synthetic.write(tmp_path / "new", *synthetic.frames(EFFECTS), schema=schema)
    with pytest.raises(UserError, match=r"run\.json: schema: expected a version from 1"):
        write_report([folder], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("blank")
def test_mistakes_on_the_command_line(tmp_path: Path, made_up: Path) -> None:
    def error(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["report", *arguments])
        assert isinstance(result.exception, UserError)
        return str(result.exception)

    empty = tmp_path / "empty"
    empty.mkdir()
    assert "expected a sweep's result folder" in error(str(empty))
    assert "expected a sweep's result folder" in error(str(tmp_path / "nowhere"))
    begun = synthetic.write(tmp_path / "begun", *synthetic.frames(EFFECTS))
    shutil.rmtree(begun / "searches")
    assert "expected at least one finished search" in error(str(begun))
    taken = tmp_path / "taken"
    taken.write_text("")
    assert "expected a folder that can be written" in error(str(made_up), "--out", str(taken))
    assert "expected a CSV file" in error(str(made_up), "--reference", str(tmp_path / "no.csv"))


@pytest.mark.usefixtures("blank")
def test_the_command(made_up: Path, tmp_path: Path) -> None:
    folder = tmp_path / "paper"
    shutil.copytree(made_up, folder)
    result = CliRunner().invoke(app, ["report", str(folder), "--published", "--json"], catch_exceptions=False)
    facts = json.loads(result.stdout)
    assert Path(facts["path"]) == folder / "report" / "report.html"
    assert Path(facts["path"]).exists()
    assert (facts["missing"], facts["tables"]) == (0, 13)


# --- plots and summary


def test_plots_take_and_return_axes() -> None:
    results = synthetic.results(EFFECTS)
    summary = topdown_ray.summary(results)
    data = tables.prepare([results])
    for plot, table in (
        (plots.accuracy, summary.accuracy),
        (plots.time_by_k, summary.time),
        (plots.single_target, summary.single_target),
        (plots.differences, comparisons.differences(data)),
        (plots.anytime, comparisons.curves(data)),
        (plots.front, data.distinct()),
        (plots.hypervolume, comparisons.fronts(data)),
    ):
        ax = Figure().add_subplot()
        assert plot(table, ax) is ax
        assert ax.get_xlabel()
        assert ax.get_ylabel()
    with pytest.raises(UserError, match="setting: expected one of mobilenet_v3 on note10, found elsewhere"):
        plots.accuracy(summary.accuracy, Figure().add_subplot(), setting="elsewhere")


# --- in a browser


LOOK = """
const ink = element => getComputedStyle(element).color;
return {
  sections: [...document.querySelectorAll('main > section')].map(section => section.id),
  width: document.documentElement.scrollWidth,
  ink: ink(document.body),
  paper: getComputedStyle(document.body).backgroundColor,
  figures: [...document.querySelectorAll('figure svg')].map(svg => {
    const box = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll('text')];
    const outside = texts.filter(text => {
      const inner = text.getBoundingClientRect();
      return inner.left < box.left - 2 || inner.right > box.right + 2
        || inner.top < box.top - 2 || inner.bottom > box.bottom + 2;
    });
    return {width: box.width, ink: ink(svg), texts: texts.length,
            outside: outside.map(text => text.textContent),
            size: Math.min(...texts.map(text => text.getBoundingClientRect().height))};
  }),
  tables: [...document.querySelectorAll('.scroll')].map(box => box.clientWidth),
};
"""


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_a_browser_opens_it(reported: Path, chromium: Any, width: int, scheme: str) -> None:
    look_like(chromium, width, scheme)
    chromium.get((reported / "report.html").as_uri())
    seen = chromium.execute_script(LOOK)
    console = chromium.get_log("browser")
    messages = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    assert seen["sections"] == list(SECTIONS)
    assert console == []
    requested = [
        m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"
    ]
    assert requested, "the log of requests is empty"
    assert [url for url in requested if not url.startswith(("file:", "data:"))] == []
    assert seen["width"] <= width, "the page scrolls sideways"
    assert max(seen["tables"]) <= width
    dark = scheme == "dark"
    assert (int(re.findall(r"\d+", seen["paper"])[0]) < 128) == dark
    for figure in seen["figures"]:
        assert figure["ink"] == seen["ink"], "a figure's text does not follow the page"
        assert figure["texts"] > 5
        assert figure["outside"] == [], "text runs out of a figure"
        assert figure["size"] >= 9, "text of a figure is too small to read"


TABLE = """
const [name, column] = arguments;
const table = document.getElementById(`table-${name}`);
const rows = [...table.tBodies].filter(body => !body.hidden).map(body => [...body.rows])
  .flat().filter(row => !row.hidden && !row.classList.contains('group'));
return rows.map(row => row.cells[column].textContent);
"""


def test_tables_sort_search_and_download(reported: Path, chromium: Any, tmp_path: Path) -> None:
    alone = tmp_path / "report.html"  # without the files beside it
    shutil.copy(reported / "report.html", alone)
    chromium.get(alone.as_uri())
    chromium.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    of_group = chromium.find_elements("css selector", "#table-overview tbody")
    assert len(of_group) == 1
    heading = chromium.find_element("xpath", "//table[@id='table-overview']//button[contains(., 'mean')]")
    heading.send_keys("\n")  # by the keyboard
    rising = [float(text) for text in chromium.execute_script(TABLE, "overview", 1)]
    heading.click()
    falling = [float(text) for text in chromium.execute_script(TABLE, "overview", 1)]
    assert rising == sorted(rising)
    assert falling == rising[::-1]
    assert heading.find_element("xpath", "..").get_attribute("aria-sort") == "descending"
    field = chromium.find_element("css selector", "[aria-controls=table-differences]")
    field.send_keys("TOP_down")
    found = chromium.execute_script(TABLE, "differences", 0)
    against = chromium.execute_script(TABLE, "differences", 1)
    assert found
    assert all("top_down" in pair for pair in zip(found, against, strict=True))
    chromium.find_element("css selector", "a[download='accuracy.csv']").click()
    for _ in range(100):
        if (tmp_path / "accuracy.csv").exists():
            break
        time.sleep(0.1)
    assert chromium.get_log("browser") == []
    assert (tmp_path / "accuracy.csv").read_bytes() == (reported / "tables" / "accuracy.csv").read_bytes()


def test_two_sweeps_share_their_pictures(tmp_path: Path) -> None:
    """Sweeps that differ in their lengths only are two series of one setting, and are paired by seed."""
    folders = []
    for i, generations in enumerate((500, 50)):
        searches, trace = synthetic.frames({"top_down": 0.001 * i, "joint": 0.002}, stream=i)
        searches["search_id"] += f"{i}"
        trace["search_id"] += f"{i}"
        folder = synthetic.write(tmp_path / f"of-{generations}", searches, trace)
        document = json.loads((folder / "run.json").read_text())
        document["spec"]["search"]["generations"] = generations
        (folder / "run.json").write_text(json.dumps(document))
        folders.append(folder)
    page = write_report(folders, tmp_path / "out").path
    names = {path.stem for path in (tmp_path / "out" / "figures").glob("*.svg")}
    assert "fronts_mobilenet_v3_on_note10" in names
    assert not [name for name in names if "generations" in name]
    assert "A of-500: generations 500 B of-50: generations 50" in text_of(page)
    frame = pd.read_csv(tmp_path / "out" / "tables" / "differences.csv")
    pair = frame[(frame["strategy"] == "top_down (B)") & (frame["against"] == "top_down (A)")]
    assert (pair["n"] == 10).all()
    one, other = (load(folder).searches for folder in folders)
    both = one.merge(other, on=["strategy", "k", "target", "seed"])
    both = both[(both["strategy"] == "top_down") & (both["k"] == 10) & (both["target"] == 40)]
    shown = pair[(pair["k"] == 10) & (pair["target"] == 40)].iloc[0]
    assert shown["mean"] == pytest.approx((both["accuracy_y"] - both["accuracy_x"]).mean())


@pytest.mark.usefixtures("blank")
def test_labels_that_look_like_series_stay_apart_and_one_search_may_have_two_labels(tmp_path: Path) -> None:
    folders = []
    for i, labels in enumerate(({"top_down": "top_down", "joint": "top_down (A)"}, {"top_down": "other"})):
        searches, trace = synthetic.frames(dict.fromkeys(labels, 0.0), seeds=5)
        searches["label"] = searches["strategy"].map(labels)
        folder = synthetic.write(tmp_path / f"f{i}" / "same", searches, trace)
        document = json.loads((folder / "run.json").read_text())
        entries = [{"name": name, "label": label} for name, label in labels.items()]
        document["spec"]["strategies"] = entries
        (folder / "run.json").write_text(json.dumps(document))
        folders.append(folder)
    third = tmp_path / "f2" / "same"
    shutil.copytree(folders[0], third)
    document = json.loads((third / "run.json").read_text())
    document["spec"]["search"]["generations"] = 7
    (third / "run.json").write_text(json.dumps(document))
    for table in ("searches", "trace"):
        part = third / table / "all.parquet"
        rows = pq.read_table(part)
        ids = pa.array([f"{x}x" for x in rows["search_id"].to_pylist()])
        pq.write_table(rows.set_column(rows.schema.get_field_index("search_id"), "search_id", ids), part)
    write_report([*folders, third], tmp_path / "out")
    frame = pd.read_csv(tmp_path / "out" / "tables" / "overview.csv")
    names = ["top_down (A)'", "top_down (C)", "top_down (A) (A)", "top_down (A) (C)", "other"]
    assert sorted(frame["strategy"]) == sorted(names)
    assert (frame["n"] == 5).all()
    assert str(third) in text_of(tmp_path / "out" / "report.html"), "folders of one name are told apart"


def test_limits_are_named_in_settings(tmp_path: Path) -> None:
    folder = synthetic.write(tmp_path / "run", *synthetic.frames({"top_down": 0.0}, sets=[(35.0, 30.0)]))
    document = json.loads((folder / "run.json").read_text())
    document["spec"]["limits"] = {"mobilenet_v3": [[{"params": 6.0}, {"params": 5.0}]]}
    (folder / "run.json").write_text(json.dumps(document))
    frame = topdown_ray.summary(load(folder)).accuracy
    assert set(frame["setting"]) == {"mobilenet_v3 on note10, params <= 6, 5 by target"}


def test_all_parts_are_parquet_of_the_schema(made_up: Path) -> None:
    """The synthetic folders are as true ones: the store reads them, and has nothing to add."""
    assert pq.read_schema(made_up / "searches" / "all.parquet").equals(SEARCHES)
