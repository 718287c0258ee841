"""What the explorer knows: layers, costs, points, and how much room they take."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support import synthetic
from support.reporting import context_of
from support.sweeping import ALL_SPACES
from support.sweeping import run as sweep
from torch import nn

from topdown_ray import load
from topdown_ray.networks.supernet import Supernet
from topdown_ray.report import explorer, layers
from topdown_ray.report.build import write_report
from topdown_ray.report.page import Top, page
from topdown_ray.report.sections.explorer import explorer as section
from topdown_ray.spaces.cost import load_cost, peak_activation
from topdown_ray.spaces.layers import Layer
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.space import Space

EFFECTS = {"random": -0.01, "independent": 0.0, "top_down": 0.001}
SPACE_NAMES = ["mobilenet_v3", "resnet50d", "proxyless"]
COSTS = ["macs", "params", "epyc_1thread", "epyc_1thread+corrected"]


def known(*folders: Path) -> dict[str, Any]:
    found = explorer.payload(context_of(*folders))
    assert found is not None
    return json.loads(explorer.embedded(found))


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Real searches of all spaces, by cost."""
    folder = tmp_path_factory.mktemp("explored")
    targets = {"mobilenet_v3": [[40, 30]], "resnet50d": [[200, 120]], "proxyless": [[40, 35]]}
    changes = {"strategies": ["top_down", "joint"], "seeds": 2}
    sweep(ALL_SPACES, folder / "macs", **changes)
    sweep(ALL_SPACES, folder / "epyc", **changes, cost="epyc_1thread", targets=targets)
    return {"macs": folder / "macs", "epyc_1thread": folder / "epyc"}


def entries(told: dict[str, Any], i: int) -> Iterator[tuple[list[list[Any]], Any]]:
    """The layers and the cost of each term of a point's architecture, as the page looks them up."""
    subject = told["subjects"][told["points"]["subject"][i]]
    genes = [int(digit, 36) for digit in told["archs"][told["points"]["arch"][i]]]
    tables = told["spaces"][subject["space"]]["tables"]
    for t, term in enumerate(tables["terms"]):
        entry = term["entries"][np.ravel_multi_index([genes[g] for g in term["genes"]], term["sizes"])]
        cost = subject["costs"][t][np.ravel_multi_index([genes[g] for g in term["genes"]], term["sizes"])]
        yield [tables["layers"][layer] for layer in tables["groups"][entry]], cost


@pytest.mark.parametrize("cost", ["macs", "epyc_1thread"])
def test_the_layers_of_a_row_cost_what_the_row_costs(swept: dict[str, Path], cost: str) -> None:
    told = known(swept[cost])
    rows = load(swept[cost]).searches
    answers = [i for i, cell in enumerate(told["points"]["cell"]) if told["cells"][cell][3] is not None]
    assert len(answers) == len(rows)
    assert {told["cells"][cell][0].split("*")[0].split(" ")[0] for cell in told["points"]["cell"]} == set(
        SPACE_NAMES
    )
    for i in range(len(told["points"]["cost"])):
        parts = [(here, np.atleast_1d(paid)) for here, paid in entries(told, i)]
        # every layer has a cost of its own
        assert [len(here) for here, _ in parts] == [len(paid) if here else 0 for here, paid in parts]
        assert sum(paid.sum() for _, paid in parts) == pytest.approx(told["points"]["cost"][i], rel=1e-5)


@pytest.mark.parametrize(
    ("name", "cost"), [*itertools.product(SPACE_NAMES, COSTS), ("mobilenet_v3", "note10")]
)
def test_entries_add_up_to_the_cost_model(name: str, cost: str) -> None:
    space = SPACES[name]
    model, tables = load_cost(cost, space), layers.layer_tables(space)
    assert tables is not None
    costs = layers.term_costs(tables, ["nothing", cost], model.sha256)
    assert costs is not None
    genes = space.random(50, 7)
    sums = np.zeros(len(genes))
    for term, values in zip(tables.terms, costs, strict=True):
        places = np.ravel_multi_index([genes[:, g].numpy() for g in term.genes], term.groups.shape)
        sums += [np.sum(values[place]) for place in places]
    np.testing.assert_allclose(sums, model(genes).numpy(), rtol=1e-5)


def test_another_table_gives_no_costs(tmp_path: Path) -> None:
    space = SPACES["mobilenet_v3"]
    tables = layers.layer_tables(space)
    assert tables is not None
    assert layers.term_costs(tables, ["macs"], "another") is None
    assert layers.term_costs(tables, ["peak_activation"], peak_activation(space).sha256) is None
    assert layers.term_costs(tables, ["my_module:my_cost", str(tmp_path / "gone.parquet")], "x") is None


def test_a_table_that_is_not_here_is_not_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    space = SPACES["mobilenet_v3"]
    sha256 = load_cost("note10", space).sha256
    tables = layers.layer_tables(space)
    assert tables is not None
    monkeypatch.setenv("TOPDOWN_RAY_ASSETS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TOPDOWN_RAY_MIRROR", "http://127.0.0.1:9")
    assert layers.term_costs(tables, ["note10"], sha256) is None


# --- OFA's own layers


def convolutions(subnet: nn.Module) -> list[tuple[int, ...]]:
    """Channels in and out, kernel and stride of every convolution and classifier, in the order of modules."""
    found = []
    for module in subnet.modules():
        if isinstance(module, nn.Conv2d):
            shape = (module.in_channels, module.out_channels, module.kernel_size[0], module.stride[0])
            found.append(shape if module.groups == 1 else (*shape, module.groups))
        elif isinstance(module, nn.Linear):
            found.append((module.in_features, module.out_features))
    return found


def expected(layer: Layer) -> list[tuple[int, ...]]:
    """The convolutions that OFA's module of a layer has, in its order."""
    x = layer
    if x.kind == "conv":
        return [(x.width_in, x.width_out, x.kernel, x.stride)]
    if x.kind == "linear":
        return [(x.width_in, x.width_out)]
    if x.kind == "mbconv":
        first = [(x.width_in, x.width_mid, 1, 1)] if x.width_mid != x.width_in else []
        return [
            *first,
            (x.width_mid, x.width_mid, x.kernel, x.stride, x.width_mid),
            (x.width_mid, x.width_out, 1, 1),
        ]
    if x.kind == "bottleneck":
        found = [
            (x.width_in, x.width_mid, 1, 1),
            (x.width_mid, x.width_mid, x.kernel, x.stride),
            (x.width_mid, x.width_out, 1, 1),
        ]
        return found if x.shortcut else [*found, (x.width_in, x.width_out, 1, 1)]
    return []


def layers_in_order(space: Space, genes: np.ndarray) -> list[Layer]:
    tables = layers.layer_tables(space)
    assert tables is not None
    outside: list[Layer] = []
    blocks: list[Layer] = []
    for term in tables.terms:
        group = tables.groups[int(term.groups[tuple(genes[g] for g in term.genes)])]
        (outside if term.stage < 0 else blocks).extend(group)
    behind = [layer for layer in outside if layer.size_in < blocks[0].size_in]
    return [*outside[: len(outside) - len(behind)], *blocks, *behind]


@pytest.mark.parametrize("name", SPACE_NAMES)
def test_layers_are_those_of_ofas_subnets(name: str) -> None:
    space = SPACES[name]
    supernet = Supernet(space)
    for genes in space.canonical(space.random(4, 5)).numpy():
        theirs = convolutions(supernet.materialise(space.to_config(genes)))
        found = layers_in_order(space, genes)
        ours = [shape for layer in found for shape in expected(layer)]
        assert not Counter(ours) - Counter(theirs)
        # only the 1x1 convolutions inside squeeze-and-excite are not told
        squeezes = sum(layer.squeeze for layer in found)
        assert (Counter(theirs) - Counter(ours)).total() == 2 * squeezes
        one, other = ([x for x in shapes if len(x) != 4 or x[2] > 1] for shapes in (ours, theirs))
        assert one == other, "the order"


@pytest.mark.parametrize("name", SPACE_NAMES)
def test_the_pattern_gives_the_configuration(name: str) -> None:
    space = SPACES[name]
    for genes in space.random(5, 2).numpy():
        text = layers.config_pattern(space)
        for g, gene in enumerate(space.genes):
            text = text.replace(f"%{g}%", json.dumps(gene.choices[genes[g]]))
        assert text == json.dumps(space.to_config(genes))


def test_a_space_that_joins_in_its_own_way_has_no_layers() -> None:
    space = SPACES["mobilenet_v3"]

    def odd(*arguments: Any, joined: Any = sum, **options: Any) -> Any:
        return space.traits.layer_terms(*arguments, joined=sum, **options)

    traits = dataclasses.replace(space.traits, layer_terms=odd)
    assert layers.layer_tables(dataclasses.replace(space, provides=traits)) is None
    assert layers.layer_tables(dataclasses.replace(space, provides=None)) is None


# --- points


def test_points_are_the_rows(swept: dict[str, Path]) -> None:
    told, rows = known(swept["epyc_1thread"]), load(swept["epyc_1thread"]).searches
    points = told["points"]
    found = pd.DataFrame(
        {
            "strategy": [told["cells"][cell][1] for cell in points["cell"]],
            "target": [told["cells"][cell][3] for cell in points["cell"]],
            **{name: points[name] for name in ("seed", "cost", "accuracy", "macs", "params")},
            "space": [told["spaces"][told["subjects"][i]["space"]]["name"] for i in points["subject"]],
        }
    ).dropna(subset="target")
    keys = ["space", "strategy", "target", "seed"]
    both = rows.merge(found, on=keys, suffixes=("", "_shown"), validate="one_to_one")
    assert len(both) == len(rows)
    np.testing.assert_allclose(both["cost_shown"], both["cost"], atol=1e-6)
    np.testing.assert_allclose(both["accuracy_shown"], 100 * both["accuracy"], atol=1e-6)
    np.testing.assert_allclose(both["macs"], both["macs_m"], atol=1e-3)
    np.testing.assert_allclose(both["params"], both["params_m"], atol=1e-4)


def test_fronts_hold_what_no_other_architecture_beats(swept: dict[str, Path]) -> None:
    told, front = known(swept["macs"]), load(swept["macs"]).front
    assert told["fronts"]["of"] == len(front)
    points = told["points"]
    mine = [
        (points["cost"][i], points["accuracy"][i])
        for i, cell in enumerate(points["cell"])
        if told["cells"][cell][3] is None and told["cells"][cell][0].startswith("resnet50d")
    ]
    assert mine
    rows = front[front["space"] == "resnet50d"]
    for cost, accuracy in mine:
        assert 100 * rows["accuracy"][rows["cost"] < cost - 1e-6].max() < accuracy or cost == min(mine)[0]


def test_thinning_keeps_the_best_of_each_target_and_every_answer_that_none_beats(tmp_path: Path) -> None:
    folder = synthetic.write(tmp_path / "many", *synthetic.frames(EFFECTS, seeds=60))
    rows = context_of(folder).data.distinct()
    few = explorer.thinned(rows, 300)
    assert len(few) == 300
    pd.testing.assert_frame_equal(few, explorer.thinned(rows, 300))
    keys = ["strategy", "targets", "target"]
    best = rows.groupby(keys)["accuracy"].max()
    pd.testing.assert_series_equal(few.groupby(keys)["accuracy"].max(), best)
    for _, group in rows.groupby(["strategy", "targets"]):
        for row in group.to_dict("records"):
            cheaper = group[(group["cost"] <= row["cost"]) & (group["answer"] != row["answer"])]
            if cheaper.empty or cheaper["accuracy"].max() < row["accuracy"]:
                assert row["answer"] in set(few["answer"])


@pytest.mark.slow
def test_ten_thousand_answers_fit(tmp_path: Path) -> None:
    searches, trace = synthetic.frames(EFFECTS, sets=[tuple(range(60, 14, -1))], seeds=73, points=1)
    space = SPACES["mobilenet_v3"]
    assert len(searches) > 10_000
    genes = space.random(len(searches), 3).numpy()
    searches["arch"], searches["genes"] = space.texts(genes), list(genes)
    searches["cost"] -= np.random.default_rng(0).random(len(searches))
    folder = synthetic.write(tmp_path / "many", searches, trace)
    made = write_report([folder], tmp_path / "out").path.read_text()
    assert len(made.encode()) < 3_000_000
    assert f"The page contains 5,000 of {len(searches):,} answers" in made
    assert section(context_of(folder)).html in made  # type: ignore[union-attr]


def test_names_from_users_stay_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    searches, trace = synthetic.frames({"mine": 0.0, "top_down": 0.0})
    searches["label"] = searches["strategy"].replace("mine", f"{evil}\"'&")
    folder = synthetic.write(tmp_path / "<b>x", searches, trace)
    made = section(context_of(folder))
    assert made is not None
    whole = page(Top("title", [], [], []), [made])
    assert "<script>alert" not in whole
    assert "<b>x" not in whole
    assert whole.count("</script>") == whole.count("<script") == 4
    told = known(folder)
    assert f"{evil}\"'&" in told["strategies"]


def test_rows_of_an_unknown_space_or_without_architectures_stay_points(tmp_path: Path) -> None:
    searches, trace = synthetic.frames(EFFECTS, seeds=2)
    searches["space"], searches["arch"] = "elsewhere", '{"a": [1, 2]}'
    told = known(synthetic.write(tmp_path / "elsewhere", searches, trace))
    assert told["archs"] == ['{"a": [1, 2]}']
    assert [subject["space"] for subject in told["subjects"]] == [-1]
    searches, trace = synthetic.frames(EFFECTS, seeds=2)
    told = known(synthetic.write(tmp_path / "none", searches, trace))
    assert told["archs"] == ["{}"]
    assert told["subjects"][0]["costs"] is None  # of another hash


def test_without_an_answer_that_met_its_target_there_is_no_explorer(tmp_path: Path) -> None:
    searches, trace = synthetic.frames(EFFECTS, seeds=2)
    some = searches.assign(feasible=searches["seed"] == 0)
    made = section(context_of(synthetic.write(tmp_path / "some", some, trace)))
    assert made is not None
    assert f"Answers that do not meet their target are left out ({len(searches) // 2})." in made.html
    none = synthetic.write(tmp_path / "none", searches.assign(feasible=False), trace)
    assert section(context_of(none)) is None
