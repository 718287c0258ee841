"""Measured latency tables: layers against OFA's own subnets, costs against OFA's own descriptions, files,
rounds, whole subnets. The commands are those of docs/tutorials/your-device.md.
"""

import dataclasses
import functools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from ofa.tutorial.latency_table import LatencyEstimator
from support.commands import assert_one_line, main_in_process
from support.latencies import made_up
from support.oracles import tutorial_spec

from topdown_ray import machine
from topdown_ray.errors import UserError
from topdown_ray.hardware import rounds, stopwatch, whole_subnets
from topdown_ray.hardware.rounds import Effort, RoundsState
from topdown_ray.networks import ofa_reference
from topdown_ray.networks.supernet import Supernet, build_layer, n_parameters
from topdown_ray.spaces import latency_table, ofa_tables
from topdown_ray.spaces.cost import full_name, load_cost, measured
from topdown_ray.spaces.latency_table import Conditions, LatencyTable, Source
from topdown_ray.spaces.layers import Layer
from topdown_ray.spaces.mobilenet_v3 import MOBILENET_V3
from topdown_ray.spaces.proxyless import PROXYLESS
from topdown_ray.spaces.registry import SPACES
from topdown_ray.spaces.resnet50d import RESNET50D
from topdown_ray.spaces.space import Space

EVERY_SPACE = pytest.mark.parametrize("space", SPACES.values(), ids=lambda space: space.name)
ONCE = Effort(least=1, most=1, warm=0)


active_network = functools.cache(ofa_reference.active_network)


def keys_of(space: Space, row: Any) -> list[Layer]:
    """The layers of an architecture, from OFA's own description of its subnet."""
    config = space.to_config(row)
    return [
        Layer(*key)
        for key in ofa_reference.layer_keys(active_network(space.name)(config), config["image_size"])
    ]


@EVERY_SPACE
def test_single_layers_are_those_of_ofas_subnets(space: Space) -> None:
    """Built alone, given the subnet's weights and run one behind the other, they compute what the subnet
    computes.
    """
    supernet = Supernet(space)
    for row in space.canonical(space.random(3, 5)):
        subnet = supernet.materialise(space.to_config(row))
        modules = [build_layer(layer) for layer in keys_of(space, row)]
        assert sum(n_parameters(module) for module in modules) == n_parameters(subnet)
        values = iter([*subnet.state_dict().values()])
        for module in modules:
            module.load_state_dict({name: next(values) for name in module.state_dict()})
            for norm in module.modules():
                if isinstance(norm, torch.nn.BatchNorm2d):
                    norm.eps = subnet.get_bn_param()["eps"]
        x = torch.randn(1, 3, *2 * [space.to_config(row)["image_size"]])
        with torch.inference_mode():
            expected, found = subnet(x), x
            for module, layer in zip(modules, keys_of(space, row), strict=True):
                found = found.flatten(1) if layer.kind == "linear" else found
                assert found.shape[1] == layer.width_in
                assert found.ndim == 2 or found.shape[2] == layer.size_in
                found = module(found)
                assert found.ndim == 2 or found.shape[1:3] == (layer.width_out, layer.size_out)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@EVERY_SPACE
def test_the_layers_of_a_space_are_those_that_its_subnets_have(space: Space) -> None:
    """None is missing and hardly one idle: the rarest has a chance of 1/27 a subnet, so 150 miss 0.4 % of
    such; 2 % are allowed.
    """
    seen: set[Layer] = set()
    active = active_network(space.name)
    for row in space.random(150, 7):
        description = active(space.to_config(row))
        for resolution in space.genes[space.resolution].choices:
            seen.update(Layer(*key) for key in ofa_reference.layer_keys(description, int(resolution)))
    assert seen <= set(space.distinct_layers())
    assert len(seen) > 0.98 * len(space.distinct_layers())


@EVERY_SPACE
def test_costs_of_measured_tables_are_sums_over_ofas_own_layers(space: Space, tmp_path: Path) -> None:
    table = made_up(space, check={"offset_ms": 0.7, "slope": 1.3})
    table.write(tmp_path / "t.parquet")
    genes, values = space.random(60, 1), table.values
    expected = np.array([sum(values[layer] for layer in keys_of(space, row)) for row in genes])
    for corrected, wanted in ((False, expected), (True, 0.7 + 1.3 * expected)):
        source = Source("t", tmp_path / "t.parquet", corrected)
        cost = measured(source, space)
        np.testing.assert_allclose(cost(genes).numpy(), wanted, rtol=1e-8)
        again = ofa_reference.measured_latency(source, space.name, cost.sha256)
        np.testing.assert_allclose([again(space.to_config(row)) for row in genes], wanted, rtol=1e-12)
        with pytest.raises(UserError, match="expected the table that the rows were computed with, SHA-256 0"):
            ofa_reference.measured_latency(source, space.name, "0" * 64)
    low, high = cost.range()
    assert low <= cost(genes).min()
    assert cost(genes).max() <= high


def test_the_hash_follows_what_decides_a_cost(tmp_path: Path) -> None:
    table = made_up(PROXYLESS, check={"offset_ms": 0.7, "slope": 1.3})
    plain, corrected = table.sha256(), table.sha256(corrected=True)
    assert plain != corrected
    other = dataclasses.replace(table, facts={"created_at": "later"}, check={"offset_ms": 0.7, "slope": 1.4})
    assert other.sha256() == plain
    assert other.sha256(corrected=True) != corrected
    assert dataclasses.replace(table, median_ms=table.median_ms * (1 + 1e-15)).sha256() != plain
    table.write(tmp_path / "t.parquet")
    assert latency_table.read(tmp_path / "t.parquet").sha256(corrected=True) == corrected


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    table = made_up(
        RESNET50D, conditions=Conditions("cuda:1", 1, 8, "float16", "graph", True), facts={"device": "x"}
    )
    table.write(tmp_path / "t.parquet")
    again = latency_table.read(tmp_path / "t.parquet")
    for item in dataclasses.fields(table):
        np.testing.assert_array_equal(getattr(again, item.name), getattr(table, item.name))
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]
    assert len(pd.read_parquet(tmp_path / "t.parquet")) == len(table.layers)  # any reader opens it


def test_what_is_no_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with pytest.raises(UserError, match=r"t.parquet: expected a latency table, found no readable file"):
        latency_table.read(path)
    for content in (b"", b"not parquet"):
        path.write_bytes(content)
        with pytest.raises(
            UserError, match=r"t.parquet: expected a latency table of `topdown-ray measure`, found another"
        ):
            latency_table.read(path)
    pd.DataFrame({"a": [1]}).to_parquet(path)
    with pytest.raises(UserError, match="found another file"):
        latency_table.read(path)
    table = made_up(MOBILENET_V3)
    for bad in (-1.0, float("nan"), float("inf")):
        dataclasses.replace(table, median_ms=np.where(np.arange(len(table.layers)) == 5, bad, 1.0)).write(
            path
        )
        with pytest.raises(UserError, match=r"median_ms of Layer\(.*expected a number of ms > 0, found"):
            latency_table.read(path)
    table.write(path)
    whole = pq.read_table(path)
    pq.write_table(whole.slice(1), path)
    with pytest.raises(UserError, match="expected every layer of mobilenet_v3 once, found no row for Layer"):
        latency_table.read(path)


def test_costs_by_name(tmp_path: Path) -> None:
    made_up(PROXYLESS).write(tmp_path / "t.parquet")
    path = str(tmp_path / "t.parquet")
    assert load_cost(path, PROXYLESS).name == "table:t"
    with pytest.raises(UserError, match=r"expected a table of resnet50d, found .*, a table of proxyless"):
        load_cost(path, RESNET50D)
    with pytest.raises(
        UserError, match=r"\+corrected: expected a table that was compared with whole subnets"
    ):
        load_cost(f"{path}+corrected", PROXYLESS)
    with pytest.raises(
        UserError, match=r"expected a measured table .* before \+corrected, found 'note10\+corrected'"
    ):
        load_cost("note10+corrected", MOBILENET_V3)
    assert full_name("note10") == "note10"
    assert full_name(f"{path}+corrected") == f"{Path(path).resolve()}+corrected"


@pytest.mark.parametrize("space", [MOBILENET_V3, PROXYLESS], ids=lambda space: space.name)
def test_published_form_is_written_and_read(space: Space, tmp_path: Path) -> None:
    table = made_up(space)
    table.write(tmp_path / "t.parquet")
    paths = ofa_tables.export(table, tmp_path / "yaml")
    assert len(paths) == 5
    genes = space.random(200, 3)
    cost = load_cost(str(tmp_path / "t.parquet"), space)(genes)
    read_back = load_cost(str(tmp_path / "yaml"), space)
    np.testing.assert_allclose(read_back(genes).numpy(), cost.numpy(), rtol=1e-7)
    # OFA's own table classes
    by_ofa = ofa_reference.latency_of(str(tmp_path / "yaml"), space.name, read_back.sha256)
    np.testing.assert_allclose([by_ofa(space.to_config(row)) for row in genes], cost.numpy(), rtol=1e-7)
    if space is MOBILENET_V3:
        estimator = LatencyEstimator.__new__(LatencyEstimator)
        estimator.lut = yaml.safe_load((tmp_path / "yaml" / "160_lookup_table.yaml").read_text())
        config = {**space.to_config(genes[0]), "image_size": 160}
        whole = measured(Source("t", tmp_path / "t.parquet", False), space)
        row = torch.from_numpy(space.from_config(config))[None]
        assert estimator.predict_network_latency_given_spec(tutorial_spec(config)) == pytest.approx(
            float(whole(row))
        )


def test_there_is_no_published_form_for_resnets(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"space for which OFA publishes tables .*, found resnet50d"):
        ofa_tables.export(made_up(RESNET50D), tmp_path / "yaml")
    assert not (tmp_path / "yaml").exists()


# --- rounds -------------------------------------------------------------------------------------------------


class Simulated:
    """A machine whose layers take known times, with noise and drift: what is tested is what is made of
    them.
    """

    def __init__(
        self, truth: np.ndarray[Any, Any], noise: float = 0.0, drift: float = 0.0, stop_after: int = 10**9
    ):
        self.truth, self.noise, self.drift, self.stop_after = truth, noise, drift, stop_after
        self.generator, self.laps_done = np.random.default_rng(0), 0
        self.orders: list[Sequence[int]] = []

    def facts(self) -> dict[str, Any]:
        return {"device": "simulated", "clock": "wall", "hardware": machine.hardware(), "versions": {}}

    def contention(self) -> float | None:
        return None

    def hold_layers(self, layers: Sequence[Layer]) -> None:
        assert len(layers) == len(self.truth)

    def hold_subnets(self, configs: Sequence[Any]) -> None:
        assert len(configs) == len(self.truth)

    def laps(self, order: Sequence[int]) -> list[float]:
        self.orders.append(list(order))
        times = []
        for i in order:
            self.laps_done += 1
            if self.laps_done > self.stop_after:
                raise KeyboardInterrupt
            speed = 1 + self.drift * self.laps_done / len(self.truth)
            times.append(float(self.truth[i] * speed * (1 + self.noise * self.generator.exponential())))
        return times


def simulated_rounds(watch: Simulated, effort: Effort, path: Path | None = None) -> tuple[Any, float]:
    return rounds.rounds(
        watch, len(watch.truth), effort, rounds.Journal(path, {"space": "x"}), lambda state: None
    )


def test_intervals_of_medians_cover_them() -> None:
    """4,000 medians of skewed samples: coverage 95 % or more by construction; below 0.94 with probability
    under 1e-3.
    """
    for n in (7, 20, 61):
        samples = np.random.default_rng(n).exponential(size=(n, 4000))
        low, high = rounds.median_interval(samples)
        assert ((low <= np.log(2)) & (np.log(2) <= high)).mean() > 0.94
        assert (low <= np.median(samples, axis=0)).all()
        assert (np.median(samples, axis=0) <= high).all()


def test_rounds_end_when_all_intervals_are_tight() -> None:
    truth = np.random.default_rng(1).uniform(0.1, 5, 100)
    quiet, _ = simulated_rounds(Simulated(truth, noise=0.001), Effort(precision=0.01, minutes=9))
    assert len(quiet) == 11
    noisy, _ = simulated_rounds(Simulated(truth, noise=0.1), Effort(precision=0.02, minutes=9))
    assert 11 < len(noisy) < 300
    assert rounds.half_widths(noisy).max() <= 0.02
    bound, _ = simulated_rounds(Simulated(truth, noise=1.0), Effort(precision=0.001, most=20, minutes=9))
    assert len(bound) == 20


def test_drift_spreads_evenly() -> None:
    """While the machine becomes twice as slow, every layer's share of the sum stays what it is."""
    truth = np.random.default_rng(2).uniform(0.1, 5, 300)
    samples, _ = simulated_rounds(Simulated(truth, drift=1 / 40), Effort(least=40, most=40, warm=0))
    found = np.median(samples, axis=0)
    np.testing.assert_allclose(found / found.sum(), truth / truth.sum(), rtol=0.03)
    said = rounds.noise(samples, Effort())
    assert said["throttled"]
    assert not rounds.noise(samples / samples.mean(axis=1, keepdims=True), Effort())["throttled"]


def test_every_round_has_an_order_of_its_own() -> None:
    watch = Simulated(np.ones(10))
    simulated_rounds(watch, Effort(least=3, most=3, warm=1))
    assert len(watch.orders) == 4
    assert all(sorted(order) == list(range(10)) for order in watch.orders)
    assert len({tuple(order) for order in watch.orders}) == 4


def test_outliers_are_counted() -> None:
    samples = np.random.default_rng(3).normal(1, 0.01, (50, 4))
    samples[3, 2] = samples[9, 2] = 5
    assert rounds.outliers(samples).tolist() == [0, 0, 2, 0]


def test_an_interrupted_measurement_goes_on(tmp_path: Path) -> None:
    layers = MOBILENET_V3.distinct_layers()
    truth, out = np.linspace(1, 2, len(layers)), tmp_path / "t.parquet"
    effort = Effort(least=6, most=6, warm=1)
    states: list[RoundsState] = []

    def run(watch: Simulated) -> LatencyTable:
        return rounds.measure_layers(watch, "mobilenet_v3", Conditions(), out, effort, states.append)

    with pytest.raises(KeyboardInterrupt):
        run(Simulated(truth, stop_after=int(4.5 * len(layers))))  # the warm round, three rounds, half a round
    partial = out.with_name("t.parquet.partial")
    assert len(partial.read_text().splitlines()) == 1 + 3
    with partial.open("a") as file:
        file.write('{"ms": [1.0, 2')  # the machine stopped while it wrote
    watch = Simulated(truth)
    table = run(watch)
    assert watch.laps_done == 4 * len(layers)  # a warm round and the three that were missing
    assert (table.count == 6).all()
    np.testing.assert_allclose(table.median_ms, truth)
    assert not partial.exists()
    assert states[-1].done == 1
    assert states[-1].tight == 1
    assert latency_table.read(out).sha256() == table.sha256()


def test_the_rounds_of_another_measurement_are_refused(tmp_path: Path) -> None:
    journal = rounds.Journal(tmp_path / "p", {"space": "x", "threads": 1})
    journal.load(2)
    journal.add([1.0, 2.0], 0.1)
    with pytest.raises(
        UserError,
        match=r"expected an unfinished measurement with threads 2, found 1; delete it to start again",
    ):
        rounds.Journal(tmp_path / "p", {"space": "x", "threads": 2}).load(2)
    (tmp_path / "p").write_text("something else\n")
    with pytest.raises(UserError, match="expected an unfinished measurement, found another file"):
        journal.load(2)


# --- real runs ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of this machine, one round."""
    path = tmp_path_factory.mktemp("real") / "here.parquet"
    rounds.measure_layers(
        stopwatch.Stopwatch("mobilenet_v3", Conditions()), "mobilenet_v3", Conditions(), path, ONCE
    )
    return path


def test_a_real_table_says_what_it_is(real: Path) -> None:
    table = latency_table.read(real)
    assert set(table.layers) == set(MOBILENET_V3.distinct_layers())
    assert (table.median_ms > 0).all()
    assert table.facts["device"] == machine.hardware()["processor"]
    assert set(table.facts["versions"]) >= {"python", "torch", "ofa", "topdown-ray"}
    assert table.facts["clock"] == "thread"
    assert table.facts["noise"]["contention"] > 0.9
    # a convolution of 30 times the work takes longer, on any machine
    blocks = {layer: ms for layer, ms in table.values.items() if layer.kind == "mbconv"}
    work = {
        layer: layer.size_out**2 * layer.width_mid * (layer.width_in + layer.width_out + layer.kernel**2)
        for layer in blocks
    }
    order = sorted(blocks, key=lambda layer: work[layer])
    assert np.mean([blocks[layer] for layer in order[-50:]]) > np.mean(
        [blocks[layer] for layer in order[:50]]
    )


def test_whole_subnets_are_compared_and_the_correction_is_kept(real: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    shutil.copy(real, path)
    before = latency_table.read(path)
    watch = stopwatch.Stopwatch("mobilenet_v3", Conditions())
    comparison = whole_subnets.compare(watch, path, 4, ONCE)
    after = latency_table.read(path)
    assert after.sha256() == before.sha256()
    assert after.check == json.loads(json.dumps(comparison.figures))
    assert (comparison.subnets["whole_ms"] > 0).all()
    genes = MOBILENET_V3.random(50, 2)
    # a line through four single runs may be no cost, so a known one takes its place
    after = dataclasses.replace(after, check={**after.check, "offset_ms": 0.7, "slope": 1.3})
    after.write(path)
    plain, corrected = (load_cost(f"{path}{suffix}", MOBILENET_V3) for suffix in ("", "+corrected"))
    expected = after.check["offset_ms"] + after.check["slope"] * plain(genes)
    np.testing.assert_allclose(corrected(genes).numpy(), expected.numpy(), rtol=1e-7)
    assert corrected.name == "table:t+corrected"
    picture = whole_subnets.write_comparison(comparison, after, tmp_path, "t.check")
    assert picture.read_text().count("sum of the table (ms)") == 1


def test_a_table_is_checked_from_the_command_line(
    real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.parquet"
    shutil.copy(real, path)
    told = main_in_process(["measure", "--check", path, "--subnets", 4, "--minutes", 0.01], capsys)
    assert told.returncode == 0, told.stderr
    assert "4 whole subnets (" in told.stdout
    assert f"picture: {tmp_path}/t.check.svg" in told.stdout
    assert (tmp_path / "t.check.svg").is_file()
    assert f"times: {tmp_path}/t.check.csv" in told.stdout
    times = pd.read_csv(tmp_path / "t.check.csv")
    assert len(times) == 4
    assert times["low_ms"].le(times["whole_ms"]).all()
    figures = latency_table.read(path).check
    assert figures["subnets"] == 4
    told = main_in_process(["table", path], capsys)
    assert f"corrected to {figures['slope']:.4f} x sum {figures['offset_ms']:+.3f} ms" in told.stdout
    wrong = main_in_process(["measure", "--check", path, "--picture", tmp_path / "t.png"], capsys)
    assert_one_line(wrong, "--picture: expected a .svg file in an existing folder, found")


def test_another_machines_table_is_not_compared(real: Path, tmp_path: Path) -> None:
    table = latency_table.read(real)
    dataclasses.replace(table, facts={**table.facts, "device": "another"}).write(tmp_path / "t.parquet")
    watch = stopwatch.Stopwatch("mobilenet_v3", Conditions())
    with pytest.raises(UserError, match=r"expected the machine of the table \(another\), found"):
        whole_subnets.compare(watch, tmp_path / "t.parquet", 4, ONCE)


def test_figures_of_a_comparison() -> None:
    total = np.linspace(10, 60, 50)
    figures = whole_subnets.sum_errors(total, 2 + 1.25 * total)
    assert figures["offset_ms"] == pytest.approx(2)
    assert figures["slope"] == pytest.approx(1.25)
    assert figures["tau"] == 1
    assert figures["corrected_rmse"] == pytest.approx(0, abs=1e-12)
    assert figures["bias"] == pytest.approx(np.mean(total / (2 + 1.25 * total)) - 1)
    assert whole_subnets.sum_errors(total, total[::-1].copy())["tau"] == -1
    broken = total.copy()
    broken[7] *= 10  # one subnet that met other work does not turn the line
    assert whole_subnets.sum_errors(total, broken)["slope"] == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    "conditions",
    [Conditions(batch=3, dtype="bfloat16"), Conditions(threads=2), Conditions(channels_last=True)],
    ids=["bfloat16", "threads", "channels last"],
)
def test_other_conditions_run(conditions: Conditions) -> None:
    try:
        watch = stopwatch.Stopwatch("mobilenet_v3", conditions)
        layers = [
            next(layer for layer in MOBILENET_V3.distinct_layers() if layer.kind == kind)
            for kind in ("conv", "linear")
        ]
        watch.hold_layers([*layers, max(MOBILENET_V3.distinct_layers())])
        assert all(lap > 0 for lap in watch.laps([2, 0, 1, 0]))
        assert (watch.contention() is None) == (conditions.threads > 1)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (Conditions("gpu"), "--device: expected cpu, cuda or cuda:N, found 'gpu'"),
        (Conditions("cuda:97"), "--device: expected .* CUDA device.*, found 'cuda:97'"),
        (Conditions(dtype="int8"), "--dtype: expected one of float32, bfloat16, float16, found 'int8'"),
        (Conditions(mode="fast"), "--mode: expected one of eager, compile, graph, found 'fast'"),
        (Conditions(mode="graph"), "--mode: expected eager or compile on a CPU"),
    ],
)
def test_conditions_that_cannot_be_met_are_named(conditions: Conditions, message: str) -> None:
    with pytest.raises(UserError, match=message):
        stopwatch.Stopwatch("mobilenet_v3", conditions)
