"""Each strategy reads its own hyper-parameters from the mapping ``search`` of a sweep.

``data/known_identities.json`` holds sweeps with and without ``joint``, what run.json held of them and their
identities, as they were while the specification still knew the parameters of ``joint``.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from topdown_ray.algorithms.joint_parameters import JointParams
from topdown_ray.algorithms.parameters import EvolutionParams
from topdown_ray.algorithms.strategies import STRATEGIES, Outcome, Searches, strategy
from topdown_ray.errors import UserError
from topdown_ray.sweeps.groups import Group
from topdown_ray.sweeps.identities import search_id, sweep_identity
from topdown_ray.sweeps.spec import SweepSpec, make_spec

KNOWN: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data" / "known_identities.json").read_text()
)
ARTEFACTS = {"mobilenet_v3": {"cost": "c", "predictor": "p"}}
TARGETS = (400.0, 250.0)


def spec(strategies: list[str], search: dict[str, Any]) -> SweepSpec:
    data = {"name": "known", "spaces": ["mobilenet_v3"], "strategies": strategies, "search": search}
    data |= {"cost": "macs", "predictor": "embedded", "targets": [list(TARGETS)], "seeds": 3}
    return make_spec(data, "t")


def identity(strategy: str, of: SweepSpec) -> str:
    group = Group("mobilenet_v3", strategy, TARGETS, of.search.of(strategy))
    return search_id(group, 1, "default", ARTEFACTS["mobilenet_v3"])


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: f"{known['strategies']}-{known['search']}")
def test_identities_and_run_json_are_as_they_were(known: dict[str, Any]) -> None:
    # as run.json states them: joint has lengths of its own since, where none are stated
    found = spec(known["strategies"], {"generations": 500, "warm_generations": 100, **known["search"]})
    written = found.model_dump(mode="json")
    assert list(written["search"].items()) == list(known["written"].items())
    assert sweep_identity(found, ARTEFACTS) == known["run_id"]
    assert {name: identity(name, found) for name in known["strategies"]} == known["search_ids"]
    assert make_spec(written, "run.json: spec") == found


@pytest.mark.parametrize("strategies", [["top_down"], ["joint"], ["top_down", "joint"]])
@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"population": 3}, "search.population: expected a number greater than or equal to 4, found 3"),
        ({"archive": -1}, "search.archive: expected a number greater than or equal to 0, found -1"),
        ({"changes": True}, "search.changes: expected a valid integer, found True"),
        (
            {"parent_ratio": 0.001},
            "search: parent_ratio: expected at least one parent in a population of 100, found 0.001",
        ),
        (
            {"stretch": 2},
            f"search.stretch: expected one of the keys {', '.join(JointParams.model_fields)}, "
            "found an unknown key",
        ),
    ],
)
def test_a_mistake_is_one_line_whatever_the_strategies(
    strategies: list[str], search: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as error:
        spec(strategies, search)
    assert str(error.value) == f"t: {message}"


class PatientParams(EvolutionParams):
    stretch: Annotated[int, Field(ge=1, le=10)] = 2
    archive: Annotated[int, Field(ge=1, le=5)] = 3  # joint has one with other bounds


@pytest.fixture
def patient() -> Iterator[None]:
    def serve(searches: Searches) -> Iterator[Outcome]:
        yield from ()

    def evaluations(params: PatientParams, k: int) -> int:
        return params.stretch * k

    strategy("patient", evaluations=evaluations, parameters=PatientParams)(serve)
    yield
    del STRATEGIES["patient"]


@pytest.mark.usefixtures("patient")
def test_a_registered_strategy_brings_its_parameters() -> None:
    plain, other = spec(["patient", "top_down"], {}), spec(["patient", "top_down"], {"stretch": 7})
    params = other.search.of("patient")
    assert isinstance(params, PatientParams)
    assert (params.stretch, params.archive) == (7, 3)
    assert STRATEGIES["patient"].evaluations(params, 4) == 28
    assert type(other.search.of("top_down")) is EvolutionParams
    assert identity("patient", plain) != identity("patient", other)
    assert identity("top_down", plain) == identity("top_down", other)
    assert make_spec(other.model_dump(mode="json"), "run.json: spec") == other
    assert spec(["patient"], {"stretch": 2}) == spec(["patient"], {})
    with pytest.raises(
        UserError, match=r"^t: search.stretch: expected a number less than or equal to 10, found 11$"
    ):
        spec(["patient"], {"stretch": 11})


@pytest.mark.usefixtures("patient")
def test_a_parameter_is_checked_by_the_strategies_that_a_sweep_names() -> None:
    assert spec(["joint"], {"archive": 9}).search.of("joint").identity()["moves"]["archive"] == 9
    for strategies in (["patient"], ["joint", "patient"]):
        with pytest.raises(
            UserError, match=r"^t: search.archive: expected a number less than or equal to 5, found 9$"
        ):
            spec(strategies, {"archive": 9})
    both = spec(["joint", "patient"], {"archive": 3})  # the default of one of them only
    assert both.model_dump()["search"]["archive"] == 3
    assert both.search.of("patient") == PatientParams()


def test_a_strategy_with_two_counts_or_another_shared_default_is_refused() -> None:
    class Long(EvolutionParams):
        generations: int = 1000

    with pytest.raises(ValueError, match=r"^long: generations: expected the shared default 500, found 1000$"):
        strategy("long", lambda full, warm: warm, parameters=Long)
    with pytest.raises(ValueError, match=r"^both: expected one of later and evaluations, found both$"):
        strategy("both", lambda full, warm: warm, evaluations=lambda params, k: k)
    with pytest.raises(ValueError, match=r"^none: expected one of later and evaluations, found none$"):
        strategy("none")
    assert not {"long", "both", "none"} & set(STRATEGIES)
