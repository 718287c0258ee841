"""The wheel holds what it needs and nothing else, and works outside the repository."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.mark.slow
def test_the_wheel_runs_the_demo_elsewhere(tmp_path: Path) -> None:
    source, target, home = tmp_path / "source", tmp_path / "target", tmp_path / "home"
    source.mkdir()
    home.mkdir()
    shutil.copytree(
        ROOT / "topdown_ray", source / "topdown_ray", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*pip, "wheel", *options, "--wheel-dir", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    files = zipfile.ZipFile(wheel).namelist()
    assert {file.split("/")[0] for file in files} == {
        "topdown_ray",
        next(f for f in files if "METADATA" in f).split("/")[0],
    }
    assert {path.name for path in (ROOT / "topdown_ray" / "data").iterdir()} <= {
        part for file in files for part in file.split("/")
    }
    assert wheel.stat().st_size < 1_200_000  # half of it code, a third the stand-in predictors
    assert "topdown_ray/py.typed" in files  # type checkers read the annotations of the installed package
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [name for name in files if name.endswith(".dist-info/METADATA")]
        extras = re.findall(r"(?m)^Provides-Extra: (.+)$", archive.read(metadata).decode())
    assert {"all", "bench", "export", "mlflow", "tensorboard"} <= set(extras)
    subprocess.run([*pip, "install", "--no-deps", "--quiet", "--target", target, wheel], check=True)
    environment = {
        **os.environ,
        "PYTHONPATH": str(target),
        "TOPDOWN_RAY_ASSETS": "",
        "TOPDOWN_RAY_OFFLINE": "1",
        "XDG_CACHE_HOME": str(home / "cache"),
    }
    where = [sys.executable, "-c", "import topdown_ray; print(topdown_ray.__file__)"]
    found = subprocess.run(
        where, cwd=home, env=environment, check=True, capture_output=True, text=True
    ).stdout
    assert Path(found.strip()).is_relative_to(target)
    demo = [sys.executable, "-m", "topdown_ray", "demo", "--address", "none"]
    done = subprocess.run(demo, cwd=home, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "epyc_1thread" in done.stdout
    for line in done.stdout.splitlines()[-2:]:  # the commands to try next
        name, *words = shlex.split(line)
        assert name == "topdown-ray"
        subprocess.run([*demo[:3], *words], cwd=home, env=environment, check=True, capture_output=True)
    assert (home / "results" / "demo-embedded" / "report" / "report.html").is_file()


def test_a_checkout_named_as_the_package_does_not_hide_an_editable_install(tmp_path: Path) -> None:
    """The install is a path entry: a folder that holds the checkout is found first, but is no package."""
    checkout, site = tmp_path / "topdown_ray", tmp_path / "site"
    checkout.mkdir()
    (checkout / "topdown_ray").symlink_to(ROOT / "topdown_ray")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    build = f"from hatchling.build import build_editable; build_editable({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=checkout, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    code = f"import site; site.addsitedir({str(site)!r})\n"
    code += "import topdown_ray; print(topdown_ray.UserError.__module__)"
    command = [sys.executable, "-S", "-c", code]  # without the packages that are installed here
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "topdown_ray.errors"
