"""The files for Ray's cluster launcher, through the validation of the installed Ray, and what that validation
lets pass.
"""

import tomllib
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.commands import main_in_process

FILES = ("cluster.yaml", "scripts/examples/cluster-onprem.yaml")


def config_of(file: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / file).read_text())


def validated(config: dict[str, Any]) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(config)
    validate_config(prepared)
    return prepared


@pytest.mark.parametrize("file", FILES)
def test_ray_accepts_the_file(file: str) -> None:
    prepared = validated(config_of(file))
    for name in ("head_start_ray_commands", "worker_start_ray_commands", "setup_commands"):
        assert prepared[name] == config_of(file)[name]


def test_ray_refuses_a_wrong_file() -> None:
    with pytest.raises(Exception, match="head_node_typ"):
        validated({**config_of("cluster.yaml"), "head_node_typ": "head"})


@pytest.mark.parametrize("file", FILES)
def test_what_rays_validation_lets_pass(file: str) -> None:
    config = config_of(file)
    assert config["cluster_name"]
    assert config["auth"]["ssh_user"]
    for kind in validated(config)["available_node_types"].values():
        assert kind["min_workers"] <= kind["max_workers"]
    if config["provider"]["type"] == "local":
        assert {*config["provider"]} == {"type", "head_ip", "worker_ips"}
    else:
        assert config["provider"]["region"]
        assert all(kind["node_config"]["InstanceType"] for kind in config["available_node_types"].values())
    for source in config["file_mounts"].values():
        assert source == "~/.ray/auth_token" or (ROOT / source / "pyproject.toml").is_file()
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    assert all("RAY_AUTH_MODE=token" in start for start in starts if "ray start" in start)
    (head,) = [start for start in starts if "--head" in start]
    assert "--num-cpus=0" in head  # takes no searches
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head


def constraints() -> dict[str, str]:
    """Package -> the one version that constraints.txt allows."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins: dict[str, str] = {}
    for requirement in map(Requirement, lines):
        (pin,) = requirement.specifier
        assert pin.operator == "=="
        assert requirement.marker is None
        assert requirement.url is None
        assert requirement.name not in pins
        pins[requirement.name] = pin.version
    return pins


@pytest.mark.parametrize("file", FILES)
def test_versions_are_pinned_to_what_the_project_accepts(file: str) -> None:
    (install,) = [
        command for command in config_of(file)["setup_commands"] if command.endswith(" ~/topdown_ray")
    ]
    assert "--constraint ~/topdown_ray/constraints.txt" in install
    assert config_of(file)["file_mounts"]["~/topdown_ray"] == "."
    assert (
        version("topdown-ray") == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    )


def test_every_direct_dependency_is_pinned_above_its_floor() -> None:
    project, pins = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"], constraints()
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    for requirement in map(Requirement, [*project["dependencies"], *extras]):
        if requirement.name == project["name"]:  # the extra that names the others
            continue
        pin = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin), f"{requirement}: pinned to {pin}"
    for requirement in map(Requirement, project["dependencies"]):
        (floor,) = requirement.specifier
        assert floor.operator == ">="
        assert pins[canonicalize_name(requirement.name)].startswith(floor.version), (
            f"{requirement}: not what was tested"
        )


def test_known_holes_are_below_the_floors() -> None:
    """CVE-2025-32434 and CVE-2026-24747 (torch), CVE-2023-47248 (pyarrow)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    floors = {
        requirement.name: requirement.specifier for requirement in map(Requirement, project["dependencies"])
    }
    assert not floors["torch"].contains("2.9.1")
    assert not floors["pyarrow"].contains("14.0.0")


def test_the_tests_run_with_the_pinned_versions() -> None:
    """What install.sh has installed is what the constraints say, CUDA's local versions aside; if not:
    scripts/make/constraints.py
    """
    pins = constraints()
    here = {canonicalize_name(found.name): found.version.partition("+")[0] for found in distributions()}
    common = pins.keys() & here.keys()  # a newer Python needs a few packages less
    assert len(common) > 100
    assert {name: here[name] for name in common} == {name: pins[name] for name in common}
    assert "--constraint constraints.txt" in (ROOT / "scripts" / "install.sh").read_text()


def test_the_cloud_has_a_head_without_searches_and_spot_workers_of_both_kinds() -> None:
    config = config_of("cluster.yaml")
    types = dict(config["available_node_types"])
    assert types.pop(config["head_node_type"])["resources"] == {"CPU": 0}
    assert {kind["resources"].get("GPU", 0) for kind in types.values()} == {0, 1}
    for kind in types.values():
        assert kind["min_workers"] == 0
        assert kind["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}


def test_the_head_fetches_what_there_is_to_fetch(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command of both files, run here."""
    for file in FILES:
        (fetch,) = [command for command in config_of(file)["head_setup_commands"] if "assets" in command]
        command, _, arguments = fetch.partition(" ")
        assert command.endswith("/bin/topdown-ray")
        done = main_in_process(arguments.split(), capsys)
        assert done.returncode == 0
        assert str(published / "acc_predictor.pth") in done.stdout
