"""Host the workers that run shards, in this process or in the actors of a pool on Ray."""

from __future__ import annotations

import functools
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import torch

from topdown_ray.errors import UserError
from topdown_ray.store.schema import to_tables
from topdown_ray.sweeps.groups import Group, Shard
from topdown_ray.sweeps.runner import Setup, Worker
from topdown_ray.tasks import Executor

if TYPE_CHECKING:
    from topdown_ray.cluster import Pool

Tables = tuple[pa.Table, ...]  # searches, trace, and the front if there is one
ShardExecutor = Executor[Shard, Tables]


class ShardHost:
    """Hosts a worker: shards in, tables out. groups: what it will run, for which it is warmed up."""

    def __init__(
        self,
        run_id: str,
        setups: Mapping[str, Setup],
        groups: Sequence[Group] = (),
        device: str = "cpu",
    ):
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError(
                f"--gpus: expected a GPU that torch can use on {socket.gethostname()}, found none"
            )
        self.run_id = run_id
        self.worker = Worker(setups, groups, device)

    def __call__(self, shard: Shard) -> Tables:
        """Run a shard."""
        return to_tables(self.run_id, *self.worker.run(shard))


def shard_pool(
    actors: int | None,
    run_id: str,
    setups: Mapping[str, Setup],
    gpus: int = 0,
    groups: Sequence[Group] = (),
) -> Pool[Shard, Tables]:
    """Start a pool of actors that run shards. Use it inside :func:`topdown_ray.cluster.connected`.

    actors: on CPUs; None: one for each CPU of the cluster, including those of nodes that join later. gpus:
    additional actors with one GPU each. More actors than the cluster has CPUs or GPUs are an error, unless it
    has a node without CPUs, like the head of a cluster that scales. groups: what the actors will run, for
    which they are warmed up. Raises UserError.
    """
    from topdown_ray import cluster

    have = cluster.resources()
    check_request(actors, gpus, have, cluster.scales())
    make = functools.partial(ShardHost, run_id, dict(setups), tuple(groups))
    numbers = {"cuda": gpus, "cpu": max(have["CPU"] - gpus, 0) if actors is None else actors}
    return cluster.Pool(make, numbers, grows=actors is None)


def check_request(actors: int | None, gpus: int, have: Mapping[str, int], scales: bool) -> None:
    """Raise UserError for more actors than the cluster has, or will have, room for."""
    if have["CPU"] == 0 and actors is None:
        raise UserError(
            "--actors: expected a number, since the cluster has no CPUs yet (it scales from zero), found none"
        )
    for option, kind, asked in (("--gpus", "GPU", gpus), ("--actors", "CPU", (actors or 0) + gpus)):
        if asked > have[kind] and not scales:
            found = f"{asked}, including those with a GPU" if kind == "CPU" and gpus else asked
            raise UserError(
                f"{option}: expected at most {have[kind]}, the {kind}s of the cluster, found {found}"
            )
