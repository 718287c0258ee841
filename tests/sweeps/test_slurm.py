"""The example scripts for Slurm, on a real one: stopped half-way and queued again, they end with the tables
of one undisturbed sweep.
"""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import ROOT
from support.commands import SWEEP, main_in_process, sweep_file
from support.slurm import Slurm
from support.sweeping import assert_same, run

import topdown_ray
from topdown_ray.sweeps.verify import verify

pytestmark = pytest.mark.slow

SCRIPTS = ROOT / "scripts" / "examples" / "slurm"
BLOCKS = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "guides" / "slurm.md").read_text(), re.DOTALL)
LONGER = {"seeds": 48, "batch": 2, "search": {"population": 50, "generations": 150, "warm_generations": 50}}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> topdown_ray.Results:
    return run({**SWEEP, **LONGER}, tmp_path_factory.mktemp("sweep") / "out")


def submit(slurm: Slurm, folder: Path, script: str, *options: str) -> str:
    sweep_file(folder, **LONGER)
    command = ["sbatch", "--parsable", f"--chdir={folder}", *options, SCRIPTS / script]
    return slurm.run(*command, SWEEP="sweep.yaml", OUT="out")


def once_begun(slurm: Slurm, scancels: Mapping[Path, str]) -> None:
    """Send a signal to the job that fills a folder, as soon as the folder has its first rows."""
    left = dict(scancels)

    def sent() -> bool:
        for folder in [folder for folder in left if any(folder.glob("searches/*.parquet"))]:
            slurm.run("scancel", *left.pop(folder).split())
        return not left

    slurm.wait_until(sent)


# what `#SBATCH --signal=B:USR1@...` has Slurm do minutes before a time limit, here at once
NEAR_ITS_LIMIT = "--batch --signal=USR1"


def test_an_array_of_parts(
    slurm: Slurm,
    undisturbed: topdown_ray.Results,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One task is near its time limit. The other one stands still until a job of a better partition pre-empts
    it.
    """
    job = submit(slurm, tmp_path, "array.sh", "--array=1-2")
    parts = [tmp_path / "out" / number for number in "12"]
    once_begun(slurm, {parts[0]: f"{NEAR_ITS_LIMIT} {job}_1", parts[1]: f"--full --signal=STOP {job}_2"})
    slurm.run("sbatch", "--partition=urgent", "--nodelist=n2", "--output=/dev/null", "--wrap=true")
    slurm.wait_until_done(job)
    told = [(tmp_path / f"slurm-{job}_{number}.out").read_text() for number in "12"]
    assert "DUE TO PREEMPTION" in told[1]
    for text, part in zip(told, parts, strict=True):
        assert text.count("Interrupted. Finished shards are in") == 1, text
        manifest = topdown_ray.load(part).manifest
        assert [manifest["status"], len(manifest["sessions"])] == ["complete", 2]
    assert main_in_process(["merge", tmp_path / "merged", *parts], capsys).returncode == 0
    merged = topdown_ray.load(tmp_path / "merged")
    assert_same(undisturbed, merged)
    assert verify(merged).passed


@pytest.mark.ray
def test_a_job_over_two_nodes(slurm: Slurm, undisturbed: topdown_ray.Results, tmp_path: Path) -> None:
    job = submit(slurm, tmp_path, "cluster.sh", "--nodes=2")
    out = tmp_path / "out"
    once_begun(slurm, {out: f"{NEAR_ITS_LIMIT} {job}"})
    slurm.wait_until_done(job)
    found = topdown_ray.load(out)
    text = (tmp_path / f"slurm-{job}.out").read_text()
    assert text.count("Interrupted. Finished shards are in") == 1, text[-3000:]
    assert [found.manifest["status"], len(found.manifest["sessions"])] == ["complete", 2]
    assert text.count("On worker node. Connecting to Ray cluster at n1:") == 2
    assert (
        text.count("Running command on head node: ['topdown-ray', 'sweep'") == 2
    )  # once both nodes are there
    assert_same(undisturbed, found)
    assert verify(found).passed


def test_slurm_accepts_the_commands_of_the_page(slurm: Slurm, tmp_path: Path) -> None:
    """They are submitted, held, and cancelled."""
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    held = f'cd {tmp_path}; sbatch() {{ command sbatch --hold "$@"; }}; topdown-ray() {{ true; }}\n'
    for block in BLOCKS:
        slurm.run("bash", "-euc", held + block)
    jobs = slurm.run("squeue", "--noheader", "--format=%j %T").splitlines()
    slurm.run("scancel", "--user=root")
    assert sorted(jobs) == [*["topdown-ray PENDING"] * 3, "wrap PENDING"]


@pytest.mark.parametrize("script", sorted(SCRIPTS.iterdir()), ids=lambda script: script.name)
def test_bash_understands(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
