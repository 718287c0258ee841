"""The image and the RayJob for Kubernetes: what can be proved of them without a Docker daemon and without a
cluster.
"""

import gzip
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from conftest import ROOT
from support.commands import main_in_process

from topdown_ray import __version__

DOCKERFILE = ROOT / "Dockerfile"
RAYJOB = ROOT / "scripts" / "examples" / "kuberay" / "rayjob.yaml"


def instructions(keyword: str) -> list[str]:
    """The arguments of the instructions of a kind, each on one line."""
    lines = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text()).splitlines()
    return [line.removeprefix(f"{keyword} ") for line in lines if line.startswith(f"{keyword} ")]


def pin(name: str) -> str:
    (version,) = re.findall(rf"(?m)^{name}==(.+)$", (ROOT / "constraints.txt").read_text())
    return str(version)


def test_the_linter_of_dockerfiles_finds_nothing() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), DOCKERFILE], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_is_slim_runs_the_command_and_is_no_root() -> None:
    assert instructions("FROM") == ["python:3.11-slim"]  # for which constraints.txt is made
    assert instructions("ENTRYPOINT") == ['["topdown-ray"]']
    assert instructions("USER") == ["1000"]
    assert all("--no-cache-dir" in line for line in instructions("RUN") if "pip install" in line)
    assert all("rm -rf /var/lib/apt/lists/*" in line for line in instructions("RUN") if "apt-get" in line)


def test_the_context_of_the_image_is_all_that_its_install_needs(tmp_path: Path) -> None:
    """The install command of the image, in a folder with what .dockerignore lets through and into an empty
    one. The dependencies, which scripts/install.sh installs in the same way, are those that are here.
    """
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    context, target = tmp_path / "source", tmp_path / "target"
    context.mkdir()
    for name in [line[1:].rstrip("/") for line in ignored if line.startswith("!")]:
        (context / name).symlink_to(ROOT / name)
    (install,) = [line for line in instructions("RUN") if "pip install" in line]
    mount, *command = shlex.split(install)
    assert mount == "--mount=type=bind,target=/source,rw"
    assert [line.partition("=")[0] for line in instructions("ARG")] == ["TORCH_INDEX", "EXTRAS"]
    assert command == [
        *("pip", "install", "--no-cache-dir", "--extra-index-url", "${TORCH_INDEX}"),
        *("--constraint", "constraints.txt", ".${EXTRAS}"),
    ]
    here = ["--no-deps", "--no-build-isolation", "--target", str(target)]
    run = [sys.executable, "-m", *command[:3], *command[5:7], ".", *here]
    subprocess.run(run, cwd=context, check=True, capture_output=True, timeout=300)
    program = [sys.executable, "-c", "from topdown_ray.cli.main import main; main()", "--version"]
    path = {**os.environ, "PYTHONPATH": str(target)}
    done = subprocess.run(program, cwd=tmp_path, env=path, check=True, capture_output=True, text=True)
    assert done.stdout == f"topdown-ray {__version__}\n"


@pytest.fixture(scope="module")
def documents() -> dict[str, Any]:
    found = {document["kind"]: document for document in yaml.safe_load_all(RAYJOB.read_text())}
    assert set(found) == {"ConfigMap", "PersistentVolumeClaim", "RayJob"}
    return found


@pytest.fixture(scope="module")
def schema(published: Path) -> dict[str, Any]:
    """KubeRay's own definition of a RayJob."""
    file = published.parent / "reference" / "kuberay" / "ray.io_rayjobs.yaml.gz"
    if not file.exists():
        pytest.skip(f"KubeRay's definition of a RayJob is missing: {file.name}, beside the artefacts' folder")
    definition = yaml.load(gzip.decompress(file.read_bytes()), yaml.CSafeLoader)
    (version,) = [each for each in definition["spec"]["versions"] if each["storage"]]
    assert version["name"] == "v1"
    return closed(version["schema"]["openAPIV3Schema"])


def closed(schema: Any) -> Any:
    """A schema that refuses the keys that it does not name, which Kubernetes would drop in silence."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    named = schema.get("properties") if schema.get("type") == "object" else None
    # a job's own metadata are checked by Kubernetes, not by the definition
    if named and "metadata" not in named and not schema.get("x-kubernetes-preserve-unknown-fields"):
        found["additionalProperties"] = False
    return found


def test_kuberay_accepts_the_job(documents: dict[str, Any], schema: dict[str, Any]) -> None:
    job = documents["RayJob"]
    assert job["apiVersion"] == "ray.io/v1"
    jsonschema.validate(job, schema)
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]
    for wrong in (
        {**job, "spec": {**job["spec"], "backoffLimit": "three"}},
        {**job, "spec": {**job["spec"], "rayClusterSpec": {"headGroupSpec": {**head, "rayStartParam": {}}}}},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def containers(job: dict[str, Any]) -> dict[str, tuple[dict[str, str], dict[str, Any]]]:
    """The start parameters and the container of each group."""
    cluster = job["spec"]["rayClusterSpec"]
    groups = {"head": cluster["headGroupSpec"]} | {
        each["groupName"]: each for each in cluster["workerGroupSpecs"]
    }
    return {
        name: (group["rayStartParams"], group["template"]["spec"]["containers"][0])
        for name, group in groups.items()
    }


def test_the_job_runs_the_versions_of_this_project(documents: dict[str, Any]) -> None:
    job = documents["RayJob"]
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == pin("ray")
    images = [container["image"].rpartition(":")[2] for _, container in containers(job).values()]
    assert images == [__version__, __version__, f"{__version__}-gpu"]


def test_workers_come_from_zero_and_ask_for_what_ray_counts(documents: dict[str, Any]) -> None:
    cluster = documents["RayJob"]["spec"]["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert all(group["minReplicas"] == group["replicas"] == 0 for group in cluster["workerGroupSpecs"])
    for name, (started, container) in containers(documents["RayJob"]).items():
        asked = container["resources"]["requests"]
        assert asked == container["resources"]["limits"]
        if name == "head":
            assert started["num-cpus"] == "0"
            continue
        assert started["num-cpus"] == asked["cpu"]
        assert started.get("num-gpus") == asked.get("nvidia.com/gpu")
    cpu = next(group for group in cluster["workerGroupSpecs"] if group["groupName"] == "cpu")
    (selected,) = cpu["template"]["spec"]["nodeSelector"].items()
    (tolerated,) = cpu["template"]["spec"]["tolerations"]
    assert (tolerated["key"], tolerated["value"]) == selected  # pre-emptible nodes


def test_the_commands_of_the_job_can_be_run(
    documents: dict[str, Any], published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job, data = documents["RayJob"], documents["ConfigMap"]["data"]
    assert job["spec"]["entrypoint"] == "bash /sweep/run.sh"
    _, head = containers(job)["head"]
    mounts = {mount["mountPath"]: mount["name"] for mount in head["volumeMounts"]}
    volumes = {
        volume["name"]: volume
        for volume in job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["volumes"]
    }
    assert volumes[mounts["/sweep"]]["configMap"]["name"] == documents["ConfigMap"]["metadata"]["name"]
    claim = volumes[mounts["/assets"]]["persistentVolumeClaim"]["claimName"]
    assert claim == documents["PersistentVolumeClaim"]["metadata"]["name"]
    (tmp_path / "sweep.yaml").write_text(data["sweep.yaml"])
    first, fetch, run = data["run.sh"].splitlines()
    assert first == "set -e"
    assert shlex.split(fetch) == ["topdown-ray", "assets", "fetch", "--to", "/assets"]
    done = main_in_process(["assets", "fetch", "--to", os.environ["TOPDOWN_RAY_ASSETS"]], capsys)
    assert done.returncode == 0
    program, *arguments = shlex.split(run.removeprefix("exec "))
    assert program == "topdown-ray"
    arguments[1] = str(tmp_path / Path(arguments[1]).relative_to("/sweep"))
    done = main_in_process([*arguments, "--dry-run"], capsys)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("This sweep has ")
