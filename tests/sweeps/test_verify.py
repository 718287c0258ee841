"""``verify`` on a real folder: a change of any column that can be derived fails, and the failing column is
named.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.commands import SWEEP, assert_one_line, main_in_process
from support.oracles import network
from support.sweeping import run
from support.tampering import rewritten

import topdown_ray
from topdown_ray.algorithms import strategies
from topdown_ray.errors import UserError
from topdown_ray.networks import ofa_reference
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.space import Space
from topdown_ray.store.reading import SEARCH_KEYS
from topdown_ray.store.results import load
from topdown_ray.store.schema import FRONT, INCIDENTAL, SEARCHES, TRACE
from topdown_ray.sweeps import checks
from topdown_ray.sweeps.identities import ALGORITHM_VERSION
from topdown_ray.sweeps.spec import make_spec
from topdown_ray.sweeps.verify import verify

STRATEGIES = ["independent", "random", "bottom_up", "top_down", "prune", "joint"]

#: Columns that follow from others, or from run.json.
DERIVED = [name for name in SEARCHES.names if name not in INCIDENTAL]
DERIVED_TRACE = TRACE.names
DERIVED_FRONT = [
    name for name in FRONT.names if name != "search_id"
]  # by it the other checks find their rows


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two spaces under their own targets, all strategies."""
    out = tmp_path_factory.mktemp("sweep") / "out"
    data = {
        **SWEEP,
        "seeds": 1,
        "spaces": ["mobilenet_v3", "resnet50d"],
        "strategies": STRATEGIES,
        "targets": {
            "mobilenet_v3": [[400, {"macs": 300, "params": 6.5}, {"macs": 250, "params": 6.0}], [350]],
            "resnet50d": [[3000, 2000]],
        },
        "search": {"population": 10, "generations": 4, "warm_generations": 2},
    }
    run(data, out)
    return out


def changed(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, str) and value.startswith("{"):
        config = json.loads(value)
        if "image_size" not in config:  # limits, or costs
            return json.dumps({name: 1.001 * number for name, number in config.items()})
        return json.dumps({**config, "image_size": 160 if config["image_size"] != 160 else 176})
    if isinstance(value, str):
        return f"{value[:-1]}{'0' if value[-1] != '0' else '1'}"
    if isinstance(value, bool | np.bool_):
        return not value
    if isinstance(value, np.ndarray):
        return value + (value == value[0]).astype(value.dtype)
    return value * 1.001 if isinstance(value, float) else value + 1000


def test_all_columns_are_derived_or_incidental() -> None:
    """Of the table's columns these alone follow from nothing: what they hold is not checked."""
    assert set(INCIDENTAL) >= {
        "shard_id",
        "wall_s",
        "search_wall_s",
        "batch_size",
        "device",
        "threads",
        "host",
        "started_at",
    }
    assert set(DERIVED) | set(INCIDENTAL) == set(SEARCHES.names)


def test_an_untouched_folder_passes_every_check(finished: Path, tmp_path: Path) -> None:
    plain = rewritten(finished, tmp_path / "out", lambda searches, trace: None)
    for folder in (finished, plain):
        found = verify(load(folder))
        assert found.passed, found
        assert all(each.rows > 0 and not each.not_checked for each in found.checks)
        checked = {column for each in found.checks for column in each.columns}
        fronts = {f"front.{name}" for name in DERIVED_FRONT}
        assert checked == {*DERIVED, *(f"trace.{name}" for name in DERIVED_TRACE), *fronts}


@pytest.mark.parametrize("column", DERIVED)
def test_a_changed_column_is_named(column: str, finished: Path, tmp_path: Path) -> None:
    place: list[Any] = []

    def change(searches: pd.DataFrame, trace: pd.DataFrame) -> None:
        row = searches.index[searches["strategy"].eq("top_down") & searches["target"].eq(300.0)][0]
        value = searches.at[row, column]
        searches.at[row, column] = changed(value)
        place.extend([searches.at[row, "search_id"], searches.at[row, "target"]])

    folder = rewritten(finished, tmp_path / "out", change)
    if column in ("k", "target_index"):  # contradicts the row's own targets, which loading tells
        with pytest.raises(
            UserError, match="searches: targets: expected k targets and the target_index of one of them"
        ):
            load(folder)
        return
    found = verify(load(folder))
    assert not found.passed
    # of an architecture only what follows from it can tell that it is another one
    named = {"arch": "genes"}.get(column, column)
    assert named in found.failed_columns, found.failed_columns
    failed = [each for each in found.checks if each.failures and named in each.columns]
    assert place in [[each.search_id, each.target] for each in failed if each.failures == 1]
    assert all(each.expected != each.found for each in failed)


@pytest.mark.parametrize("column", DERIVED_TRACE)
def test_a_changed_column_of_the_trace_is_named(column: str, finished: Path, tmp_path: Path) -> None:
    """The curve of one row, or the last point of it."""

    def change(searches: pd.DataFrame, trace: pd.DataFrame) -> None:
        row = searches[searches["strategy"].eq("joint") & searches["target"].eq(300.0)].iloc[0]
        curve = trace.index[
            trace["search_id"].eq(row["search_id"]) & trace["target_index"].eq(row["target_index"])
        ]
        for index in curve if column in ("search_id", "shard_id") else curve[-1:]:
            trace.at[index, column] = changed(trace.at[index, column])

    found = verify(load(rewritten(finished, tmp_path / "out", change)))
    assert f"trace.{column}" in found.failed_columns, found.failed_columns


@pytest.mark.parametrize("column", FRONT.names)
def test_a_changed_column_of_the_front_is_named(column: str, finished: Path, tmp_path: Path) -> None:
    def change(front: pd.DataFrame) -> None:
        # of a search with limits, whose rows have other costs
        row = front.index[front["place"].eq(3) & front["costs"].notna()][0]
        front.at[row, column] = -1e-3 if column == "epsilon" else changed(front.at[row, column])

    folder = rewritten(finished, tmp_path / "out", lambda searches, trace: None, change)
    found = verify(load(folder))
    # a row of no search is missed; of an architecture what follows from it tells that it is another one
    wanted = {"search_id": "front_rows", "arch": "front.accuracy"}.get(column, f"front.{column}")
    assert wanted in found.failed_columns, found.failed_columns


def test_a_front_without_one_of_its_rows_and_with_a_dominated_one(finished: Path, tmp_path: Path) -> None:
    def fewer(front: pd.DataFrame) -> None:
        front.at[front.index[-1], "search_id"] = "another"

    def dominated(front: pd.DataFrame) -> None:
        """The second architecture of a front once more, as its last one."""
        own = front.index[front["search_id"].eq(front.at[0, "search_id"])]
        for name in ("cost", "costs", "accuracy", "arch", "macs_m", "params_m"):
            front.at[own[-1], name] = front.at[own[0], name]
        front.at[own[-1], "accuracy"] -= 5e-6

    nothing = lambda searches, trace: None  # noqa: E731
    found = verify(load(rewritten(finished, tmp_path / "fewer", nothing, fewer)))
    # the row that is gone was the most accurate one
    assert found.failed_columns == {"front_rows", "accuracy"}
    found = verify(load(rewritten(finished, tmp_path / "dominated", nothing, dominated)))
    assert found.failed_columns == {"front.cost", "front.arch"}


def test_feasible_is_checked_both_ways(finished: Path) -> None:
    """Also where cost and verdict were changed together, so that they agree with each other."""
    results = load(finished)
    for factor, verdict in ((1.5, False), (0.5, True)):
        rows = results.searches.copy()
        rows.loc[3, "feasible"] = verdict
        rows.loc[3, "cost"] = rows.loc[3, "target"] * factor
        found = verify(topdown_ray.Results(results.manifest, rows, results.trace, results.place))
        # true: the architecture meets its target
        assert ("feasible" in found.failed_columns) == (not verdict)
        assert "cost" in found.failed_columns
    rows = results.searches.copy()
    rows.loc[3, "feasible"] = False
    found = verify(topdown_ray.Results(results.manifest, rows, results.trace, results.place))
    assert found.failed_columns == {"feasible"}


def test_values_that_are_missing_fail(finished: Path, tmp_path: Path) -> None:
    for column in ("seed", "target", "feasible", "accuracy", "arch", "evaluations"):
        folder = tmp_path / column

        def change(searches: pd.DataFrame, trace: pd.DataFrame, column: str = column) -> None:
            searches[column] = searches[column].astype(object)
            searches.at[5, column] = None

        rewritten(finished, folder, change)
        if column in SEARCH_KEYS:  # missed when the rows are loaded
            with pytest.raises(UserError, match=rf"searches/.*: {column}: expected a value in every row"):
                load(folder)
        else:
            assert column in verify(load(folder)).failed_columns


def test_a_search_without_one_of_its_targets_and_one_too_many(finished: Path) -> None:
    results = load(finished)
    rows = results.searches
    first = rows.index[rows["k"] == 3][0]
    fewer = verify(
        topdown_ray.Results(results.manifest, rows.drop(index=first), results.trace, results.place)
    )
    assert fewer.failed_columns == {"search_id", "target_index", "trace.target_index"}
    twice = pd.concat([rows, rows.loc[[first]]])
    assert verify(
        topdown_ray.Results(results.manifest, twice, results.trace, results.place)
    ).failed_columns == {
        "search_id",
        "target_index",
    }
    gone = rows[rows["search_id"] != rows.loc[first, "search_id"]]
    found = verify(topdown_ray.Results(results.manifest, gone, results.trace, results.place))
    assert found.missing == 1
    failed = next(each for each in found.checks if each.failures)
    assert failed.expected.startswith("'mobilenet_v3, ")
    assert failed.found == "no rows"
    running = {**results.manifest, "status": "running"}
    trace = results.trace[results.trace["search_id"].isin(gone["search_id"])]
    assert verify(topdown_ray.Results(running, gone, trace, results.place)).passed


def test_rerun_finds_what_nothing_else_can(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows that are consistent in themselves, with fewer predictor rows than were taken."""

    def change(searches: pd.DataFrame, trace: pd.DataFrame) -> None:
        searches["unique_evaluations"] = searches["unique_evaluations"] // 2

    results = load(finished)
    before = {path: path.read_bytes() for path in sorted(finished.rglob("*")) if path.is_file()}
    done = main_in_process(["verify", finished, "--rerun", 3, "--rerun-seed", 7, "--json"], capsys)
    found = {each["name"]: each for each in json.loads(done.stdout)["checks"]}
    assert 3 <= found["rerun"]["rows"] <= 9
    assert found["rerun trace"]["rows"] > 0
    every = {each.name: each.rows for each in verify(results, rerun=1000).checks}
    assert every["rerun front"] == len(results.front) > 100
    assert {path: path.read_bytes() for path in sorted(finished.rglob("*")) if path.is_file()} == before
    folder = rewritten(finished, tmp_path / "out", change)
    again = main_in_process(["verify", folder, "--rerun", 2], capsys)
    assert again.returncode == 1
    assert "the same bits when searched again" in again.stdout
    assert "unique_evaluations: " not in again.stdout  # 0 to evaluations: only the rerun can tell
    wrong = results.trace.copy()
    long = results.searches["search_id"][results.searches["generations"] == 4]
    inner = wrong.index[wrong["search_id"].isin(long) & wrong["generation"].eq(1)]
    assert len(inner) > 3
    wrong.loc[inner, "best_accuracy"] -= 1e-12  # within bounds: between its neighbours
    changed_trace = topdown_ray.Results(results.manifest, results.searches, wrong, results.place)
    assert verify(changed_trace).passed
    # all rows, and no other column
    assert verify(changed_trace, rerun=1000).failed_columns == {"best_accuracy"}


def test_a_rerun_leaves_alone_what_older_folders_do_not_tell(finished: Path, tmp_path: Path) -> None:
    """Also where only some of the rows are of an older schema."""

    def before(searches: pd.DataFrame, trace: pd.DataFrame) -> None:
        old = searches["space"].eq("mobilenet_v3")
        searches["front_rows"] = searches["front_rows"].mask(old).astype(object)
        identities.extend(searches["search_id"][old])

    def without(front: pd.DataFrame) -> None:
        old = front["search_id"].isin(identities)
        front.loc[old, "search_id"] = "gone"

    identities: list[str] = []
    found = verify(load(rewritten(finished, tmp_path / "out", before, without)), rerun=1000)
    assert found.passed, [each for each in found.checks if each.failures]
    assert next(each.rows for each in found.checks if each.name == "rerun front")


def test_a_front_that_was_cut_is_told(finished: Path, tmp_path: Path) -> None:
    def one_each(searches: pd.DataFrame, trace: pd.DataFrame) -> None:
        searches["front_rows"] = searches["front_rows"].clip(upper=1)

    def cut(front: pd.DataFrame) -> None:
        front.loc[front["place"] > 0, "search_id"] = "gone"

    found = verify(load(rewritten(finished, tmp_path / "out", one_each, cut)))
    assert [each.name for each in found.checks if each.failures] == ["front, as accurate as the answers"]


def test_joint_folders_with_patience_of_older_schemas_are_refused(tmp_path: Path) -> None:
    data = {**SWEEP, "strategies": ["joint"], "search": {**SWEEP["search"], "patience": 2}}
    run(data, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    (tmp_path / "out" / "run.json").write_text(json.dumps({**manifest, "schema": 6}))
    for refused in (
        lambda: verify(load(tmp_path / "out")),
        lambda: topdown_ray.sweep(str(tmp_path / "out"), tmp_path / "out", address="none", progress=False),
    ):
        with pytest.raises(UserError, match=r"schema: expected at least 7 to .*, found 6"):
            refused()


def test_older_folders_say_what_is_not_checked(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(searches: pd.DataFrame, trace: pd.DataFrame) -> None:
        searches[["gradients", "unique_evaluations"]] = None

    folder = rewritten(finished, tmp_path / "out", change)
    manifest = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**manifest, "schema": 1, "algorithm": 0}))
    done = main_in_process(["verify", folder, "--rerun", 2], capsys)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    for name in ("run_id", "search_id", "rerun"):
        assert (
            f"  {name}: the rows were written by algorithm 0, and this version has {ALGORITHM_VERSION}"
            in lines
        )
    for name in ("unique_evaluations", "gradients"):
        assert f"  {name}: tables of schema 1 do not have this column" in lines
    assert lines[-1] == "All checks passed."


def test_the_output_is_plain_and_narrow(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(searches: pd.DataFrame, trace: pd.DataFrame) -> None:
        searches["params_m"] += 1
        searches.loc[0, "strategy"] = "x" * 1000
        searches.loc[1, "host"] = "\x1b[31m"

    folder = rewritten(finished, tmp_path / "out", change)
    done = main_in_process(["verify", folder], capsys)
    assert done.returncode == 1
    assert done.stderr == ""
    assert done.stdout.endswith("\nSome checks FAILED.\n")
    assert all(len(line) <= 80 and line.isprintable() for line in done.stdout.splitlines())
    rows = load(folder).searches
    assert (
        f"params_m: {len(rows) - 1} of {len(rows) - 1} rows failed. Expected: the value recomputed from arch."
        in " ".join(done.stdout.split())
    )
    facts = json.loads(main_in_process(["verify", folder, "--json"], capsys).stdout)
    assert facts["passed"] is False
    strategy = next(each for each in facts["checks"] if each["name"] == "strategy")
    assert strategy["failures"] == 1
    assert len(strategy["found"]) < 200


@pytest.mark.parametrize(
    "change",
    [
        {"artefacts": {}},
        {"artefacts": {"mobilenet_v3": 3}},
        {"artefacts": None},
        {"algorithm": "one"},
        {"spec": {"name": 3}},
    ],
    ids=str,
)
def test_a_manifest_that_is_none_is_one_line(
    change: dict[str, Any], finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = rewritten(finished, tmp_path / "out", lambda searches, trace: None)
    manifest = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**manifest, **change}))
    assert_one_line(main_in_process(["verify", folder], capsys), "run.json: ", next(iter(change)))


# --- the oracles --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", list(SPACES.values()), ids=lambda space: space.name)
def test_parameters_and_genes_are_those_of_whole_subnets(space: Space) -> None:
    supernet = network(space)
    parameters, genes_of = ofa_reference.parameters_of(space.name), ofa_reference.genes_of(space.name)
    for genes in space.canonical(space.random(6, 11)):
        config = space.to_config(genes)
        supernet.set_active_subnet(**{key: value for key, value in config.items() if key != "image_size"})
        subnet = supernet.get_active_subnet(preserve_weight=False)
        assert parameters(config) == sum(parameter.numel() for parameter in subnet.parameters()) / 1e6
        assert genes_of(config) == genes.tolist()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("population", [4, 7, 20])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_rules_of_evaluations_add_up(strategy: str, population: int, k: int) -> None:
    """Over a search's targets, to what the package says that a search costs."""
    spec = make_spec(
        {**SWEEP, "search": {"population": population, "generations": 9, "warm_generations": 4}}, "test"
    )
    total, params = 0, spec.search.of(strategy)
    for index in range(k):
        last = checks.generations_of(strategy, params, k, index)
        assert last is not None
        curve = [checks.evaluations_by(strategy, params, k, index, number) for number in range(last + 1)]
        assert None not in curve
        total += curve[-1] or 0
    assert total == strategies.STRATEGIES[strategy].evaluations(params, k)
