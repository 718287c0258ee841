"""A Slurm of two nodes on this machine. Each node has a network, a hostname and processes of its own, so that
Ray's nodes do not meet, nor any other Ray of this machine.
"""

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "unshare", "nsenter", "ip")
ADDRESSES = {"n1": "10.213.0.1", "n2": "10.213.0.2"}
# cred_expire is also how long a job waits that is queued again (Slurm's default: 120 s)
CONFIGURATION = """
ClusterName=test
SlurmctldHost=n1({n1})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={state}/munge.socket,cred_expire=6
StateSaveLocation={state}/slurmctld
SlurmdSpoolDir={state}/slurmd-%n
SlurmctldPidFile={state}/slurmctld.pid
SlurmdPidFile={state}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n1 NodeAddr={n1} CPUs=1 RealMemory=8000
NodeName=n2 NodeAddr={n2} CPUs=1 RealMemory=8000
PartitionName=usual Nodes=ALL Default=YES PriorityTier=1
PartitionName=urgent Nodes=ALL PriorityTier=2
"""
# The first process of a node, which waits for its network and for all that is orphaned there.
NODE = """
hostname {name}
mount --bind {state}/hosts /etc/hosts
mkdir -p /tmp/ray && mount --bind {state}/ray-{name} /tmp/ray
ip link set lo up
until ip -4 addr show dev eth0 2>/dev/null | grep -q {address}; do sleep 0.02; done
{daemons}
wait
"""
DAEMONS = {"n1": "slurmctld -D & slurmd -D -N n1 &", "n2": "slurmd -D -N n2 &"}


class Slurm:
    """A running Slurm; its commands run on the first node. state: the folder of all its files."""

    def __init__(self, state: Path, stack: ExitStack):
        self._state, self._stack = state, stack
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self._environment = {**os.environ, "PATH": path, "SLURM_CONF": str(state / "slurm.conf")}
        (state / "slurm.conf").write_text(CONFIGURATION.format(state=state, **ADDRESSES))
        hosts = [f"{address} {name}" for name, address in ADDRESSES.items()]
        (state / "hosts").write_text("\n".join(["127.0.0.1 localhost", *hosts, ""]))
        for folder in ("slurmctld", *(f"{of}-{name}" for of in ("slurmd", "ray") for name in ADDRESSES)):
            (state / folder).mkdir()
        (state / "munge.key").write_bytes(secrets.token_bytes(64))
        (state / "munge.key").chmod(0o600)
        files = [f"--{what}-file={state}/munge.{what}" for what in ("key", "pid", "log", "seed")]
        self._start("munged", "--foreground", "--force", f"--socket={state}/munge.socket", *files)
        self.wait_until((state / "munge.socket").exists)
        pids = [self._start_node(name, address) for name, address in ADDRESSES.items()]
        self._first = pids[0]
        link = f"link add eth0 type veth peer name eth0 netns {pids[1]}"
        for pid, address in zip(pids, ADDRESSES.values(), strict=True):
            for command in (link, "link set eth0 up", f"addr add {address}/24 dev eth0"):
                if command != link or pid == self._first:
                    in_network = ["nsenter", f"--target={pid}", "--net", "ip", *command.split()]
                    subprocess.run(in_network, check=True)
        self.wait_until(lambda: self.run("sinfo", "-h", "-o", "%T %D", check=False) == "idle 2")

    def _start(self, *command: str) -> psutil.Popen:
        log = self._stack.enter_context((self._state / "daemons.log").open("ab"))
        process = psutil.Popen(command, stdout=log, stderr=log, env=self._environment)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    def _start_node(self, name: str, address: str) -> int:
        """The identifier, on this machine, of a node's first process; all others of the node end with it."""
        script = NODE.format(name=name, state=self._state, address=address, daemons=DAEMONS[name])
        own = ("--net", "--pid", "--mount", "--uts", "--fork", "--kill-child", "--mount-proc")
        parent = self._start("unshare", *own, "bash", "-ec", script)
        self.wait_until(lambda: bool(parent.children()))
        return int(parent.children()[0].pid)

    def run(self, *command: object, check: bool = True, **environment: str) -> str:
        """What a command prints on the first node."""
        enter = ["nsenter", f"--target={self._first}", "--net", "--pid", "--mount", "--uts"]
        done = subprocess.run(
            [*enter, *map(str, command)],
            capture_output=True,
            text=True,
            env={**self._environment, **environment},
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    def wait_until_done(self, job: str) -> None:
        """Wait until a job, or all tasks of an array, have completed without an error."""
        self.wait_until(lambda: not self.run("squeue", "--noheader", f"--jobs={job}"))
        states = self.run("scontrol", "--oneliner", "show", "job", job)
        assert states.count("JobState=COMPLETED") == states.count("JobState="), states

    def wait_until(self, what: Callable[[], bool], seconds: float = 300) -> None:
        """Wait; what Slurm's daemons wrote is told if it takes too long."""
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, (self._state / "daemons.log").read_text()[-5000:]
            time.sleep(0.1)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """The test skips, saying so, where a Slurm cannot be started."""
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        pytest.skip(f"no Slurm (packages slurm-wlm, munge, iproute2): {', '.join(missing)} missing")
    own = subprocess.run(
        ["unshare", "--net", "--pid", "--fork", "--mount-proc", "ip", "link", "add", "type", "veth"],
        capture_output=True,
        text=True,
        check=False,
    )
    if own.returncode:
        pytest.skip(f"Slurm's nodes cannot have networks of their own: {own.stderr.strip()}")
    with ExitStack() as stack:
        yield Slurm(tmp_path_factory.mktemp("slurm"), stack)
