"""Host the evaluators of subnets, in this process or in the actors of a pool on Ray."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from topdown_ray.errors import UserError
from topdown_ray.tasks import Done, Executor, GivenUp, InProcess, Make, Result, Task, run_all
from topdown_ray.terminal import say

if TYPE_CHECKING:
    from topdown_ray.cluster import Pool


@dataclass(frozen=True)
class Resources:
    """Where the hosted object runs."""

    address: str = "local"  # none: in this process
    actors: int | None = None  # None: one for each CPU of the cluster, or as many as its GPUs allow
    gpus: float = 0.0  # for each actor; with a fraction, several actors share a GPU

    def check(self) -> None:
        """Raise UserError if the numbers make no sense."""
        if not 0 <= self.gpus <= 64 or (self.gpus > 1 and self.gpus != int(self.gpus)):
            raise UserError(
                f"--gpus: expected a fraction of a GPU, or a whole number up to 64, found {self.gpus:g}"
            )
        if self.address == "none" and (self.actors or 1) != 1:
            raise UserError(f"--actors: expected 1 with --address none, found {self.actors}")


def run_hosted(
    make: Make[Task, Result], tasks: Sequence[Task], resources: Resources
) -> Iterator[Done[Task, Result] | GivenUp[Task]]:
    """Yield the outcome of each task, in the order in which they end. See :func:`topdown_ray.tasks.run_all`.

    Raises UserError, StartError.
    """
    resources.check()
    if tasks:
        with _executor(make, len(tasks), resources) as executor:
            yield from run_all(executor, tasks)


@contextlib.contextmanager
def _executor(
    make: Make[Task, Result], n_tasks: int, resources: Resources
) -> Iterator[Executor[Task, Result]]:
    device = "cuda" if resources.gpus else "cpu"
    if resources.address == "none":
        yield InProcess(make(device), device)
        return
    from topdown_ray import cluster

    with cluster.connected(resources.address, say):
        pool: Pool[Task, Result] = cluster.Pool(
            make, {device: min(_room(cluster.resources(), resources), n_tasks)}, resources.gpus
        )
        try:
            yield pool
        finally:
            pool.close()


def _room(have: dict[str, int], resources: Resources) -> int:
    """Return the number of actors to start. Raises UserError if the cluster does not have room for them."""
    if resources.gpus > have["GPU"]:
        raise UserError(
            f"--gpus: expected at most {have['GPU']}, the GPUs of the cluster, found {resources.gpus:g}"
        )
    most = have["CPU"]
    if resources.gpus:
        most = min(most, int(have["GPU"] / resources.gpus))
    asked = resources.actors or 1
    if asked > most:
        raise UserError(f"--actors: expected at most {most}, for which the cluster has room, found {asked}")
    return resources.actors or most
