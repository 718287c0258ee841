"""Architectures of a report: the best answers, and agreement against a loop over all pairs of answers."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from support import synthetic
from support.browsing import look_like
from support.sweeping import run

from topdown_ray.report import build, tables
from topdown_ray.report.architectures import best_architectures, compared, leading, short_text
from topdown_ray.report.plots_genes import agreement, choices, size
from topdown_ray.report.sections.architectures import architectures
from topdown_ray.report.sections.provenance import provenance
from topdown_ray.report.subnets import known_space
from topdown_ray.spaces.registry import SPACES
from topdown_ray.store.results import Results

SWEEP = {
    "name": "small",
    "spaces": list(SPACES),
    "strategies": ["independent", "top_down"],
    "cost": "macs",
    "predictor": "embedded",
    "targets": {
        "mobilenet_v3": [[400, 300, 200], [350]],
        "resnet50d": [[3000, 2000, 1500]],
        "proxyless": [[500, 400]],
    },
    "seeds": 4,
    "search": {"population": 20, "generations": 6, "warm_generations": 3},
}


def with_genes(space: str, seeds: int = 6, stream: int = 0, name: str | None = None) -> Results:
    """Synthetic answers whose architectures are drawn at random; few differ, so that some are identical."""
    results = synthetic.results(
        {"independent": 0.0, "top_down": 0.01}, sets=[(35.0, 25.0), (35.0,)], seeds=seeds, space=space
    )
    known, n = SPACES[space], len(results.searches)
    pool = known.canonical(known.random(5, stream)).numpy()
    genes = pool[np.random.default_rng(stream).integers(0, 5, n)]
    searches = results.searches.assign(
        genes=list(genes), arch=known.texts(genes), space=space if name is None else name
    )
    return Results(synthetic.manifest(searches), searches, results.trace)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return run(SWEEP, tmp_path_factory.mktemp("swept"))


@pytest.fixture(scope="module")
def reported(swept: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report([Path(swept.place.name)], tmp_path_factory.mktemp("report"))


def report(folders: list[Path], out: Path) -> Path:
    """A report of nothing but architectures, for speed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "SECTIONS", (architectures, provenance))
        build.write_report(folders, out)
    return out


def cells(rows: pd.DataFrame) -> list[tuple[tuple[Any, ...], pd.DataFrame]]:
    keys = ["space", "strategy", "targets", "target"]
    return list(rows.groupby(keys, sort=False, observed=True))


def pair_by_pair(space: str, genes: np.ndarray) -> tuple[float, float, list[float]]:
    """Agreement, identical pairs, and the agreement of each gene, as the definition has it."""
    known = SPACES[space]
    active = known.active(torch.from_numpy(genes)).numpy()
    equal: list[list[bool]] = [[] for _ in range(known.G)]
    identical = []
    for a, b in itertools.combinations(range(len(genes)), 2):
        both = [g for g in range(known.G) if active[a, g] and active[b, g]]
        for g in both:
            equal[g].append(genes[a, g] == genes[b, g])
        identical.append((active[a] == active[b]).all() and all(genes[a, g] == genes[b, g] for g in both))
    means = [float(np.mean(own)) if own else np.nan for own in equal]
    return float(np.mean(list(itertools.chain(*equal)))), float(np.mean(identical)), means


@pytest.mark.parametrize("space", list(SPACES))
def test_agreement_is_that_of_all_pairs(space: str) -> None:
    data = tables.prepare([with_genes(space)])
    found = compared(data)
    assert len(found.agreement) == 2 * (2 + 1)
    assert found.agreement["n"].eq(6).all()
    assert 0 < found.agreement["identical"].mean() < 1
    for (_, strategy, targets, target), own in cells(data.searches):
        genes = np.stack(own["genes"].tolist())
        mean, identical, each = pair_by_pair(space, genes)
        here = {"strategy": strategy, "targets": targets, "target": target}
        row, by_gene = (frame[(frame[list(here)] == pd.Series(here)).all(axis=1)] for frame in found)
        assert row["agreement"].item() == pytest.approx(mean)
        assert row["identical"].item() == pytest.approx(identical)
        assert row["different"].item() == len(np.unique(genes, axis=0))
        np.testing.assert_allclose(by_gene["agreement"], each)
        active = SPACES[space].active(torch.from_numpy(genes)).numpy()
        np.testing.assert_allclose(by_gene["active"], active.mean(axis=0))
        for g, row in enumerate(by_gene.to_dict("records")):
            own_choices, on = SPACES[space].genes[g].choices, genes[active[:, g], g]
            if len(on) == 0:
                assert np.isnan([row["choice"], row["most_frequent"], row["share"]]).all()
                continue
            counts = np.bincount(on)
            assert row["most_frequent"] == own_choices[counts.argmax()]
            assert row["share"] == pytest.approx(counts.max() / len(on))
            assert row["choice"] == pytest.approx(on.mean() / (len(own_choices) - 1))


def test_three_answers_by_hand() -> None:
    """Two equal answers and a third with a deeper first stage, whose third block they lack."""
    space = SPACES["mobilenet_v3"]
    results = with_genes("mobilenet_v3", seeds=3)
    plain = np.zeros(space.G, np.int8)
    deeper = plain.copy()
    depth = space.indices("depth")[0]
    deeper[depth] = 1
    deeper[2] = 2  # the kernel of block 1.3, active in this one alone
    rows = results.searches[(results.searches["strategy"] == "top_down") & (results.searches["k"] == 1)]
    rows = rows.assign(genes=[plain, plain, deeper])
    found = compared(tables.prepare([Results(synthetic.manifest(rows), rows, results.trace.iloc[:0])]))
    (row,) = found.agreement.to_dict("records")
    active = space.G - 20  # of the plain one: two blocks of four in each of five stages
    assert row["agreement"] == pytest.approx((active + 2 * (active - 1)) / (3 * active))
    assert row["identical"] == pytest.approx(1 / 3)
    assert (row["different"], row["n"], row["target"]) == (2, 3, 35.0)
    genes = found.genes.set_index("name")
    assert genes.loc["depth stage 1", ["agreement", "most_frequent", "share", "choice"]].tolist() == (
        pytest.approx([1 / 3, 2, 2 / 3, 1 / 6])
    )
    assert genes.loc["kernel 1.3", ["active", "pairs", "most_frequent", "choice"]].tolist() == (
        pytest.approx([1 / 3, 0, 7, 1])
    )
    assert np.isnan(genes.loc["kernel 1.3", "agreement"])
    assert np.isnan(genes.loc["expand 5.4", ["choice", "most_frequent", "share"]].astype(float)).all()


def test_the_genes_of_every_space_have_names_of_their_own() -> None:
    for space in SPACES:
        names = compared(tables.prepare([with_genes(space)])).genes["name"].unique()
        assert len(names) == SPACES[space].G
        assert {"resolution", "depth stage 1", "expand 2.3"} <= set(names)
        assert ("stem depth" in names) == ("width stem 2" in names) == (space == "resnet50d")


def test_a_space_that_is_not_installed_has_numbered_genes() -> None:
    assert known_space("elsewhere") is None
    assert known_space("nowhere:SPACE") is None
    data = tables.prepare([with_genes("proxyless", name="elsewhere")])
    found = compared(data)
    assert list(found.genes["name"].unique()[:2]) == ["gene 1", "gene 2"]
    assert found.genes["active"].eq(1).all()
    genes = np.stack(next(iter(cells(data.searches)))[1]["genes"].tolist())
    equal = [(genes[a] == genes[b]).mean() for a, b in itertools.combinations(range(len(genes)), 2)]
    assert found.agreement["agreement"].iloc[0] == pytest.approx(np.mean(equal))
    ax = Figure().add_subplot()
    assert agreement(found.genes, ax) is ax


def test_genes_that_do_not_fit_the_space_are_numbered() -> None:
    """A plug-in whose choices were changed since."""
    results = with_genes("proxyless")
    results.searches["genes"] = [np.append(genes, np.int8(9)) for genes in results.searches["genes"]]
    assert compared(tables.prepare([results])).genes["name"].iloc[0] == "gene 1"


def test_the_best_answers_are_those_of_pandas(swept: Results) -> None:
    frame = best_architectures(tables.prepare([swept]))
    rows = swept.searches[swept.searches["feasible"]]
    assert len(frame) == 4 + 3 + 2
    for row in frame.to_dict("records"):
        own = rows[(rows["space"] == row["space"]) & (rows["cost"] <= row["target"])]
        order = ["accuracy", "cost", "strategy", "seed"]
        best = own.sort_values(order, ascending=[False, True, True, True]).iloc[0]
        for name in ("accuracy", "cost", "macs_m", "params_m", "strategy", "seed", "arch"):
            assert row[name] == best[name], name
        assert row["found_for"] == best["target"]
    for _, own in frame.groupby("setting"):
        assert own["target"].is_monotonic_increasing
        assert own["accuracy"].is_monotonic_increasing


def test_ties_and_tighter_targets() -> None:
    results = with_genes("mobilenet_v3", seeds=2)
    rows = results.searches.assign(accuracy=0.7)
    tighter = (rows["target"] == 25) & (rows["seed"] == 1)
    rows.loc[tighter, ["accuracy", "cost"]] = 0.8, 20.0
    rows.loc[tighter & (rows["strategy"] == "top_down"), "cost"] = 19.0
    rows.loc[(rows["target"] == 35) & (rows["seed"] == 0), ["accuracy", "feasible"]] = 0.9, False
    frame = best_architectures(tables.prepare([Results(synthetic.manifest(rows), rows, results.trace)]))
    assert frame["target"].tolist() == [25.0, 35.0]
    for column, value in {"accuracy": 0.8, "strategy": "top_down", "seed": 1, "found_for": 25.0}.items():
        assert frame[column].eq(value).all(), column
    rows["cost"] = 20.0
    frame = best_architectures(tables.prepare([Results(synthetic.manifest(rows), rows, results.trace)]))
    assert frame["strategy"].eq("independent").all()


def test_targets_with_other_limits_are_kept_apart() -> None:
    results = with_genes("mobilenet_v3", seeds=2)
    rows = results.searches
    rows["limits"] = np.where(rows["target"] == 25, '{"params": 6.0}', '{"params": 5.0}')
    rows.loc[rows["target"] == 25, "accuracy"] = 0.9
    frame = best_architectures(tables.prepare([Results(synthetic.manifest(rows), rows, results.trace)]))
    assert (frame["found_for"] == frame["target"]).all()


def test_short_texts() -> None:
    config = {"ks": [3] * 20, "e": [4] * 20, "d": [2, 3, 4, 2, 3], "image_size": 208}
    assert short_text(json.dumps(config)) == "r208 d 2 3 4 2 3"
    config = {"e": [0.2] * 18, "d": [0, 1], "w": [2, 0], "image_size": 128}
    assert short_text(json.dumps(config)) == "r128 d 0 1 w 2 0"
    assert [short_text(text) for text in ("{}", "", None, "[1]")] == ["", "", "", ""]


def test_the_leading_strategy_is_the_most_accurate_one() -> None:
    results = synthetic.results({"independent": 0.0, "top_down": 0.01, "random": -0.01})
    assert list(leading(tables.accuracy(tables.prepare([results]))).values()) == ["top_down"]


@pytest.mark.parametrize("plot", [choices, agreement])
@pytest.mark.parametrize("space", list(SPACES))
def test_pictures_show_every_gene(space: str, plot: Any) -> None:
    table = compared(tables.prepare([with_genes(space)])).genes
    ax = Figure(figsize=size(table)).add_subplot()
    assert plot(table, ax, strategy="top_down") is ax
    assert len(ax.get_yticklabels()) == SPACES[space].G
    assert [label.get_text() for label in ax.get_xticklabels()] == ["25", "35"]
    shown = np.concatenate([image.get_array().ravel() for image in ax.images])
    own = table[(table["strategy"] == "top_down") & (table["k"] == 2)]
    assert len(shown) == len(own)
    column = "choice" if plot is choices else "agreement"
    assert np.ma.sum(np.ma.masked_invalid(shown)) == pytest.approx(own[column].sum())


# --- in the report


def test_the_section_of_a_sweep(reported: Path, swept: Results) -> None:
    page = (reported / "report.html").read_text()
    assert '<section id="architectures">' in page
    assert {path.stem for path in (reported / "figures").glob("gene_*.svg")} == {
        f"{name}_{space}_on_macs" for name in ("gene_choices", "gene_agreement") for space in SPACES
    }
    best = pd.read_csv(reported / "tables" / "best_architectures.csv")
    for row in best.to_dict("records"):
        known_space(row["space"]).parse(row["arch"])
        assert short_text(row["arch"]) in page
    table = pd.read_csv(reported / "tables" / "agreement_of_seeds.csv")
    assert table["k"].tolist() == [3] * 6 + [2] * 4 + [3] * 6
    assert table["agreement"].between(0, 1).all()
    genes = pd.read_csv(reported / "tables" / "gene_agreement.csv")
    n = {space: SPACES[space].G for space in SPACES}
    assert len(genes) == 3 * n["mobilenet_v3"] + 3 * n["resnet50d"] + 2 * n["proxyless"], "what is drawn"
    assert not re.search(r"(?:src|href)\s*=\s*[\"'](?!data:|#|tables/)", page)


def test_one_seed_has_no_agreement(tmp_path: Path) -> None:
    results = with_genes("resnet50d", seeds=1)
    folder = synthetic.write(tmp_path / "one", results.searches, results.trace)
    report([folder], tmp_path / "out")
    names = {path.stem for path in (tmp_path / "out").rglob("*.*")}
    assert "gene_choices_resnet50d_on_note10" in names
    assert "best_architectures" in names
    assert not {name for name in names if "agreement" in name}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "1 answer for each target" in page
    assert "answers of different seeds agree" not in page


def test_a_folder_without_genes_has_no_section(tmp_path: Path) -> None:
    folder = synthetic.write(tmp_path / "old", *synthetic.frames({"top_down": 0.0}, seeds=2))
    report([folder], tmp_path / "out")
    assert 'id="architectures"' not in (tmp_path / "out" / "report.html").read_text()


def test_a_folder_with_genes_beside_one_without(tmp_path: Path) -> None:
    """The other one has the better strategy, and the wider target set."""
    results = with_genes("proxyless", seeds=2)
    frames = synthetic.frames({"random": 0.1}, seeds=2, space="proxyless")
    folders = [
        synthetic.write(tmp_path / "new", results.searches, results.trace),
        synthetic.write(tmp_path / "old", *frames),
    ]
    out = report(folders, tmp_path / "out")
    best = pd.read_csv(out / "tables" / "best_architectures.csv")
    assert best["strategy"].eq("random").all()
    assert set(pd.read_csv(out / "tables" / "agreement_of_seeds.csv")["k"]) == {2}
    assert "the choices of top_down" in (out / "report.html").read_text()


def test_names_of_users_are_text(tmp_path: Path) -> None:
    results = with_genes("proxyless", name="<script>alert(1)</script>$x$")
    folder = synthetic.write(tmp_path / "named", results.searches, results.trace)
    report([folder], tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script>alert" not in page
    assert "gene 1" in (tmp_path / "out" / "tables" / "gene_agreement.csv").read_text()


FIGURES = """
return [...document.querySelectorAll('#architectures figure svg')].map(svg => {
  const box = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll('text')];
  return {
    images: svg.querySelectorAll('image').length,
    outside: texts.filter(text => {
      const inner = text.getBoundingClientRect();
      return inner.left < box.left - 2 || inner.right > box.right + 2
        || inner.top < box.top - 2 || inner.bottom > box.bottom + 2;
    }).map(text => text.textContent),
    size: Math.min(...texts.map(text => text.getBoundingClientRect().height)),
    // rows whose names overlap cannot be read
    clash: texts.filter(text => /^\\d\\.\\d$/.test(text.textContent))
      .map(text => text.getBoundingClientRect()).some((one, i, all) =>
        i > 0 && one.left < all[i - 1].right && Math.abs(one.top - all[i - 1].top) < 0.7 * one.height),
  };
});
"""


def test_the_heat_maps_can_be_read_on_a_telephone(reported: Path, chromium: Any) -> None:
    look_like(chromium, 400, "dark")
    chromium.get((reported / "report.html").as_uri())
    figures = chromium.execute_script(FIGURES)
    assert chromium.get_log("browser") == []
    assert len(figures) == 6
    for figure in figures:
        assert figure["images"] >= 4
        assert figure["outside"] == []
        assert figure["size"] >= 9
        assert not figure["clash"]
